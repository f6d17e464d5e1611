// SPDX-License-Identifier: GPL-2.0-only
//! `build-libxt`

use anyhow::Result;
use clap::Args;

use crate::builds::root::BuildRoot;
use crate::builds::{iptables, libxt};
use crate::host;
use crate::workspace::Workspace;

#[derive(Args, Debug)]
pub struct Options {
    /// Make libxt/src/bindings.rs anew from the headers of the patched iptables
    #[arg(long)]
    bindings: bool,
}

pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    let _lock = host::require(ws)?;
    let root = BuildRoot::prepare(ws)?;
    let iptables = iptables::build(ws, &root)?;
    if options.bindings {
        libxt::write_bindings(ws, &root, &iptables)?;
    }
    let library = libxt::build(ws, &root, &iptables)?;
    eprintln!("{}", library.file.display());
    Ok(())
}
