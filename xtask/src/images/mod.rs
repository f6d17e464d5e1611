// SPDX-License-Identifier: GPL-2.0-only
//! What the virtual machines boot: the guest's kernel and initramfs, the Debian VM's disk, and the
//! disk and firmware of the test of Secure Boot.

pub mod debian_disk;
pub mod guest;
pub mod guest_root;
pub mod initramfs;
pub mod secure_boot;
