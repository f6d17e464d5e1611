/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The C half of xt_match.rs: the functions that x_tables calls for a packet.
 *
 * They find out the number of the CPU, and keep the code on that CPU. In C
 * this takes an instruction or two. From Rust each step is a function call,
 * and registers have to be saved around it.
 */
#ifndef XT_MATCH_H
#define XT_MATCH_H

#include <linux/bottom_half.h>
#include <linux/netfilter/x_tables.h>
#include <linux/preempt.h>
#include <linux/smp.h>

typedef bool xt_match_fn(const struct sk_buff *skb,
			 struct xt_action_param *par);
typedef bool xt_match_on_cpu_fn(const struct sk_buff *skb,
				struct xt_action_param *par, unsigned int cpu);

static __always_inline bool xt_match_on_cpu(const struct sk_buff *skb,
					    struct xt_action_param *par,
					    xt_match_on_cpu_fn *match)
{
	bool matched;

	/*
	 * Bottom halves are disabled in softirq, and while a legacy table is
	 * traversed. The same counter says both.
	 */
	if (likely(softirq_count()))
		return match(skb, par, smp_processor_id());

	/* A task has sent the packet, or has reinjected it from a queue. */
	local_bh_disable();
	matched = match(skb, par, smp_processor_id());
	local_bh_enable();
	return matched;
}

/*
 * Defines @name, which calls @match on this CPU with bottom halves disabled.
 * The macro entry_point! of xt_match.rs declares @name and defines @match.
 */
#define XT_MATCH_ENTRY_POINT(name, match)				\
	xt_match_fn name;						\
	xt_match_on_cpu_fn match;					\
	bool name(const struct sk_buff *skb,				\
		  struct xt_action_param *par)				\
	{								\
		return xt_match_on_cpu(skb, par, match);		\
	}

#endif /* XT_MATCH_H */
