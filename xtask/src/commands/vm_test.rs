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

/// The programs that hold the tests.
const ON_GUESTS: &str = "vm";
const ON_A_BOX: &str = "deploy";
/// What has them run the tests that are marked.
const IGNORED: &str = "--ignored";

/// The command. Most tests run on a kernel that looks for its own bugs. Those that need more are marked to be ignored:
/// a fast kernel, or Debian on a disk, which are made if any of them is wanted.
pub fn run(ws: &Workshop, options: &Options) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(ws.repo());
    let tests = Tests { ws, sh: &sh, options };
    let (all, fast, on_a_box) =
        (tests.count(ON_GUESTS, None)?, tests.count(ON_GUESTS, Some(IGNORED))?, tests.count(ON_A_BOX, Some(IGNORED))?);
    ensure!(all + on_a_box > 0, "no test in QEMU has that in its name");
    if all > fast {
        tests.run_on_guests(Config::Debug, None)?;
    }
    if fast > 0 {
        tests.run_on_guests(Config::Vm, Some(IGNORED))?;
    }
    if on_a_box > 0 {
        tests.run_on_a_box()?;
    }
    Ok(())
}

struct Tests<'a> {
    ws: &'a Workshop,
    sh: &'a Shell,
    options: &'a Options,
}

impl Tests<'_> {
    /// How many tests of a program the filter leaves: all of them, or those that are marked.
    fn count(&self, program: &str, which: Option<&str>) -> Result<usize> {
        let (sh, filter) = (self.sh, &self.options.filter);
        let list = cmd!(sh, "cargo test --quiet --package vm-tests --test {program} -- {which...} --list {filter...}");
        Ok(list.quiet().read()?.lines().filter(|line| line.ends_with(": test")).count())
    }

    fn run_on_guests(&self, config: Config, which: Option<&str>) -> Result<()> {
        let kernel = KernelOptions { config, series: self.options.series.clone() };
        let folder = {
            let _lock = setup::prepare(self.ws)?;
            vm_image::ready(self.ws, &kernel)?
        };
        // Without KVM a guest keeps one processor busy, but at the end of its test it waits for kmemleak.
        let threads = 2 * std::thread::available_parallelism().map_or(1, usize::from);
        self.run(ON_GUESTS, which, "XT_TRAFFIC_VM", &folder, threads)
    }

    fn run_on_a_box(&self) -> Result<()> {
        let folder = {
            let _lock = setup::prepare(self.ws)?;
            delivery(self.ws, self.options.packages.into())?
        };
        self.run(ON_A_BOX, Some(IGNORED), "XT_TRAFFIC_BOX", &folder, 1)
    }

    fn run(&self, program: &str, which: Option<&str>, variable: &str, folder: &Path, threads: usize) -> Result<()> {
        let sh = self.sh;
        let Options { filter, arguments, review, .. } = self.options;
        let test = cmd!(sh, "cargo test --quiet --package vm-tests --test {program} -- {which...} {filter...}");
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
