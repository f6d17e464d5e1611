// SPDX-License-Identifier: GPL-2.0
//! `vm-test`: the tests that run in QEMU.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail, ensure};
use clap::Args;
use xshell::{Shell, cmd};

use crate::{
    box_image,
    buildroot::BuildRoot,
    commands::{
        build_kernel::{Config, Options as KernelOptions},
        deb::Flavour,
        setup,
    },
    deb::Bench,
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
    /// The kernel's configuration of the packages that are deployed
    #[arg(long, value_name = "CONFIG", value_enum, default_value_t)]
    pub packages: Flavour,
    /// Look at changed snapshots afterwards, with cargo-insta
    #[arg(long)]
    pub review: bool,
    /// More arguments for the test program, such as --nocapture
    #[arg(last = true)]
    pub arguments: Vec<String>,
}

/// The test targets of the package vm-tests: in guests with a debug kernel, in guests with a fast kernel, in the
/// Debian VM.
const GUEST: &str = "guest";
const FAST: &str = "fast";
const DEPLOY: &str = "deploy";

/// Runs the tests that match the filter. Builds only the images that they need.
pub fn run(ws: &Workshop, options: &Options) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(ws.repo());
    let tests = Tests { ws, sh: &sh, options };
    let (guest, fast, deploy) = (tests.count(GUEST)?, tests.count(FAST)?, tests.count(DEPLOY)?);
    let filter = options.filter.as_deref().unwrap_or_default();
    ensure!(guest + fast + deploy > 0, "no VM test matches \"{filter}\"");
    if guest > 0 {
        tests.run_in_guests(GUEST, Config::Debug)?;
    }
    if fast > 0 {
        tests.run_in_guests(FAST, Config::Vm)?;
    }
    if deploy > 0 {
        tests.run_in_debian_vm()?;
    }
    Ok(())
}

struct Tests<'a> {
    ws: &'a Workshop,
    sh: &'a Shell,
    options: &'a Options,
}

impl Tests<'_> {
    /// The number of tests in a target that match the filter.
    fn count(&self, target: &str) -> Result<usize> {
        let (sh, filter) = (self.sh, &self.options.filter);
        let list =
            cmd!(sh, "cargo test --quiet --package vm-tests --features qemu --test {target} -- --list {filter...}");
        Ok(list.quiet().read()?.lines().filter(|line| line.ends_with(": test")).count())
    }

    fn run_in_guests(&self, target: &str, config: Config) -> Result<()> {
        let kernel = KernelOptions { config, series: self.options.series.clone() };
        let folder = {
            let _lock = setup::prepare(self.ws)?;
            vm_image::ready(self.ws, &kernel)?
        };
        // Without KVM a guest keeps one processor busy, but at the end of its test it waits for kmemleak.
        let threads = 2 * std::thread::available_parallelism().map_or(1, usize::from);
        self.run(target, "XT_TRAFFIC_GUEST", &folder, threads)
    }

    fn run_in_debian_vm(&self) -> Result<()> {
        let folder = {
            let _lock = setup::prepare(self.ws)?;
            delivery(self.ws, self.options.packages.into())?
        };
        self.run(DEPLOY, "XT_TRAFFIC_DEBIAN_VM", &folder, 1)
    }

    fn run(&self, target: &str, variable: &str, folder: &Path, threads: usize) -> Result<()> {
        let sh = self.sh;
        let Options { filter, arguments, review, .. } = self.options;
        let test = cmd!(sh, "cargo test --quiet --package vm-tests --features qemu --test {target} -- {filter...}");
        let mut test = test.args(arguments).env(variable, folder);
        if !arguments.iter().any(|argument| argument.starts_with("--test-threads")) {
            test = test.arg("--test-threads").arg(threads.to_string());
        }
        if *review {
            // Write what differs beside the snapshots, also where CI is set.
            test = test.env("INSTA_UPDATE", "new");
        }
        let tested = process::run_foreground(Command::from(test))?;
        if *review {
            let reviewed = process::run_foreground(cmd!(sh, "cargo insta review").into())?;
            if !reviewed.success() {
                bail!("cargo insta review failed; `cargo install cargo-insta` installs it");
            }
        } else if !tested.success() {
            bail!("tests in QEMU failed");
        }
        Ok(())
    }
}

/// What the deployment test takes: the packages of this commit and of the next, Debian's own, and the disk.
fn delivery(ws: &Workshop, config: Config) -> Result<PathBuf> {
    let root = &BuildRoot::ready(ws)?;
    let folder = |name: &str| ws.target("deploy").join(config.to_string()).join(name);
    let folders = ["release-1", "release-2", "debian"].map(|name| (name, folder(name)));
    let [(_, first), (_, second), (_, debian)] = &folders;
    Bench { ws, root, folder: first, steps: 0 }.build(config)?;
    Bench { ws, root, folder: second, steps: 1 }.build(config)?;
    Bench { ws, root, folder: debian, steps: 0 }.take_debian()?;
    box_image::folder(ws, root, &folders.each_ref().map(|(name, folder)| (*name, folder.as_path())))
}
