// SPDX-License-Identifier: GPL-2.0
/*
 * The module's parameters. The kernel crate cannot declare parameters that can
 * be changed in sysfs.
 */
#include <linux/kstrtox.h>
#include <linux/moduleparam.h>
#include <linux/stat.h>
#include <linux/sysfs.h>

unsigned int xt_traffic_proc_mode = 0440;
unsigned int xt_traffic_proc_uid;
unsigned int xt_traffic_proc_gid;
unsigned int xt_traffic_flows = 1000000;

/*
 * The files can only be read, so no other bits are allowed. Zero is refused,
 * because procfs takes it for 0444.
 */
static int set_mode(const char *text, const struct kernel_param *param)
{
	unsigned int mode;
	int err;

	err = kstrtouint(text, 0, &mode);
	if (err)
		return err;
	if (!mode || mode & ~S_IRUGO)
		return -EINVAL;
	*(unsigned int *)param->arg = mode;
	return 0;
}

static int get_mode(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "%#o\n", *(unsigned int *)param->arg);
}

static int set_flows(const char *text, const struct kernel_param *param)
{
	return param_set_uint_minmax(text, param, 1, 1 << 24);
}

static const struct kernel_param_ops flows_ops = {
	.set = set_flows,
	.get = param_get_uint,
};

static const struct kernel_param_ops mode_ops = {
	.set = set_mode,
	.get = get_mode,
};

module_param_cb(proc_mode, &mode_ops, &xt_traffic_proc_mode, 0644);
__MODULE_PARM_TYPE(proc_mode, "uint");
MODULE_PARM_DESC(proc_mode, "permissions of new files in /proc/net/xt_traffic, read bits only (default: 0440)");
module_param_named(proc_uid, xt_traffic_proc_uid, uint, 0644);
MODULE_PARM_DESC(proc_uid, "owner of new files in /proc/net/xt_traffic (default: 0)");
module_param_named(proc_gid, xt_traffic_proc_gid, uint, 0644);
MODULE_PARM_DESC(proc_gid, "group of new files in /proc/net/xt_traffic (default: 0)");
module_param_cb(flows, &flows_ops, &xt_traffic_flows, 0644);
__MODULE_PARM_TYPE(flows, "uint");
MODULE_PARM_DESC(flows, "flows of each kind that a new table remembers on each CPU, up to 2^24 (default: 1000000)");
