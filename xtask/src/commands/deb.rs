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
    #[arg(long, value_enum, default_value_t)]
    config: Flavour,
}

/// The configurations that there are packages of.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Flavour {
    /// Small, for virtual machines
    #[default]
    Vm,
    /// Debian's own, without what a server has no use for
    Server,
}

impl From<Flavour> for Config {
    fn from(flavour: Flavour) -> Self {
        match flavour {
            Flavour::Vm => Self::Vm,
            Flavour::Server => Self::Server,
        }
    }
}

/// The command.
pub fn run(ws: &Workshop, options: &Options) -> Result<()> {
    let _lock = setup::prepare(ws)?;
    let root = BuildRoot::ready(ws)?;
    let folder = ws.target("deb");
    for file in (Bench { ws, root: &root, folder: &folder, steps: 0 }).build(options.config.into())? {
        eprintln!("{}", file.display());
    }
    Ok(())
}
