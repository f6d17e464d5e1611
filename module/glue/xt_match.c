// SPDX-License-Identifier: GPL-2.0
/*
 * What x_tables calls for a packet. On which CPU that is, and that it stays
 * there, takes an instruction or two in C. From Rust each is a call, with all
 * registers around it that have to be saved.
 */
#include <linux/bottom_half.h>
#include <linux/netfilter/x_tables.h>
#include <linux/preempt.h>
#include <linux/smp.h>

typedef bool match_fn(const struct sk_buff *skb, struct xt_action_param *par);
typedef bool count_fn(const struct sk_buff *skb, struct xt_action_param *par,
		      unsigned int cpu);

/* Named in Rust by entry_point!, in xt_match.rs. */
match_fn xt_traffic_match_ipv4, xt_traffic_match_ipv6;
/* Made there. */
count_fn xt_traffic_count_ipv4, xt_traffic_count_ipv6;

static __always_inline bool count_locally(const struct sk_buff *skb,
					  struct xt_action_param *par,
					  count_fn *count)
{
	bool matched;

	/*
	 * While packets are received, and in the legacy tables, which switch
	 * bottom halves off themselves: that is counted in the same place.
	 */
	if (likely(softirq_count()))
		return count(skb, par, smp_processor_id());

	/* A task has sent it, or given it back from a queue. */
	local_bh_disable();
	matched = count(skb, par, smp_processor_id());
	local_bh_enable();
	return matched;
}

bool xt_traffic_match_ipv4(const struct sk_buff *skb,
			   struct xt_action_param *par)
{
	return count_locally(skb, par, xt_traffic_count_ipv4);
}

bool xt_traffic_match_ipv6(const struct sk_buff *skb,
			   struct xt_action_param *par)
{
	return count_locally(skb, par, xt_traffic_count_ipv6);
}
