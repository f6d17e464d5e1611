// SPDX-License-Identifier: GPL-2.0-only
//! `vm-test`: the tests that run in QEMU.
//!
//! Three test programs need three things: `guest` a guest with a debug kernel, `fast` a guest whose
//! kernel is fast enough for millions of packets, `deploy` the Debian VM and the packages. The
//! deployment test keeps one processor busy for minutes, so it runs beside the other two.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Result, anyhow, bail, ensure};
use clap::Args;
use xshell::{Shell, cmd};

use crate::builds::kernel::{self, Choice, Config};
use crate::builds::root::BuildRoot;
use crate::host;
use crate::images::{debian_disk, guest};
use crate::packages::PackageBuilder;
use crate::process;
use crate::workspace::Workspace;

#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Only tests whose name contains this
    filter: Option<String>,
    #[command(flatten)]
    kernel: kernel::Options,
    /// The configuration of the kernel package that the deployment test installs [default: vm]
    #[arg(long, value_name = "CONFIG", value_enum)]
    packages: Option<Config>,
    /// Review changed snapshots afterwards, with cargo-insta
    #[arg(long)]
    review: bool,
    /// More arguments for the test programs, such as --nocapture
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// A program of the package `vm-tests`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Guest,
    Fast,
    Deploy,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Fast => "fast",
            Self::Deploy => "deploy",
        }
    }

    /// The environment variable that names the folder with the images.
    fn variable(self) -> &'static str {
        match self {
            Self::Guest | Self::Fast => "XT_TRAFFIC_GUEST",
            Self::Deploy => "XT_TRAFFIC_DEBIAN_VM",
        }
    }

    /// The kernel configuration that the program needs by default.
    fn config(self) -> Config {
        match self {
            Self::Guest => Config::Debug,
            Self::Fast => Config::Test,
            Self::Deploy => Config::Vm,
        }
    }
}

pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(ws.repo());
    let tests = Tests { ws, sh: &sh, options };
    let mut programs = Vec::new();
    for program in [Program::Guest, Program::Fast, Program::Deploy] {
        if tests.count(program)? > 0 {
            programs.push((program, tests.prepare(program)?));
        }
    }
    if let Some(filter) = options.filter.as_ref().filter(|_| programs.is_empty()) {
        bail!("no VM test matches {filter:?}");
    }
    let (deploy, others): (Vec<_>, Vec<_>) = programs.into_iter().partition(|(program, _)| *program == Program::Deploy);
    thread::scope(|scope| {
        let alone = others.is_empty();
        let deploy = deploy.first().map(|(_, folder)| {
            let command = tests.command(Program::Deploy, folder);
            scope.spawn(move || tests_beside(ws, command, alone))
        });
        // Do not stop at the first failure: the deployment test would go on without a reader.
        let results: Vec<_> = others.iter().map(|(program, folder)| tests.run(*program, folder)).collect();
        let deploy = deploy.map_or(Ok(()), |thread| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("the thread of the deployment test panicked")))
        });
        results.into_iter().chain([deploy]).collect::<Result<()>>()
    })?;
    if options.review {
        let reviewed = process::run_foreground(cmd!(sh, "cargo insta review").into())?;
        ensure!(reviewed.success(), "cargo insta review failed; `cargo install cargo-insta` installs it");
    }
    Ok(())
}

/// Runs the deployment test while others may run. Their output would mix, so its output goes to a
/// log unless it is `alone`.
fn tests_beside(ws: &Workspace, command: Command, alone: bool) -> Result<()> {
    if alone {
        ensure!(process::run_foreground(command)?.success(), "the deployment test failed");
        return Ok(());
    }
    let mut step = ws.step("deploy", "running the deployment test")?;
    step.run(command)?;
    step.finish();
    Ok(())
}

struct Tests<'a> {
    ws: &'a Workspace,
    sh: &'a Shell,
    options: &'a Options,
}

impl Tests<'_> {
    /// The number of tests of a program that match the filter.
    fn count(&self, program: Program) -> Result<usize> {
        let (sh, name, filter) = (self.sh, program.name(), &self.options.filter);
        let list = cmd!(
            sh,
            "cargo test --locked --quiet --package vm-tests --features qemu --test {name} -- --list {filter...}"
        );
        Ok(list.quiet().read()?.lines().filter(|line| line.ends_with(": test")).count())
    }

    /// Builds the images for a program and returns their folder.
    fn prepare(&self, program: Program) -> Result<PathBuf> {
        let choice = self.options.kernel.choose(self.ws, program.config())?;
        let _lock = host::require(self.ws)?;
        match program {
            Program::Guest | Program::Fast => guest::build(self.ws, &choice),
            Program::Deploy => {
                let config = self.options.packages.unwrap_or(program.config());
                debian_vm(self.ws, &choice.with(config))
            }
        }
    }

    fn command(&self, program: Program, folder: &Path) -> Command {
        let (sh, name) = (self.sh, program.name());
        let Options { filter, arguments, review, .. } = self.options;
        let mut command =
            cmd!(sh, "cargo test --locked --quiet --package vm-tests --features qemu --test {name} -- {filter...}")
                .args(arguments)
                .env(program.variable(), folder);
        if !arguments.iter().any(|argument| argument.starts_with("--test-threads")) {
            // Without KVM a guest keeps one processor busy, but it sleeps while it waits for
            // kmemleak.
            let threads = 2 * thread::available_parallelism().map_or(1, usize::from);
            command = command.arg("--test-threads").arg(threads.to_string());
        }
        if *review {
            // Write the differences next to the snapshots, even if CI is set.
            command = command.env("INSTA_UPDATE", "new");
        }
        command.into()
    }

    fn run(&self, program: Program, folder: &Path) -> Result<()> {
        let tested = process::run_foreground(self.command(program, folder))?;
        ensure!(tested.success() || self.options.review, "tests of `{}` failed", program.name());
        Ok(())
    }
}

/// Makes the folder for the deployment test: the packages of this commit and of a later one,
/// Debian's own, and the system disk.
fn debian_vm(ws: &Workspace, choice: &Choice) -> Result<PathBuf> {
    let root = &BuildRoot::prepare(ws)?;
    let folder = |name: &str| ws.target("deploy").join(choice.to_string()).join(name);
    let folders = ["release-1", "release-2", "debian"].map(|name| (name, folder(name)));
    let [(_, first), (_, second), (_, debian)] = &folders;
    PackageBuilder { ws, root, folder: first, test_entries: 0 }.build(choice)?;
    PackageBuilder { ws, root, folder: second, test_entries: 1 }.build(choice)?;
    PackageBuilder { ws, root, folder: debian, test_entries: 0 }.copy_debian_packages()?;
    debian_disk::build(ws, root, &folders.each_ref().map(|(name, folder)| (*name, folder.as_path())))
}
