// SPDX-License-Identifier: GPL-2.0-only
//! What the benchmark's guests are made of.

use std::path::PathBuf;

use anyhow::Result;
use vm_tests::{artifacts::Artifacts, guest::Config};

use super::peers::{self, Account};
use crate::{
    builds::{
        iptables,
        kernel::{self, Choice},
        root::BuildRoot,
    },
    commands::setup,
    images::guest,
    workspace::Workspace,
};

/// All that there is to measure, built.
pub struct BenchEnv {
    /// The kernel that is measured.
    pub choice: Choice,
    /// Where the guest is: the kernel `vm`, and ours in it.
    folder: PathBuf,
    /// A peer that is not in it.
    pub account: Account,
}

impl BenchEnv {
    /// Builds what has changed.
    pub fn prepare(ws: &Workspace, choice: Choice) -> Result<Self> {
        let _lock = setup::require(ws)?;
        let root = BuildRoot::prepare(ws)?;
        let kernel = kernel::build(ws, &root, &choice)?;
        let iptables = iptables::build(ws, &root)?;
        let account = peers::account(ws, &root, &kernel, &iptables)?;
        let folder = guest::build(ws, &choice)?;
        Ok(Self { choice, folder, account })
    }

    /// A guest whose clock counts instructions.
    pub fn config(&self) -> Result<Config> {
        Ok(config(Artifacts::from_dir(&self.folder)?))
    }

    /// The same with room for Debian's programs that count, and those programs.
    pub fn with_programs(&self, ws: &Workspace) -> Result<Programs> {
        let _lock = setup::require(ws)?;
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
