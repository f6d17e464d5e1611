#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-only
# The only process: tries to load modules, and prints the results on the console for the test.

busybox mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t securityfs security /sys/kernel/security

report() {
	echo "test: $*"
}

report "release $(busybox uname -r)"
report "lockdown $(busybox cat /sys/kernel/security/lockdown)"
for module in unsigned other signed; do
	if error=$(busybox insmod "/$module.ko" 2>&1); then
		report "module $module: loaded"
	else
		report "module $module: refused: $error"
	fi
done
report "listed $(busybox cut -d ' ' -f 1 /proc/modules)"
report "statistics $(busybox head -n 1 /proc/net/xt_traffic/.stats)"
report "end"
busybox poweroff -f
