// SPDX-License-Identifier: GPL-2.0-only
//! What the virtual machines boot: the guest's kernel and initramfs, and the Debian VM's disk.

pub mod debian_disk;
pub mod guest;
pub mod guest_root;
pub mod initramfs;
