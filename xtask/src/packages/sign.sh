#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# sign.sh unpack PACKAGE...: unpacks packages of the kernel and of modules to /out/unpacked, and
# signs what the firmware and the kernel check.
# sign.sh pack PACKAGE...: makes packages of the folders, in /out.
#
# The packages are in /src and the kernel's build in /build. The key and its certificate are /repo/key
# and /repo/certificate.
set -eu

# Signs modules. The signature is a part of what is compressed, which is done as in the kernel's
# scripts/Makefile.modinst. The arguments are those of `sh -c`, which expands them.
# https://docs.kernel.org/admin-guide/module-signing.html#manually-signing-modules
# shellcheck disable=SC2016
sign_modules='
for module; do
	case $module in *.xz) unxz "$module" ;; esac
	/build/scripts/sign-file "$hash" /repo/key /repo/certificate "${module%.xz}"
	case $module in *.xz) xz --check=crc32 --lzma2=dict=1MiB "${module%.xz}" ;; esac
done'

sign_image() {
	sbsign --key /repo/key --cert /repo/certificate --output "$1.signed" "$1"
	sbverify --cert /repo/certificate "$1.signed"
	# The name, the permissions and the time of the original.
	cat "$1.signed" >"$1"
	rm "$1.signed"
}

sign_files() {
	find "$1" -path '*/boot/vmlinuz-*' -type f | while read -r image; do
		sign_image "$image"
	done
	find "$1" -path '*/lib/modules/*' '(' -name '*.ko' -o -name '*.ko.xz' ')' -type f -print0 |
		xargs -0 --no-run-if-empty --max-args=16 --max-procs="$(nproc)" sh -euc "$sign_modules" -
	other=$(find "$1" -path '*/lib/modules/*' -name '*.ko.*' ! -name '*.ko.xz')
	if [ "$other" ]; then
		echo "cannot sign modules with this compression: $other" >&2
		exit 1
	fi
}

unpack() {
	hash=$(sed -n 's/^CONFIG_MODULE_SIG_HASH="\(.*\)"$/\1/p' /build/.config)
	if [ ! "$hash" ]; then
		echo "the kernel does not check signatures: CONFIG_MODULE_SIG is not set" >&2
		exit 1
	fi
	export hash
	for package; do
		folder=/out/unpacked/$package
		mkdir -p /out/unpacked
		dpkg-deb --raw-extract "/src/$package" "$folder"
		touch --reference="$folder/DEBIAN/control" /out/time
		sign_files "$folder"
		find "$folder" -newer /out/time -exec touch --no-dereference --reference=/out/time {} +
	done
}

pack() {
	for package; do
		folder=/out/unpacked/$package
		(
			cd "$folder"
			find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort --zero-terminated | xargs -0r md5sum >DEBIAN/md5sums
			SOURCE_DATE_EPOCH=$(stat --format=%Y DEBIAN/control)
			SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH dpkg-deb --root-owner-group --build . /out
		)
	done
	rm -r /out/unpacked /out/time
}

"$@"
