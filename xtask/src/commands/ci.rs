// SPDX-License-Identifier: GPL-2.0-only
//! `ci`: all checks that a change must pass. `.ci/run` calls it.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use fs_err as fs;
use xshell::{Shell, cmd};

use super::{bench, build, patches, test};
use crate::builds::root::BuildRoot;
use crate::host;
use crate::process::run_foreground;
use crate::workspace::Workspace;

/// The folders with shell programs, relative to the repository.
const SHELL: &str = "xtask/deb xtask/src vm-tests/captures .ci";

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    consent: host::Consent,
    /// Only the checks of the host's cargo: seconds, no guest, no build root
    #[arg(long)]
    quick: bool,
    /// Run all tests in QEMU and `bench --check` on this kernel series only, or on `all` [default:
    /// on the default series, and the tests of what a kernel can change on the others]
    #[arg(long, conflicts_with = "quick")]
    series: Option<String>,
}

pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(ws.repo());
    host_checks(&sh)?;
    if options.quick {
        return Ok(());
    }
    host::ensure_ready(ws, &options.consent)?;
    package_root_checks(ws, &sh)?;
    build::compare_with_debian(ws)?;
    patches::check_all(ws)?;
    test::run(ws, &test::Options { consent: options.consent.clone(), series: options.series.clone() })?;
    // Instruction counts are repeatable, so a packet that costs more is a regression.
    bench::run(ws, &bench::Options::check(options.series.as_ref()))
}

fn host_checks(sh: &Shell) -> Result<()> {
    run_foreground(cmd!(sh, "cargo fmt --all --check"))?;
    // The kernel and the fuzzer build these, not the workspace.
    run_foreground(cmd!(
        sh,
        "rustfmt --check --edition 2021 module/xt_traffic_main.rs fuzz/fuzz_targets/accounting.rs"
    ))?;
    run_foreground(cmd!(
        sh,
        "cargo clippy --locked --quiet --workspace --all-targets --features vm-tests/qemu -- -D warnings"
    ))?;
    run_foreground(
        cmd!(sh, "cargo doc --locked --quiet --workspace --no-deps --document-private-items")
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    if cmd!(sh, "cargo deny --version").quiet().ignore_stderr().ignore_stdout().run().is_err() {
        eprintln!("skipped: cargo deny is not installed (`cargo install --locked cargo-deny`)");
        return Ok(());
    }
    run_foreground(cmd!(sh, "cargo deny --locked check bans licenses sources"))?;
    if run_foreground(cmd!(sh, "cargo deny --locked fetch db")).is_err() {
        eprintln!("skipped: the advisory database cannot be downloaded");
        return Ok(());
    }
    run_foreground(cmd!(sh, "cargo deny --locked check advisories"))
}

/// Checks with the programs of the package root: shellcheck, apt, and the oldest Rust that
/// Cargo.toml allows.
fn package_root_checks(ws: &Workspace, sh: &Shell) -> Result<()> {
    let _lock = host::require(ws)?;
    let root = BuildRoot::prepare_for_packages(ws)?;
    let repo = root.sandbox().bind_ro(ws.repo(), "repo");
    let mut step = ws.step("shellcheck", "checking shell programs")?;
    let script =
        format!("grep -rlE '^#!/bin/(ba)?sh|^#!/usr/bin/env bash|^# shellcheck shell=' {SHELL} | xargs shellcheck -x");
    step.run(repo.command("repo", &["sh", "-c", &script]))?;
    step.finish();

    // These sign repositories and read them with apt.
    run_foreground(cmd!(sh, "cargo test --locked --quiet --package xtask -- --ignored"))?;

    run_foreground(cmd!(sh, "cargo fetch --locked --quiet"))?;
    run_foreground(cmd!(sh, "cargo fetch --locked --quiet --manifest-path fuzz/Cargo.toml"))?;
    let objects = ws.target("oldest-rust");
    fs::create_dir_all(&objects)?;
    let sandbox = repo.bind_ro(&cargo_home()?.join("registry"), "src").bind_rw(&objects, "build");
    let mut step = ws.step("oldest-rust", "checking with the oldest supported Rust")?;
    for arguments in [&["Cargo.toml", "--features=vm-tests/qemu"][..], &["fuzz/Cargo.toml"]] {
        let script = "mkdir -p /tmp/cargo && ln -s /src /tmp/cargo/registry && \
                      CARGO_HOME=/tmp/cargo CARGO_TARGET_DIR=/build \
                      exec cargo check --locked --offline --all-targets --manifest-path \"$@\"";
        step.run(sandbox.command("repo", &[&["sh", "-c", script, "-"], arguments].concat()))?;
    }
    step.finish();
    Ok(())
}

fn cargo_home() -> Result<PathBuf> {
    let default = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(default).context("neither CARGO_HOME nor HOME is set")
}
