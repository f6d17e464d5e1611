#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Makes the firmware and the disk of the test, in /out. The packages are in /src/signed and
# /src/unsigned, the kernel's build is in /build, and the other inputs are in /repo.
set -eu

# The owner of a key in the firmware's variables: any UUID.
owner=605dab50-e046-4300-abb6-3dd810dd8b23

mkdir signed unsigned initramfs
for kind in signed unsigned; do
	for package in /src/"$kind"/linux-image-*.deb /src/"$kind"/xt-traffic-modules-*.deb; do
		dpkg-deb --extract "$package" "$kind"
	done
	module=$(find "$kind" -name 'xt_traffic.ko*')
	case $module in
	*.xz) xz --decompress --stdout "$module" >"initramfs/$kind.ko" ;;
	*) cp "$module" "initramfs/$kind.ko" ;;
	esac
done

# A key that the firmware does not know.
openssl req -new -x509 -newkey rsa:2048 -nodes -days 36500 -subj '/CN=another key' -keyout other.key -out other.pem
/build/scripts/sign-file sha256 other.key other.pem initramfs/unsigned.ko initramfs/other.ko

mkdir -p initramfs/bin initramfs/dev initramfs/proc initramfs/sys
cpio --extract --to-stdout usr/bin/busybox </repo/guest.cpio >initramfs/bin/busybox
cp /repo/init initramfs/init
chmod 755 initramfs/init initramfs/bin/busybox
(cd initramfs && find . | cpio --create --format=newc) >initramfs.cpio

# Microsoft's keys, as in a computer that is sold, and the machine owner's.
cp /usr/share/OVMF/OVMF_CODE_4M.secboot.fd code.fd
virt-fw-vars --input /usr/share/OVMF/OVMF_VARS_4M.ms.fd --add-mok "$owner" /repo/certificate --output vars.fd

# A partition for EFI, without a partition table. The firmware starts BOOTX64.EFI. shim starts
# grubx64.efi beside it. Debian's signed GRUB reads /EFI/debian/grub.cfg.
truncate --size=64M disk.img
export MTOOLSRC=/dev/null
mformat -i disk.img -F ::
mmd -i disk.img ::/EFI ::/EFI/BOOT ::/EFI/debian
mcopy -i disk.img /usr/lib/shim/shimx64.efi.signed ::/EFI/BOOT/BOOTX64.EFI
mcopy -i disk.img /usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed ::/EFI/BOOT/grubx64.efi
mcopy -i disk.img /repo/grub.cfg ::/EFI/debian/grub.cfg
mcopy -i disk.img initramfs.cpio ::/initramfs
for kind in signed unsigned; do
	mcopy -i disk.img "$kind"/boot/vmlinuz-* "::/$kind"
done
rm -r signed unsigned initramfs initramfs.cpio other.key other.pem
