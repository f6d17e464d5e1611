// SPDX-License-Identifier: GPL-2.0-only
//! `ci`: all checks that a change must pass. `.ci/run` calls it.

use anyhow::{Result, ensure};
use clap::Args;
use xshell::{Shell, cmd};

use super::{bench, setup, test};
use crate::{process, workspace::Workspace};

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    consent: setup::Consent,
    /// Only the checks that take seconds: no guest, no build root
    #[arg(long)]
    quick: bool,
}

pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    quick_checks(ws)?;
    if options.quick {
        return Ok(());
    }
    test::run(ws, &test::Options { consent: options.consent.clone() })?;
    // Instruction counts are repeatable, so a packet that costs more is a regression.
    bench::run(ws, &bench::Options::check())
}

fn quick_checks(ws: &Workspace) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(ws.repo());
    let checks = [
        cmd!(sh, "cargo fmt --all --check"),
        // The kernel and the fuzzer build these, not the workspace.
        cmd!(sh, "rustfmt --check --edition 2021 module/xt_traffic_main.rs fuzz/fuzz_targets/accounting.rs"),
        cmd!(sh, "cargo clippy --locked --quiet --workspace --all-targets --features vm-tests/qemu -- -D warnings"),
        cmd!(sh, "cargo doc --locked --quiet --workspace --no-deps --document-private-items")
            .env("RUSTDOCFLAGS", "-D warnings"),
    ];
    for check in checks {
        let name = check.to_string();
        ensure!(process::run_foreground(check.into())?.success(), "failed: {name}");
    }
    Ok(())
}
