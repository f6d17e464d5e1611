// SPDX-License-Identifier: GPL-2.0-only
//! `vm-test`: the tests that run in QEMU.
//!
//! Four test programs need four things: `guest` a guest with a debug kernel, `fast` a guest whose
//! kernel is fast enough for millions of packets, `deploy` the Debian VM and the packages,
//! `secure_boot` firmware with Secure Boot and signed packages. The deployment test keeps one
//! processor busy for minutes, so it runs beside the others.
//!
//! Everything is built before the first test runs.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};
use clap::Args;
use xshell::{Shell, cmd};

use crate::builds::kernel::{self, Choice, Config};
use crate::builds::root::BuildRoot;
use crate::host;
use crate::images::{debian_disk, guest, secure_boot};
use crate::packages::repository::Signer;
use crate::packages::{Extras, PackageBuilder};
use crate::process;
use crate::vm_tests::results::{Outcome, Outcomes, Results, parse_line};
use crate::vm_tests::{features, matrix};
use crate::workspace::Workspace;

#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Only tests whose name contains this
    filter: Option<String>,
    #[command(flatten)]
    kernel: kernel::Options,
    /// Only the tests of what a kernel can change, which `test` runs on each series
    #[arg(long)]
    short: bool,
    /// The configuration of the kernel package that the deployment test installs [default: vm]
    #[arg(long, value_name = "CONFIG", value_enum)]
    packages: Option<Config>,
    /// The folder with the packages that the deployment test upgrades, as `deb` has made it, for
    /// instance from an older kernel source [default: packages of this commit]
    #[arg(long, value_name = "FOLDER")]
    upgrade_from: Option<PathBuf>,
    /// Afterwards, write the results of all series to the table of README.md
    #[arg(long)]
    docs: bool,
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
        let kernel = kernel::Options::of(series, Some(config));
        Self { filter: names.next(), arguments: names.collect(), kernel, ..Self::default() }
    }
}

/// The tests that run on a series.
#[derive(Clone, Copy)]
enum Scope {
    All,
    /// Those of what a kernel can change.
    Short,
}

/// A program of the package `vm-tests`.
struct Program {
    name: &'static str,
    /// The environment variable that names the folder with the images.
    variable: &'static str,
    configuration: Configuration,
    /// Builds the images and returns their folder.
    build: fn(&Workspace, &Choice, &Options) -> Result<PathBuf>,
    /// The nice value. The deployment test takes longest, so it gets a processor first.
    nice: &'static str,
}

/// Where the kernel configuration of a program comes from.
#[derive(Clone, Copy)]
enum Configuration {
    /// From `--config`.
    OfKernel { default: Config },
    /// From `--packages`. The default is [`Config::Vm`].
    OfPackages,
    /// It is always [`Config::Vm`]: the program needs packages, and this is the deployable
    /// configuration that builds faster.
    Vm,
}

impl Configuration {
    fn choose(self, options: &Options) -> Config {
        match self {
            Self::OfKernel { default } => options.kernel.config_or(default),
            Self::OfPackages => options.packages.unwrap_or(Config::Vm),
            Self::Vm => Config::Vm,
        }
    }
}

/// [`DEPLOY`] runs beside the others.
static PROGRAMS: [Program; 4] = [
    Program {
        name: "guest",
        variable: "XT_TRAFFIC_GUEST",
        configuration: Configuration::OfKernel { default: Config::Debug },
        build: |ws, choice, _| guest::build(ws, choice),
        nice: "5",
    },
    Program {
        name: "fast",
        variable: "XT_TRAFFIC_GUEST",
        configuration: Configuration::OfKernel { default: Config::Test },
        build: |ws, choice, _| guest::build(ws, choice),
        nice: "5",
    },
    Program {
        name: "secure_boot",
        variable: "XT_TRAFFIC_SECURE_BOOT",
        configuration: Configuration::Vm,
        build: |ws, choice, _| secure_boot::build(ws, choice),
        nice: "5",
    },
    Program {
        name: DEPLOY,
        variable: "XT_TRAFFIC_DEBIAN_VM",
        configuration: Configuration::OfPackages,
        build: debian_vm,
        nice: "0",
    },
];
const DEPLOY: &str = "deploy";

pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    run_in_scopes(ws, options, |_| if options.short { Scope::Short } else { Scope::All })
}

/// Runs all tests on the default series, and those of what a kernel can change on the others. With
/// a `series`, which can be `all`, runs all tests on it.
pub fn run_all(ws: &Workspace, series: Option<&str>) -> Result<()> {
    let kernel = kernel::Options::of(series.unwrap_or(kernel::ALL), None);
    let default = &ws.pins().kernel.default;
    let scope = |of: &str| if series.is_some() || of == default { Scope::All } else { Scope::Short };
    run_in_scopes(ws, &Options { kernel, ..Options::default() }, scope)
}

fn run_in_scopes(ws: &Workspace, options: &Options, scope: impl Fn(&str) -> Scope) -> Result<()> {
    let sh = Shell::new()?;
    sh.change_dir(ws.repo());
    if options.review {
        cmd!(sh, "cargo insta --version").quiet().read().context("`cargo install cargo-insta` installs it")?;
    }
    let tests = Tests { ws, sh: &sh, options };
    let programs = tests.list()?;
    let (mut guests, mut deploys) = (Vec::new(), Vec::new());
    for choice in options.kernel.choose_all(ws, Config::Debug)? {
        let chosen = tests.choose(&programs, scope(&choice.series))?;
        let filter = options.filter.as_deref().unwrap_or_default();
        ensure!(!chosen.is_empty(), "no test in QEMU on Linux {} matches {filter:?}", choice.series);
        let all = programs.iter().map(|(program, tests)| (program.name, &tests[..]));
        Results::of_now(ws, &choice.series)?.begin(ws, &choice.series, all)?;
        for (program, names) in chosen {
            let run = tests.prepare(program, names, &choice, scope(&choice.series))?;
            if program.name == DEPLOY { deploys.push(run) } else { guests.push(run) }
        }
    }
    let alone = guests.is_empty();
    let result = thread::scope(|scope| {
        let deploys = scope.spawn(move || all(deploys, |run| run.beside(ws, alone)));
        let guests = all(guests, |run| run.in_foreground(ws));
        let deploys = deploys.join().unwrap_or_else(|panic| resume_unwind(panic));
        guests.and(deploys)
    });
    if options.review {
        process::run_foreground(cmd!(sh, "cargo insta review"))?;
    }
    result?;
    if options.docs { matrix::write(ws) } else { Ok(()) }
}

/// Runs all, also after one has failed: the deployment test would go on without a reader.
fn all(runs: Vec<Run>, run: impl Fn(Run) -> Result<()>) -> Result<()> {
    let results: Vec<_> = runs.into_iter().map(run).collect();
    results.into_iter().collect()
}

/// A program with tests of it, to run on one series.
struct Run {
    program: &'static str,
    series: String,
    tests: Vec<String>,
    command: Command,
}

impl Run {
    /// Runs the tests at the terminal.
    fn in_foreground(self, ws: &Workspace) -> Result<()> {
        eprintln!("==> {} tests of `{}` on Linux {}", self.tests.len(), self.program, self.series);
        self.run(ws, |command, watch| {
            process::run_output_lines(command, |line| {
                println!("{line}");
                watch(line);
            })
        })
    }

    /// Runs the tests while others may run. Their output would mix, so the output of these goes to
    /// a log unless they are `alone`.
    fn beside(self, ws: &Workspace, alone: bool) -> Result<()> {
        if alone {
            return self.in_foreground(ws);
        }
        let title = format!("running the deployment test on Linux {}", self.series);
        let mut step = ws.step(&format!("deploy-{}", self.series), title)?;
        self.run(ws, |command, watch| step.run_watching(command, watch))?;
        step.finish();
        Ok(())
    }

    /// Runs the tests and stores each result at once: a run can be interrupted. `run` calls its
    /// second argument with each line.
    fn run(self, ws: &Workspace, run: impl FnOnce(Command, &mut dyn FnMut(&str)) -> Result<()>) -> Result<()> {
        let Self { program, series, tests, command } = self;
        let add = |outcomes: Outcomes| Results::add(ws, &series, program, outcomes);
        add(tests.iter().map(|test| (test.clone(), Outcome::NotRun)).collect())?;
        let mut stored = Ok(());
        let result = run(command, &mut |line| {
            if let Some((test, outcome)) = parse_line(line).filter(|(test, _)| tests.iter().any(|name| name == test)) {
                if let Err(error) = add([(test.to_owned(), outcome)].into()) {
                    stored = Err(error);
                }
            }
        });
        result.with_context(|| format!("tests of `{program}` on Linux {series}")).and(stored)
    }
}

struct Tests<'a> {
    ws: &'a Workspace,
    sh: &'a Shell,
    options: &'a Options,
}

/// The tests of a program.
type Listed = (&'static Program, Vec<String>);

impl Tests<'_> {
    /// The tests of each program, each of which must belong to a feature.
    fn list(&self) -> Result<Vec<Listed>> {
        let list = |program: &'static Program| {
            let (sh, name) = (self.sh, program.name);
            let list =
                cmd!(sh, "cargo test --locked --quiet --package vm-tests --features qemu --test {name} -- --list");
            let lines = list.quiet().read()?;
            let names: Vec<_> =
                lines.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect();
            names.iter().try_for_each(|test| features::feature(name, test).map(drop))?;
            Ok((program, names))
        };
        PROGRAMS.iter().map(list).collect()
    }

    /// The programs that have tests to run, with the names of these tests.
    fn choose(&self, programs: &[Listed], scope: Scope) -> Result<Vec<Listed>> {
        let filter = self.options.filter.as_deref().unwrap_or_default();
        let mut chosen = Vec::new();
        for (program, tests) in programs {
            let mut names = Vec::new();
            for test in tests.iter().filter(|test| test.contains(filter)) {
                if matches!(scope, Scope::All) || features::runs_on_each_series(program.name, test)? {
                    names.push(test.clone());
                }
            }
            if !names.is_empty() {
                chosen.push((*program, names));
            }
        }
        Ok(chosen)
    }

    /// Builds the images that a program needs.
    fn prepare(&self, program: &'static Program, tests: Vec<String>, choice: &Choice, scope: Scope) -> Result<Run> {
        let choice = choice.with(program.configuration.choose(self.options));
        let _lock = host::require(self.ws)?;
        let folder = (program.build)(self.ws, &choice, self.options)?;
        let names: Vec<_> = match scope {
            // More filters can be among the arguments.
            Scope::All => self.options.filter.iter().cloned().collect(),
            Scope::Short => ["--exact".to_owned()].into_iter().chain(tests.clone()).collect(),
        };
        let command = self.command(program, &folder, &names);
        Ok(Run { program: program.name, series: choice.series, tests, command })
    }

    fn command(&self, program: &Program, folder: &Path, names: &[String]) -> Command {
        let Program { name, nice, variable, .. } = program;
        let Options { arguments, review, .. } = self.options;
        // `cargo test --quiet` makes the output terse. Only the other format has the names.
        let mut command = cmd!(
            self.sh,
            "nice -n {nice} cargo test --locked --quiet --package vm-tests --features qemu --test {name} -- --format=pretty {names...}"
        )
        .args(arguments)
        .env(variable, folder);
        if let Some(packages) = &self.options.upgrade_from {
            command = command.env("XT_TRAFFIC_UPGRADE_FROM", packages);
        }
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

/// Makes the folder for the deployment test: the packages before and after the upgrade, Debian's
/// own, a newer iptables of Debian, and the system disk.
fn debian_vm(ws: &Workspace, choice: &Choice, options: &Options) -> Result<PathBuf> {
    let (build_root, package_root) = (&BuildRoot::prepare(ws)?, &BuildRoot::prepare_for_packages(ws)?);
    let folder = |name: &str| ws.target("deploy").join(choice.to_string()).join(name);
    let first = folder(options.upgrade_from.as_ref().map_or("release-1", |_| "upgrade-from"));
    let [second, debian, security] = ["release-2", "debian", "security"].map(folder);
    let signer = &Signer::for_tests(&ws.cache().join("gpg"))?;
    let builder = |folder, test_entries| PackageBuilder {
        ws,
        build_root,
        package_root,
        folder,
        test_entries,
        extras: Extras { signer: Some(signer), ..Extras::default() },
    };
    match &options.upgrade_from {
        Some(given) => builder(&first, 0).copy_packages(given)?,
        None => builder(&first, 0).build(choice).map(drop)?,
    }
    // Its versions are higher than those of this commit.
    builder(&second, 1).build(choice)?;
    builder(&debian, 0).copy_debian_packages()?;
    builder(&security, 0).raise_debian_packages()?;
    let folders = [("release-1", &*first), ("release-2", &second), ("debian", &debian), ("security", &security)];
    debian_disk::build(ws, package_root, &choice.to_string(), &folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configurations(options: &Options) -> [(&'static str, Config); 4] {
        PROGRAMS.each_ref().map(|program| (program.name, program.configuration.choose(options)))
    }

    #[test]
    fn the_options_choose_the_configurations_of_the_programs() {
        assert_eq!(
            configurations(&Options::default()),
            [("guest", Config::Debug), ("fast", Config::Test), ("secure_boot", Config::Vm), ("deploy", Config::Vm)]
        );
        let kernel = kernel::Options::of("6.12", Some(Config::Bench));
        assert_eq!(
            configurations(&Options { kernel, packages: Some(Config::Server), ..Options::default() }),
            [
                ("guest", Config::Bench),
                ("fast", Config::Bench),
                ("secure_boot", Config::Vm),
                ("deploy", Config::Server)
            ]
        );
    }
}
