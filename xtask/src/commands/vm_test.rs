// SPDX-License-Identifier: GPL-2.0-only
//! `vm-test`: the tests that run in QEMU.
//!
//! Three test programs need three things: `guest` a guest with a debug kernel, `fast` a guest whose
//! kernel is fast enough for millions of packets, `deploy` the Debian VM and the packages. The
//! deployment test keeps one processor busy for minutes, so it runs beside the other two.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail};
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

impl Options {
    /// The tests of one kernel whose names contain one of these texts.
    pub fn of(series: &str, config: Config, names: &[&str]) -> Self {
        let mut names = names.iter().map(|name| (*name).to_owned());
        let kernel = kernel::Options::of(series, config);
        Self { filter: names.next(), arguments: names.collect(), kernel, packages: None, review: false }
    }
}

/// A program of the package `vm-tests`.
struct Program {
    name: &'static str,
    /// The environment variable that names the folder with the images.
    variable: &'static str,
    /// The kernel configuration that the program needs by default.
    config: Config,
    /// The nice value. The deployment test takes longest, so it gets a processor first.
    nice: &'static str,
}

const GUESTS: [Program; 2] = [
    Program { name: "guest", variable: "XT_TRAFFIC_GUEST", config: Config::Debug, nice: "5" },
    Program { name: "fast", variable: "XT_TRAFFIC_GUEST", config: Config::Test, nice: "5" },
];
const DEPLOY: Program = Program { name: "deploy", variable: "XT_TRAFFIC_DEBIAN_VM", config: Config::Vm, nice: "0" };

pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(ws.repo());
    if options.review {
        cmd!(sh, "cargo insta --version").quiet().read().context("`cargo install cargo-insta` installs it")?;
    }
    let tests = Tests { ws, sh: &sh, options };
    let mut guests = Vec::new();
    for program in &GUESTS {
        guests.extend(tests.prepare(program, |choice| guest::build(ws, choice))?);
    }
    let config = options.packages.unwrap_or(DEPLOY.config);
    let deploy = tests.prepare(&DEPLOY, |choice| debian_vm(ws, &choice.with(config)))?;
    let alone = guests.is_empty();
    if let Some(filter) = options.filter.as_ref().filter(|_| alone && deploy.is_none()) {
        bail!("no VM test matches {filter:?}");
    }
    let result = thread::scope(|scope| {
        let deploy = deploy.map(|command| scope.spawn(move || tests_beside(ws, command, alone)));
        // Do not stop at the first failure: the deployment test would go on without a reader.
        let results: Vec<_> = guests.into_iter().map(process::run_foreground).collect();
        let deploy = deploy.map_or(Ok(()), |thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        results.into_iter().chain([deploy]).collect::<Result<()>>()
    });
    if options.review {
        process::run_foreground(cmd!(sh, "cargo insta review"))?;
    }
    result
}

/// Runs the deployment test while others may run. Their output would mix, so its output goes to a
/// log unless it is `alone`.
fn tests_beside(ws: &Workspace, command: Command, alone: bool) -> Result<()> {
    if alone {
        return process::run_foreground(command);
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
    /// The command for the tests of a program that match the filter, if there are any. `build`
    /// builds the images and returns their folder.
    fn prepare(&self, program: &Program, build: impl Fn(&Choice) -> Result<PathBuf>) -> Result<Option<Command>> {
        let (sh, name, filter) = (self.sh, program.name, &self.options.filter);
        let list = cmd!(
            sh,
            "cargo test --locked --quiet --package vm-tests --features qemu --test {name} -- --list {filter...}"
        );
        if !list.quiet().read()?.lines().any(|line| line.ends_with(": test")) {
            return Ok(None);
        }
        let choice = self.options.kernel.choose(self.ws, program.config)?;
        let _lock = host::require(self.ws)?;
        Ok(Some(self.command(program, &build(&choice)?)))
    }

    fn command(&self, program: &Program, folder: &Path) -> Command {
        let Program { name, nice, variable, .. } = program;
        let Options { filter, arguments, review, .. } = self.options;
        let mut command = cmd!(
            self.sh,
            "nice -n {nice} cargo test --locked --quiet --package vm-tests --features qemu --test {name} -- {filter...}"
        )
        .args(arguments)
        .env(variable, folder);
        if !arguments.iter().any(|argument| argument.starts_with("--test-threads")) {
            // Without KVM a guest keeps one processor busy, but it sleeps while it waits for
            // kmemleak.
            let threads = 2 * thread::available_parallelism().map_or(1, usize::from);
            command = command.arg("--test-threads").arg(threads.to_string());
        }
        if *review {
            // Write the differences next to the snapshots, even if CI is set. A test continues
            // after a difference, so that it writes those of its other snapshots too
            // (https://docs.rs/insta/latest/insta/#settings).
            command = command.env("INSTA_UPDATE", "new").env("INSTA_FORCE_PASS", "1");
        }
        command.into()
    }
}

/// Makes the folder for the deployment test: the packages of this commit and of a later one,
/// Debian's own, a newer iptables of Debian, and the system disk.
fn debian_vm(ws: &Workspace, choice: &Choice) -> Result<PathBuf> {
    let (build_root, package_root) = (&BuildRoot::prepare(ws)?, &BuildRoot::prepare_for_packages(ws)?);
    let folder = |name: &str| ws.target("deploy").join(choice.to_string()).join(name);
    let folders = ["release-1", "release-2", "debian", "security"].map(|name| (name, folder(name)));
    let [(_, first), (_, second), (_, debian), (_, security)] = &folders;
    let builder = |folder, test_entries| PackageBuilder { ws, build_root, package_root, folder, test_entries };
    builder(first, 0).build(choice)?;
    builder(second, 1).build(choice)?;
    builder(debian, 0).copy_debian_packages()?;
    builder(security, 0).raise_debian_packages()?;
    debian_disk::build(ws, package_root, &folders.each_ref().map(|(name, folder)| (*name, folder.as_path())))
}
