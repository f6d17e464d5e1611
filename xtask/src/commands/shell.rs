// SPDX-License-Identifier: GPL-2.0
//! `shell`: an interactive guest.

use anyhow::Result;

use crate::{commands::build_kernel::Options, vm_image, workshop::Workshop};

/// The command.
pub fn run(ws: &Workshop, options: &Options) -> Result<()> {
    vm_harness::guest::shell(&vm_harness::guest::Config::new(vm_image::artifacts(ws, options)?))
}
