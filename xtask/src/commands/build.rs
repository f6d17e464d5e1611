// SPDX-License-Identifier: GPL-2.0-only
//! `build`, `build-kernel`, `build-module`, `build-iptables` and `build-libxt`. They print the path
//! of the product.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::pins::Notice;
use crate::builds::kernel::{self, Config};
use crate::builds::root::BuildRoot;
use crate::builds::{iptables, libxt, module};
use crate::host;
use crate::images::guest;
use crate::workspace::Workspace;

#[derive(Args, Debug)]
pub struct LibxtOptions {
    /// Make libxt/src/bindings.rs anew from the headers of the patched iptables
    #[arg(long)]
    bindings: bool,
}

pub fn guest(ws: &Workspace, options: &kernel::Options) -> Result<()> {
    let choice = options.choose(ws, Config::Test)?;
    let _lock = host::require(ws)?;
    eprintln!("{}", guest::build(ws, &choice)?.display());
    Ok(())
}

pub fn kernel(ws: &Workspace, options: &kernel::Options) -> Result<()> {
    let choice = options.choose(ws, Config::Test)?;
    let notice = Notice::ask(ws, &choice.series);
    in_root(ws, |root| Ok(kernel::build(ws, root, &choice)?.image()))?;
    notice.print();
    Ok(())
}

pub fn module(ws: &Workspace, options: &kernel::Options) -> Result<()> {
    let choice = options.choose(ws, Config::Test)?;
    in_root(ws, |root| Ok(module::build(ws, root, &kernel::build(ws, root, &choice)?)?.file))
}

pub fn iptables(ws: &Workspace) -> Result<()> {
    in_root(ws, |root| Ok(iptables::build(ws, root)?.installed))
}

pub fn libxt(ws: &Workspace, options: &LibxtOptions) -> Result<()> {
    in_root(ws, |root| {
        let iptables = iptables::build(ws, root)?;
        if options.bindings {
            libxt::write_bindings(ws, root, &iptables)?;
        }
        Ok(libxt::build(ws, root, &iptables)?.file)
    })
}

fn in_root(ws: &Workspace, build: impl FnOnce(&BuildRoot) -> Result<PathBuf>) -> Result<()> {
    let _lock = host::require(ws)?;
    let root = BuildRoot::prepare(ws)?;
    eprintln!("{}", build(&root)?.display());
    Ok(())
}
