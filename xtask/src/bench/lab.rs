// SPDX-License-Identifier: GPL-2.0
//! What the benchmark's guests are made of.

use std::path::PathBuf;

use anyhow::Result;
use vm_harness::{artifacts::Artifacts, guest::Config};

use super::peers::{self, Account};
use crate::{
    buildroot::BuildRoot,
    commands::{
        build_iptables,
        build_kernel::{self, Options},
        setup,
    },
    vm_image,
    workshop::Workshop,
};

/// All that there is to measure, built.
pub struct Lab {
    /// Where the guest is: the kernel `vm`, and ours in it.
    folder: PathBuf,
    /// A peer that is not in it.
    pub account: Account,
}

impl Lab {
    /// Builds what has changed.
    pub fn ready(ws: &Workshop) -> Result<Self> {
        let _lock = setup::prepare(ws)?;
        let root = BuildRoot::ready(ws)?;
        let options = Options { config: build_kernel::Config::Vm, series: None };
        let kernel = build_kernel::build(ws, &root, &options)?;
        let iptables = build_iptables::build(ws, &root)?;
        let account = peers::account(ws, &root, &kernel, &iptables)?;
        Ok(Self { folder: vm_image::ready(ws, &options)?, account })
    }

    /// A guest whose clock counts instructions.
    pub fn config(&self) -> Result<Config> {
        Ok(config(Artifacts::from_dir(&self.folder)?))
    }

    /// The same with room for Debian's programs that count, and those programs.
    pub fn with_programs(&self, ws: &Workshop) -> Result<Programs> {
        let _lock = setup::prepare(ws)?;
        let config = Config { memory_mib: 1024, ..config(peers::guest(ws, &self.folder)?) };
        Ok(Programs { config, ipfm: peers::ipfm(ws)? })
    }
}

/// A guest with programs that count.
pub struct Programs {
    /// The guest, which has pmacct.
    pub config: Config,
    /// The package of another one.
    pub ipfm: PathBuf,
}

fn config(artifacts: Artifacts) -> Config {
    Config { ports: 0, ..Config::with_virtual_clock(artifacts) }
}
