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

#[derive(Args, Debug)]
pub struct KernelOptions {
    #[command(flatten)]
    kernel: kernel::Options,
    /// Only make the configuration; for `--config server`, compare it with Debian's
    #[arg(long)]
    only_config: bool,
}

pub fn guest(ws: &Workspace, options: &kernel::Options) -> Result<()> {
    let choice = options.choose(ws, Config::Test)?;
    let _lock = host::require(ws)?;
    eprintln!("{}", guest::build(ws, &choice)?.display());
    Ok(())
}

pub fn kernel(ws: &Workspace, options: &KernelOptions) -> Result<()> {
    let choice = options.kernel.choose(ws, Config::Test)?;
    if options.only_config {
        return in_root(ws, |root| kernel::configure(ws, root, &choice));
    }
    let notice = Notice::ask(ws.pins(), &[&choice.series]);
    in_root(ws, |root| Ok(kernel::build(ws, root, &choice)?.image()))?;
    notice.print();
    Ok(())
}

/// Makes the configuration `server` of each series, which fails if it differs from Debian's.
pub fn compare_with_debian(ws: &Workspace) -> Result<()> {
    ws.pins().kernel.all_series().try_for_each(|series| {
        let kernel = kernel::Options::of(series, Some(Config::Server));
        self::kernel(ws, &KernelOptions { kernel, only_config: true })
    })
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
