#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Runs once, as the init of the new system under its own kernel, and leaves what Debian's installer would:
# settings of this machine, a root without a password, and a boot loader. systemd has not run yet.
set -eu
export PATH=/usr/sbin:/usr/bin
rm "$0"

# These are of the machine that made the disk. There is no network, and so no mirror.
rm -f /etc/hostname /etc/resolv.conf /etc/apt/sources.list
echo box >/etc/hostname
printf '127.0.0.1\tlocalhost\n127.0.1.1\tbox\n' >/etc/hosts
echo "UUID=$(findmnt --noheadings --output UUID /) / ext4 errors=remount-ro 0 1" >/etc/fstab
systemd-machine-id-setup
passwd --delete root

# A terminal beside the console, which kernel messages do not disturb.
systemctl enable serial-getty@ttyS1.service

cat >>/etc/default/grub <<'END'

GRUB_TIMEOUT=1
GRUB_CMDLINE_LINUX="console=ttyS0 net.ifnames=0"
GRUB_TERMINAL="console serial"
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
END
grub-install /dev/vda
update-grub

# A shell that has no file of the disk open for writing, as this script is gone but open.
exec sh -c 'sync && mount -o remount,ro / && echo ready >/dev/ttyS1; echo o >/proc/sysrq-trigger; sleep 60'
