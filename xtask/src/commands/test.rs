// SPDX-License-Identifier: GPL-2.0-only
//! `test`: all tests.

use anyhow::Result;
use clap::Args;
use xshell::{Shell, cmd};

use super::vm_test;
use crate::builds::root::BuildRoot;
use crate::builds::{iptables, libxt};
use crate::host;
use crate::process;
use crate::workspace::Workspace;

#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    #[command(flatten)]
    pub consent: host::Consent,
    /// Run all tests in QEMU on this kernel series only, or on `all` [default: all tests on the
    /// default series, and those of what a kernel can change on the others]
    #[arg(long)]
    pub series: Option<String>,
}

/// Runs the host's tests first: they take seconds.
pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    host::ensure_ready(ws, &options.consent)?;
    let sh = Shell::new()?;
    sh.change_dir(ws.repo());
    process::run_foreground(cmd!(sh, "cargo test --locked --quiet --workspace"))?;
    run_interleavings(ws, &sh)?;
    {
        let _lock = host::require(ws)?;
        let root = BuildRoot::prepare(ws)?;
        libxt::check_bindings(ws, &root, &iptables::build(ws, &root)?)?;
    }
    vm_test::run_all(ws, options.series.as_deref())
}

/// Runs the module's lockless protocols in each order of accesses. The cfg is for all crates, so
/// they have a target folder of their own.
fn run_interleavings(ws: &Workspace, sh: &Shell) -> Result<()> {
    let target = ws.target("loom");
    let tests = cmd!(
        sh,
        "cargo test --locked --quiet --release --package xt-traffic-accounting --lib --target-dir {target} interleavings"
    );
    process::run_foreground(tests.env("RUSTFLAGS", "--cfg loom"))
}
