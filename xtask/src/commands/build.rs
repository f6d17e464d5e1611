// SPDX-License-Identifier: GPL-2.0
//! `build`: everything that a guest is made of.

use anyhow::Result;

use crate::{
    commands::{build_kernel::Options, setup},
    vm_image,
    workshop::Workshop,
};

/// The command.
pub fn run(ws: &Workshop, options: &Options) -> Result<()> {
    let _lock = setup::prepare(ws)?;
    let folder = vm_image::ready(ws, options)?;
    eprintln!("{}", folder.display());
    Ok(())
}
