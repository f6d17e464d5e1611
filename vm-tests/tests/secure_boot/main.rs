// SPDX-License-Identifier: GPL-2.0-only
//! A virtual machine with Secure Boot, Debian's shim and GRUB, and the packages of
//! `cargo xtask deb --secure-boot`. All tests read the console of one boot.

use std::sync::LazyLock;

use vm_harness::{kernel_log, secure_boot};
use vm_tests::unwrap;

/// What GRUB, the kernel and the init process have printed.
static CONSOLE: LazyLock<String> = LazyLock::new(|| unwrap(secure_boot::boot()));

/// Fails unless a line of the console contains `text`.
fn assert_printed(text: &str) {
    assert!(CONSOLE.lines().any(|line| line.contains(text)), "{text:?} is not in the console:\n{}", *CONSOLE);
}

#[test]
fn secure_boot_accepts_the_signed_kernel_and_locks_it_down() {
    assert_printed("secureboot: Secure boot enabled");
    assert_printed("Kernel is locked down from EFI Secure Boot");
    assert_printed("test: lockdown none [integrity] confidentiality");
    unwrap(kernel_log::check(&CONSOLE));
}

#[test]
fn secure_boot_refuses_the_unsigned_kernel() {
    assert_printed("bad shim signature");
    assert_printed("test: GRUB refuses the unsigned kernel");
}

#[test]
fn secure_boot_accepts_the_signed_module() {
    assert_printed("test: module signed: loaded");
    assert_printed("test: listed xt_traffic");
    assert_printed("test: statistics");
}

#[test]
fn secure_boot_refuses_the_unsigned_module() {
    assert_printed("Lockdown: busybox: unsigned module loading is restricted");
    assert_printed("test: module unsigned: refused: insmod: can't insert '/unsigned.ko': Operation not permitted");
}

#[test]
fn secure_boot_refuses_a_module_that_another_key_has_signed() {
    assert_printed("test: module other: refused: insmod: can't insert '/other.ko': Operation not permitted");
}
