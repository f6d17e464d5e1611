// SPDX-License-Identifier: GPL-2.0-only
//! Runs virtual machines with mirror ports in QEMU.
//!
//! * [`guest`] runs a guest: a kernel and an initramfs ([`artifacts`]), with an agent as init. It
//!   sends frames to the guest's ports and does not lose one.
//! * [`debian_vm`] runs Debian from a disk image and types commands at its serial terminal.
//! * [`secure_boot`] boots a virtual machine with Secure Boot and reads its console.
//! * [`kernel_log`] checks kernel logs.
//! * [`mirror`] adds mirror devices and reads their statistics.
//! * [`replay`] sends captures to a guest and reads the tables.
//!
//! Both kinds of virtual machine share one QEMU driver (`qemu`). The crate `traffic-model` builds
//! the frames, `vm-tests` holds the tests, and `vm-tests/agent` is the guest's init process.

pub mod accel;
pub mod artifacts;
pub mod command;
pub mod debian_vm;
pub mod guest;
pub mod kernel_log;
pub mod mirror;
mod qemu;
pub mod replay;
pub mod secure_boot;
mod terminal_text;

use std::path::PathBuf;

use anyhow::{Context, Result};

pub use vm_agent::poll::poll;

/// The project's cache folder: `$XDG_CACHE_HOME/xt-traffic` or `~/.cache/xt-traffic`.
///
/// # Errors
/// When neither HOME nor an absolute XDG_CACHE_HOME is set.
pub fn cache_folder() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    Ok(cache.or_else(home).context("neither HOME nor XDG_CACHE_HOME is set")?.join("xt-traffic"))
}
