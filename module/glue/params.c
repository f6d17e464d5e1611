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
