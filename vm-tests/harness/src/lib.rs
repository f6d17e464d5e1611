// SPDX-License-Identifier: GPL-2.0-only
//! Runs virtual machines with mirror ports in QEMU.
//!
//! * [`guest`] runs a guest: a kernel and an initramfs ([`artifacts`]), with an agent as init. It
//!   sends frames to the guest's ports and does not lose one.
//! * [`debian_vm`] runs Debian from a disk image and types commands at its serial terminal.
//! * [`kernel_log`] checks kernel logs.
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
mod qemu;
pub mod replay;
mod terminal_text;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use vm_agent::poll::poll;

/// The project's cache folder: `$XDG_CACHE_HOME/xt-traffic` or `~/.cache/xt-traffic`.
///
/// # Errors
/// When neither HOME nor an absolute XDG_CACHE_HOME is set.
pub fn cache_folder() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|path| Path::new(path).is_absolute()) {
        Some(cache) => PathBuf::from(cache),
        None => {
            PathBuf::from(std::env::var_os("HOME").context("neither HOME nor XDG_CACHE_HOME is set")?).join(".cache")
        }
    };
    Ok(base.join("xt-traffic"))
}
