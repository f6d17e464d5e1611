// SPDX-License-Identifier: GPL-2.0-only
//! Builds the patched kernel in one configuration, with what out-of-tree modules need.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use fs_err as fs;
use git2::Oid;

use crate::builds::kconfig::{self, Settings};
use crate::builds::root::BuildRoot;
use crate::builds::sandbox::{Sandbox, jobs};
use crate::sources::fetch;
use crate::sources::pins::Download;
use crate::sources::tree::Tree;
use crate::stamp::{Recipe, Stamp, write_atomically};
use crate::ui::Step;
use crate::workspace::{Workspace, file_name, remove_tree};

/// Settings that make the build independent of the user, the host and the time. An empty
/// `LOCALVERSION` keeps the kernel's scripts from appending a `+` to the release.
/// <https://docs.kernel.org/kbuild/reproducible-builds.html>
pub const FIXED: [&str; 5] = [
    "KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 2026",
    "KBUILD_BUILD_USER=xt_traffic",
    "KBUILD_BUILD_HOST=build-root",
    "KBUILD_BUILD_VERSION=1",
    "LOCALVERSION=",
];

/// The checkout that [`build`] uses.
const CHECKOUT: &str = "build";

/// The folder of the configurations' fragments. `6.12.config` there is for all configurations of
/// the series 6.12. A series need not have such a file.
const FRAGMENTS: &str = "kernel-patches/config";
/// The configuration of Debian's amd64 kernel in the package `linux-config-*`.
const DEBIAN_CONFIG: &str = "./usr/src/linux-config-*/config.amd64_none_amd64.xz";

/// Lines that make prints for a full build, for the progress bar of the first build.
const LINES: u64 = 1700;

/// A kernel configuration, made of fragments in `kernel-patches/config/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Config {
    /// As small as the tests in QEMU allow
    Test,
    /// Like test, with the kernel's run-time checks
    Debug,
    /// Like test, with eBPF, for the benchmark
    Bench,
    /// Deployable: small, for virtual machines
    Vm,
    /// Deployable: Debian's own configuration without what a server does not need
    Server,
}

impl Config {
    /// The fragments, in the order in which they are merged.
    fn fragments(self) -> &'static [&'static str] {
        match self {
            Self::Test => &["base.config", "guest.config", "hardening.config", "test.config"],
            Self::Debug => &["base.config", "guest.config", "debug.config"],
            Self::Bench => &["base.config", "guest.config", "hardening.config", "test.config", "bench.config"],
            Self::Vm => &["base.config", "hardening.config", "vm.config"],
            Self::Server => &["server.config"],
        }
    }

    /// Whether packages are made of it.
    pub fn is_deployable(self) -> bool {
        matches!(self, Self::Vm | Self::Server)
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Test => "test",
            Self::Debug => "debug",
            Self::Bench => "bench",
            Self::Vm => "vm",
            Self::Server => "server",
        })
    }
}

/// `--config` and `--series`, for every command that uses a kernel.
#[derive(Args, Clone, Debug, Default)]
#[group(skip)] // clap allows one group of this name, and commands have their own `Options`.
pub struct Options {
    /// The kernel's configuration [default: vm for packages, debug for most tests, else test]
    #[arg(long, value_enum)]
    config: Option<Config>,
    /// The kernel series, one of those in pins.toml
    #[arg(long)]
    series: Option<String>,
}

impl Options {
    /// Options that name a kernel.
    pub fn of(series: &str, config: Config) -> Self {
        Self { config: Some(config), series: Some(series.to_owned()) }
    }

    /// The kernel that the options name; `default` is the configuration when they name none.
    ///
    /// # Errors
    /// When pins.toml does not have the series.
    pub fn choose(&self, ws: &Workspace, default: Config) -> Result<Choice> {
        let series = self.series.as_ref().unwrap_or(&ws.pins().kernel.default);
        ws.pins().kernel_source(series)?;
        Ok(Choice { series: series.clone(), config: self.config.unwrap_or(default) })
    }
}

/// One kernel: a series in a configuration.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Its key in pins.toml, such as `6.12`.
    pub series: String,
    /// Its configuration.
    pub config: Config,
}

impl Choice {
    /// The same series in another configuration.
    pub fn with(&self, config: Config) -> Self {
        Self { config, ..self.clone() }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.series, self.config)
    }
}

/// A built kernel.
pub struct Kernel {
    /// Its checked-out source.
    pub source: PathBuf,
    /// The folder of its objects, with the `bzImage`.
    pub objects: PathBuf,
    /// The hash of its inputs.
    pub stamp: Stamp,
    /// The series and the configuration.
    pub choice: Choice,
}

impl Kernel {
    /// The bootable image.
    pub fn image(&self) -> PathBuf {
        self.objects.join("arch/x86/boot/bzImage")
    }

    /// The kernel's release, as `uname -r` prints it.
    pub fn release(&self) -> Result<String> {
        let text = fs::read_to_string(self.objects.join("include/config/kernel.release"))?;
        Ok(text.trim().to_owned())
    }
}

/// Prepares the patched source for [`build`]. This does not need the build root.
pub fn checkout(ws: &Workspace, choice: &Choice) -> Result<()> {
    let tree = Tree::kernel(ws, &choice.series)?;
    tree.checkout(ws, CHECKOUT, tree.tip()?).map(drop)
}

/// Builds the kernel if its inputs have changed.
pub fn build(ws: &Workspace, root: &BuildRoot, choice: &Choice) -> Result<Kernel> {
    let tree = Tree::kernel(ws, &choice.series)?;
    let tip = tree.tip()?;
    build_at(ws, root, &tree, tip, choice, CHECKOUT)
}

/// Builds the kernel of one commit. Each checkout has objects of its own.
pub fn build_at(
    ws: &Workspace,
    root: &BuildRoot,
    tree: &Tree,
    commit: Oid,
    choice: &Choice,
    checkout: &str,
) -> Result<Kernel> {
    let folder = ws.repo().join(FRAGMENTS);
    let mut fragments: Vec<_> = choice.config.fragments().iter().map(|name| folder.join(name)).collect();
    fragments.extend(Some(folder.join(format!("{}.config", choice.series))).filter(|file| file.exists()));
    let name = format!("kernel-{choice}");
    let objects = ws.cache().join(checkout).join(&name);
    let debian = match choice.config {
        Config::Server => Some(ws.pins().debian_config(&choice.series)?),
        Config::Test | Config::Debug | Config::Bench | Config::Vm => None,
    };
    let mut recipe = Recipe::new("kernel 2")
        .text("root", root.stamp().as_str())
        .text("commit", &commit.to_string())
        .list("fixed", &FIXED);
    for fragment in &fragments {
        recipe = recipe.file(fragment)?;
    }
    if let Some(debian) = debian {
        recipe = recipe.text("debian", &debian.sha256);
    }
    let stamp = recipe.stamp();
    let stamp_file = ws.cache().join(checkout).join(format!("{name}.stamp"));
    let source = tree.checkout(ws, checkout, commit)?;
    let kernel = Kernel { source, objects, stamp, choice: choice.clone() };
    let build = Build { ws, root, tree, commit, debian, fragments, name: &name, objects: &kernel.objects };
    kernel.stamp.make(&stamp_file, &kernel.image(), || build.make(&kernel.source))?;
    Ok(kernel)
}

struct Build<'a> {
    ws: &'a Workspace,
    root: &'a BuildRoot,
    tree: &'a Tree,
    commit: Oid,
    /// Debian's configuration package if the build starts from it instead of `tinyconfig`.
    debian: Option<&'a Download>,
    fragments: Vec<PathBuf>,
    name: &'a str,
    objects: &'a Path,
}

impl Build<'_> {
    fn make(&self, source: &Path) -> Result<()> {
        self.remove_objects_of_other_roots()?;
        let mut step = self.ws.step(self.name, format!("building {}", self.name))?;
        let sandbox = self.root.sandbox().bind_ro(source, "src").bind_rw(self.objects, "build");
        let sandbox = sandbox.bind_ro(self.ws.repo(), "repo");
        self.configure(&mut step, &sandbox)?;

        let count_file = self.objects.join(".lines");
        let lines = fs::read_to_string(&count_file).ok();
        let lines = lines.and_then(|text| text.trim().parse().ok());
        step.set_total(lines.unwrap_or(LINES));
        let fresh = !self.objects.join("vmlinux").exists();
        let jobs = jobs();
        let mut words = vec!["make", "-C", "/src", "O=/build", &jobs];
        words.extend(FIXED);
        words.extend(["bzImage", "modules"]);
        // Kbuild prints two blanks and the kind of the step in capitals, such as "  CC".
        let is_step = |line: &str| {
            let kind = line.strip_prefix("  ").unwrap_or_default();
            kind.starts_with(|c: char| c.is_ascii_uppercase())
        };
        step.run_counting(sandbox.command("src", &words), is_step)?;
        if fresh {
            write_atomically(&count_file, step.position().to_string().as_bytes())?;
        }
        step.finish();
        Ok(())
    }

    /// make would take the objects of another build root, with other compilers, for up to date.
    fn remove_objects_of_other_roots(&self) -> Result<()> {
        let mark = self.objects.join(".build-root");
        if !self.root.stamp().is_in(&mark) {
            if mark.exists() {
                eprintln!("{}: the build root has changed, so the kernel is compiled from the start", self.name);
            }
            remove_tree(self.objects)?;
            fs::create_dir_all(self.objects)?;
            self.root.stamp().write(&mark)?;
        }
        Ok(())
    }

    /// Makes `.config` if its inputs have changed: make rebuilds much when it is newer.
    fn configure(&self, step: &mut Step, sandbox: &Sandbox) -> Result<()> {
        let mut recipe = Recipe::new("kernel configuration 3").text("base", &self.tree.base().to_string());
        if let Some(debian) = self.debian {
            recipe = recipe.text("debian", &debian.sha256);
        }
        for fragment in &self.fragments {
            recipe = recipe.file(fragment)?;
        }
        for (path, oid) in self.tree.changed(self.commit)? {
            let path = path.to_string_lossy();
            if path.contains("Kconfig") {
                recipe = recipe.text(&path, &oid.to_string());
            }
        }
        let (stamp_file, product) = (self.objects.join(".configured"), self.objects.join(".config"));
        recipe.stamp().make(&stamp_file, &product, || self.make_config(step, sandbox))
    }

    fn make_config(&self, step: &mut Step, sandbox: &Sandbox) -> Result<()> {
        // The metadata of the kernel's crates depends on all options, but make does not know that.
        // The headers package contains it.
        remove_tree(&self.objects.join("rust"))?;
        let make = |target| {
            let mut words = vec!["make", "-C", "/src", "O=/build", kconfig::WARN_UNKNOWN];
            words.extend(FIXED);
            words.push(target);
            sandbox.command("src", &words)
        };
        match self.debian {
            Some(package) => self.take_debian_config(step, package)?,
            None => step.run(make("tinyconfig"))?,
        }
        let merge = ["/src/scripts/kconfig/merge_config.sh", "-m", "-O", "/build", "/build/.config"];
        let fragments: Vec<_> =
            self.fragments.iter().map(|file| format!("/repo/{FRAGMENTS}/{}", file_name(file))).collect();
        let words: Vec<_> = merge.into_iter().chain(fragments.iter().map(String::as_str)).collect();
        step.run(sandbox.command("build", &words))?;
        let merged = Settings::read(&[self.objects.join(".config")])?;
        let mut unknown = Vec::new();
        step.run_watching(make("olddefconfig"), |line| unknown.extend(kconfig::unknown(line)))?;
        merged.require_known(&unknown)?;
        Settings::read(&self.fragments)?.require_in(&self.objects.join(".config"))
    }

    /// Writes the configuration in Debian's binary package to `.config`.
    fn take_debian_config(&self, step: &mut Step, package: &Download) -> Result<()> {
        let file = fetch::pinned(self.ws, package)?;
        let downloads = file.parent().context("the download has no parent folder")?;
        let sandbox = self.root.sandbox().bind_ro(downloads, "src").bind_rw(self.objects, "build");
        let script = "dpkg-deb --fsys-tarfile \"$1\" | tar --extract --to-stdout --wildcards \"$2\" | xz -dc >.config";
        let package = format!("/src/{}", file_name(&file));
        step.run(sandbox.command("build", &["bash", "-euo", "pipefail", "-c", script, "-", &package, DEBIAN_CONFIG]))
    }
}
