// SPDX-License-Identifier: GPL-2.0-only
//! The benchmark's guests, with the other counters.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use vm_harness::artifacts::Artifacts;
use vm_harness::guest::Config;

use super::peers::{self, Peers};
use crate::builds::iptables;
use crate::builds::kernel::{self, Choice};
use crate::builds::root::BuildRoot;
use crate::host;
use crate::images::{guest, guest_root};
use crate::sources::fetch;
use crate::workspace::Workspace;

/// What the benchmark needs in a guest, built.
pub struct BenchEnv {
    /// The measured kernel.
    pub choice: Choice,
    /// The folder with the built `ACCOUNT`, for the measured kernel.
    pub account: PathBuf,
    /// The folder with the programs in eBPF.
    pub ebpf: PathBuf,
    /// The folder with the guest's files.
    folder: PathBuf,
}

impl BenchEnv {
    /// Builds what has changed.
    ///
    /// # Errors
    /// If the configuration is another one, because only this one has both pktgen and eBPF.
    pub fn prepare(ws: &Workspace, choice: Choice) -> Result<Self> {
        ensure!(
            choice.config == kernel::Config::Bench,
            "the kernel configuration {} lacks the packet generator (CONFIG_NET_PKTGEN) or eBPF \
             (CONFIG_BPF_SYSCALL): use --config bench",
            choice.config
        );
        let _lock = host::require(ws)?;
        let root = BuildRoot::prepare(ws)?;
        let kernel = kernel::build(ws, &root, &choice)?;
        let account = peers::account(ws, &root, &kernel, &iptables::build(ws, &root)?)?;
        let ebpf = peers::ebpf(ws, &root)?;
        let folder = guest::build(ws, &choice)?;
        Ok(Self { choice, account, ebpf, folder })
    }

    /// A guest whose clock counts instructions.
    pub fn config(&self) -> Result<Config> {
        Ok(Config { ports: 0, ..Config::with_virtual_clock(Artifacts::from_dir(&self.folder)?) })
    }

    /// Like [`BenchEnv::config`], with pmacct and with memory for counters in user space. Also
    /// returns the Debian package of ipfm.
    pub fn config_with_programs(&self, ws: &Workspace) -> Result<(Config, PathBuf)> {
        let _lock = host::require(ws)?;
        let peers = Peers::read()?;
        let config = self.config()?;
        let artifacts = config.artifacts.with_base(guest_root::prepare_with(ws, &peers.packages)?);
        Ok((Config { memory_mib: 1024, artifacts, ..config }, fetch::pinned(ws, &peers.ipfm)?))
    }
}
