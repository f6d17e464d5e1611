// SPDX-License-Identifier: GPL-2.0
//! `deb`: Debian packages of everything.

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::{
    buildroot::BuildRoot,
    commands::{build_kernel::Config, setup},
    deb::Bench,
    workshop::Workshop,
};

/// For what kernel.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The kernel's configuration
    #[arg(long, value_enum, default_value_t = Flavour::Vm)]
    config: Flavour,
}

/// The configurations that there are packages of.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Flavour {
    /// Small, for virtual machines
    Vm,
    /// Debian's own, without what a server has no use for
    Server,
}

/// The command.
pub fn run(ws: &Workshop, options: &Options) -> Result<()> {
    let _lock = setup::prepare(ws)?;
    let root = BuildRoot::ready(ws)?;
    let config = match options.config {
        Flavour::Vm => Config::Vm,
        Flavour::Server => Config::Server,
    };
    let folder = ws.target("deb");
    for file in (Bench { ws, root: &root, folder: &folder, steps: 0 }).build(config)? {
        eprintln!("{}", file.display());
    }
    Ok(())
}
