#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Runs once, as the init of the new system under its own kernel. Does what Debian's installer would do:
# settings of this host, a root account without a password, a boot loader. systemd has not run yet.
set -eu
export PATH=/usr/sbin:/usr/bin
rm "$0"

# mmdebstrap copied these from the build host. The VM has no network and so no mirror.
rm -f /etc/hostname /etc/resolv.conf /etc/apt/sources.list
echo debian >/etc/hostname
printf '127.0.0.1\tlocalhost\n127.0.1.1\tdebian\n' >/etc/hosts
echo "UUID=$(findmnt --noheadings --output UUID /) / ext4 errors=remount-ro 0 1" >/etc/fstab
systemd-machine-id-setup
passwd --delete root

# A terminal without kernel messages, in addition to the console.
systemctl enable serial-getty@ttyS1.service

cat >>/etc/default/grub <<'END'

GRUB_TIMEOUT=1
# The last two save time with TCG: with norandmaps, it translates a program once for all processes.
GRUB_CMDLINE_LINUX="console=ttyS0 net.ifnames=0 mitigations=off norandmaps"
GRUB_TERMINAL="console serial"
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
END
# Small initramfs archives: with TCG, making and loading Debian's default ones takes long.
# https://manpages.debian.org/trixie/initramfs-tools-core/initramfs.conf.5.en.html
printf 'MODULES=dep\nCOMPRESSLEVEL=1\n' >/etc/initramfs-tools/conf.d/small
update-initramfs -u
grub-install /dev/vda
update-grub

# This script is open but removed, which keeps / busy. So a shell without the script remounts it.
exec sh -c 'sync && mount -o remount,ro / && echo ready >/dev/ttyS1; echo o >/proc/sysrq-trigger; sleep 60'
