// SPDX-License-Identifier: GPL-2.0
//! `vm-test`: the tests that run in QEMU.

use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;
use xshell::{Shell, cmd};

use crate::{
    commands::{
        build_kernel::{Config, Options as KernelOptions},
        setup,
    },
    process, vm_image,
    workshop::Workshop,
};

/// Which tests, and how.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Only tests whose name contains this
    pub filter: Option<String>,
    /// The kernel series, of those in pins.toml
    #[arg(long)]
    pub series: Option<String>,
    /// Look at changed snapshots afterwards, with cargo-insta
    #[arg(long)]
    pub review: bool,
    /// More arguments for the test program, such as --nocapture
    #[arg(last = true)]
    pub arguments: Vec<String>,
}

/// The command. Most tests run on a kernel that looks for its own bugs. Those that need a fast one are marked to
/// be ignored: they run on the lean kernel, if any of them is wanted.
pub fn run(ws: &Workshop, options: &Options) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(ws.repo());
    run_on(ws, &sh, options, Config::Debug, None)?;
    let filter = &options.filter;
    let large = cmd!(sh, "cargo test --quiet --package vm-tests --test * -- --ignored --list {filter...}");
    if large.quiet().read()?.contains(": test") {
        run_on(ws, &sh, options, Config::Lean, Some("--ignored"))?;
    }
    Ok(())
}

fn run_on(ws: &Workshop, sh: &Shell, options: &Options, config: Config, which: Option<&str>) -> Result<()> {
    let kernel = KernelOptions { config, series: options.series.clone() };
    let folder = {
        let _lock = setup::prepare(ws)?;
        vm_image::ready(ws, &kernel)?
    };
    // Without KVM a guest keeps one processor busy, but at the end of its test it waits for kmemleak.
    let threads = (2 * std::thread::available_parallelism().map_or(1, usize::from)).to_string();
    let (filter, arguments) = (&options.filter, &options.arguments);
    let mut tests = cmd!(sh, "cargo test --quiet --package vm-tests --test * -- {which...} {filter...} {arguments...}")
        .env("XT_TRAFFIC_VM", &folder);
    if !arguments.iter().any(|argument| argument.starts_with("--test-threads")) {
        tests = tests.arg("--test-threads").arg(threads);
    }
    if options.review {
        // Write what differs beside the snapshots, also where CI is set.
        tests = tests.env("INSTA_UPDATE", "new");
    }
    let tested = process::run_foreground(Command::from(tests))?;
    if options.review {
        let review = process::run_foreground(cmd!(sh, "cargo insta review").into())?;
        if !review.success() {
            bail!("cargo insta review failed; `cargo install cargo-insta` installs it");
        }
    } else if !tested.success() {
        bail!("tests in QEMU failed");
    }
    Ok(())
}
