// SPDX-License-Identifier: GPL-2.0
/*
 * What the memory budgets need from the kernel, and their module parameters. Which CPUs are online.
 */
#include <linux/cpumask.h>
#include <linux/kernel.h>
#include <linux/math64.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/nsproxy.h>
#include <linux/sched.h>
#include <linux/sysfs.h>
#include <net/net_namespace.h>

/* In bytes. 0 stands for the default. */
static u64 memory;
static u64 memory_others;

/* Bytes with an optional suffix K, M or G, or per cent of the memory. */
static int set_memory(const char *text, const struct kernel_param *param)
{
	u64 value;
	char *end;

	value = memparse(text, &end);
	if (end == text)
		return -EINVAL;
	if (*end == '%') {
		if (value > 100)
			return -EINVAL;
		value = div_u64(totalram_pages() * value, 100) << PAGE_SHIFT;
		end++;
	}
	if (*end == '\n')
		end++;
	if (*end)
		return -EINVAL;
	WRITE_ONCE(*(u64 *)param->arg, value);
	return 0;
}

static int get_memory(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%llu\n", READ_ONCE(*(u64 *)param->arg));
}

static const struct kernel_param_ops memory_ops = {
	.set = set_memory,
	.get = get_memory,
};

module_param_cb(memory, &memory_ops, &memory, 0644);
__MODULE_PARM_TYPE(memory, "charp");
MODULE_PARM_DESC(memory, "memory for all tables of the initial network namespace, in bytes or per cent; another as much for readers (default: 0, a sixteenth of the memory)");
module_param_cb(memory_others, &memory_ops, &memory_others, 0644);
__MODULE_PARM_TYPE(memory_others, "charp");
MODULE_PARM_DESC(memory_others, "the same for all other network namespaces together (default: 0, a thirty-second of the memory)");

u64 xt_traffic_memory_bound(bool initial);
bool xt_traffic_net_is_initial(const struct net *net);
bool xt_traffic_current_is_initial(void);
unsigned int xt_traffic_online_cpus(void);
bool xt_traffic_cpu_is_online(unsigned int cpu);

u64 xt_traffic_memory_bound(bool initial)
{
	u64 value = READ_ONCE(*(initial ? &memory : &memory_others));

	if (value)
		return value;
	return ((u64)totalram_pages() << PAGE_SHIFT) >> (initial ? 4 : 5);
}

bool xt_traffic_net_is_initial(const struct net *net)
{
	return net_eq(net, &init_net);
}

/* A task that exits has no namespaces any more. It does not read files. */
bool xt_traffic_current_is_initial(void)
{
	return !current->nsproxy || net_eq(current->nsproxy->net_ns, &init_net);
}

unsigned int xt_traffic_online_cpus(void)
{
	return num_online_cpus();
}

/* @cpu is below nr_cpu_ids. */
bool xt_traffic_cpu_is_online(unsigned int cpu)
{
	return cpu_online(cpu);
}
