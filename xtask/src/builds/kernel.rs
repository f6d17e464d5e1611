// SPDX-License-Identifier: GPL-2.0-only
//! Builds the patched kernel in one configuration, with what out-of-tree modules need.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::slice;

use anyhow::{Context, Result, ensure};
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

/// Settings that make the build independent of the user, the host and the time.
/// <https://docs.kernel.org/kbuild/reproducible-builds.html>
const FIXED: [&str; 4] = [
    "KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 2026",
    "KBUILD_BUILD_USER=xt_traffic",
    "KBUILD_BUILD_HOST=build-root",
    "KBUILD_BUILD_VERSION=1",
];

/// The checkout that [`build`] uses.
pub const CHECKOUT: &str = "build";

/// The folder of the configurations' fragments.
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

    /// What the names of packages and releases have at their end. A server's have nothing there.
    pub fn suffix(self) -> String {
        match self {
            Self::Server => String::new(),
            other => format!("-{other}"),
        }
    }

    /// What follows the version in the release of a kernel, in addition to the fragment's
    /// `CONFIG_LOCALVERSION`. Packaged kernels have a revision, such as `3`. A setting in the
    /// fragment would make Kbuild configure and compile the kernel again for each revision. An
    /// empty setting keeps the kernel's scripts from appending a `+`.
    fn local_version(self, revision: Option<&str>) -> String {
        match self {
            Self::Test | Self::Debug | Self::Bench => String::new(),
            Self::Vm | Self::Server => {
                let revision = revision.map(|revision| format!(".{revision}")).unwrap_or_default();
                format!("-promisc{revision}{}", self.suffix())
            }
        }
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
    /// The kernel's configuration [default: server for packages, debug for most tests, else test]
    #[arg(long, value_enum)]
    config: Option<Config>,
    /// The kernel series: one of those in pins.toml, or `all` with vm-test and bench
    #[arg(long)]
    series: Option<String>,
}

/// The value of `--series` for all series.
pub const ALL: &str = "all";

impl Options {
    /// Options that name a kernel; `None` for the default configuration of each command.
    pub fn of(series: &str, config: Option<Config>) -> Self {
        Self { config, series: Some(series.to_owned()) }
    }

    /// The kernel that the options name; `default` is the configuration when they name none.
    ///
    /// # Errors
    /// When pins.toml does not have the series, or with `--series all`.
    pub fn choose(&self, ws: &Workspace, default: Config) -> Result<Choice> {
        ensure!(self.series.as_deref() != Some(ALL), "--series all: this command needs one series");
        let all = self.choose_all(ws, default)?;
        all.into_iter().next().context("pins.toml has no kernel series")
    }

    /// The configuration that the options name, or `default`.
    pub fn config_or(&self, default: Config) -> Config {
        self.config.unwrap_or(default)
    }

    /// As [`choose`](Self::choose). With `--series all`, the kernels of all series, that of the
    /// default series first.
    ///
    /// # Errors
    /// When pins.toml does not have the series.
    pub fn choose_all(&self, ws: &Workspace, default: Config) -> Result<Vec<Choice>> {
        let config = self.config_or(default);
        let kernel = &ws.pins().kernel;
        let series: Vec<_> = match self.series.as_deref() {
            Some(ALL) => kernel.all_series().collect(),
            Some(one) => vec![one],
            None => vec![&kernel.default],
        };
        let choice = |series: &str| {
            ws.pins().kernel_source(series)?;
            Ok(Choice { series: series.to_owned(), config })
        };
        series.into_iter().map(choice).collect()
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

    /// The fragments in `folder`, in the order in which they are merged: those of the
    /// configuration, one for all configurations of the series, such as `7.3.config`, and one for
    /// this kernel alone, such as `server-7.3.config`. The last two need not exist.
    fn fragments(&self, folder: &Path) -> Vec<PathBuf> {
        let Self { series, config } = self;
        let optional = [format!("{series}.config"), format!("{config}-{series}.config")];
        let optional = optional.map(|name| folder.join(name)).into_iter().filter(|file| file.exists());
        config.fragments().iter().map(|name| folder.join(name)).chain(optional).collect()
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
    /// Every call of make needs these settings.
    pub settings: Vec<String>,
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
    Build::new(ws, root, &tree, tree.tip()?, choice, CHECKOUT)?.kernel()
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
    Build::new(ws, root, tree, commit, choice, checkout)?.kernel()
}

/// Builds the kernel for a package. Its release has the revision. With a new revision, make
/// compiles a few files and links the kernel again.
///
/// The kernel of a test of upgrades is `next`. Its objects are in a folder of its own, which begins
/// as a copy of the folder without `next`, so the two kernels do not rebuild each other.
pub fn build_for_package(
    ws: &Workspace,
    root: &BuildRoot,
    choice: &Choice,
    revision: &str,
    next: bool,
) -> Result<Kernel> {
    let tree = Tree::kernel(ws, &choice.series)?;
    let mut build = Build::new(ws, root, &tree, tree.tip()?, choice, CHECKOUT)?;
    build.revision = Some(revision);
    if next {
        build.original = Some(build.objects());
        build.name.push_str("-next");
    }
    build.kernel()
}

/// Makes the kernel's `.config` if its inputs have changed, and nothing else. Returns the file.
pub fn configure(ws: &Workspace, root: &BuildRoot, choice: &Choice) -> Result<PathBuf> {
    let tree = Tree::kernel(ws, &choice.series)?;
    let build = Build::new(ws, root, &tree, tree.tip()?, choice, CHECKOUT)?;
    let source = tree.checkout(ws, CHECKOUT, build.commit)?;
    build.prepare_objects()?;
    let mut step = ws.step(&build.name, format!("configuring {}", build.name))?;
    build.configure(&mut step, &source)?;
    step.finish();
    Ok(build.objects().join(".config"))
}

struct Build<'a> {
    ws: &'a Workspace,
    root: &'a BuildRoot,
    tree: &'a Tree,
    commit: Oid,
    choice: &'a Choice,
    checkout: &'a str,
    /// Debian's configuration package if the build starts from it instead of `tinyconfig`.
    debian: Option<&'a Download>,
    fragments: Vec<PathBuf>,
    /// The name of the folder of objects.
    name: String,
    /// The revision in the release of a packaged kernel.
    revision: Option<&'a str>,
    /// Another folder of objects, of which this build makes a copy first.
    original: Option<PathBuf>,
}

impl<'a> Build<'a> {
    fn new(
        ws: &'a Workspace,
        root: &'a BuildRoot,
        tree: &'a Tree,
        commit: Oid,
        choice: &'a Choice,
        checkout: &'a str,
    ) -> Result<Self> {
        let fragments = choice.fragments(&ws.repo().join(FRAGMENTS));
        let debian = match choice.config {
            Config::Server => Some(ws.pins().debian_config(&choice.series)?),
            Config::Test | Config::Debug | Config::Bench | Config::Vm => None,
        };
        let name = format!("kernel-{choice}");
        Ok(Self { ws, root, tree, commit, choice, checkout, debian, fragments, name, revision: None, original: None })
    }

    fn objects(&self) -> PathBuf {
        self.ws.cache().join(self.checkout).join(&self.name)
    }

    /// The settings for every call of make.
    fn settings(&self) -> Vec<String> {
        let local_version = format!("LOCALVERSION={}", self.choice.config.local_version(self.revision));
        FIXED.into_iter().map(str::to_owned).chain([local_version]).collect()
    }

    fn stamp(&self) -> Result<Stamp> {
        let mut recipe = Recipe::new("kernel 2")
            .text("root", self.root.stamp().as_str())
            .text("commit", &self.commit.to_string())
            .list("fixed", &self.settings());
        for fragment in &self.fragments {
            recipe = recipe.file(fragment)?;
        }
        if let Some(debian) = self.debian {
            recipe = recipe.text("debian", &debian.sha256);
        }
        Ok(recipe.stamp())
    }

    fn kernel(&self) -> Result<Kernel> {
        let source = self.tree.checkout(self.ws, self.checkout, self.commit)?;
        let (choice, settings) = (self.choice.clone(), self.settings());
        let kernel = Kernel { source, objects: self.objects(), stamp: self.stamp()?, choice, settings };
        let stamp_file = self.ws.cache().join(self.checkout).join(format!("{}.stamp", self.name));
        kernel.stamp.make(&stamp_file, &kernel.image(), || self.make(&kernel.source))?;
        Ok(kernel)
    }

    fn sandbox(&self, source: &Path) -> Sandbox {
        let sandbox = self.root.sandbox().bind_ro(source, "src").bind_rw(&self.objects(), "build");
        sandbox.bind_ro(self.ws.repo(), "repo")
    }

    fn make(&self, source: &Path) -> Result<()> {
        self.prepare_objects()?;
        let mut step = self.ws.step(&self.name, format!("building {}", self.name))?;
        self.configure(&mut step, source)?;

        let objects = self.objects();
        let count_file = objects.join(".lines");
        let lines = fs::read_to_string(&count_file).ok();
        let lines = lines.and_then(|text| text.trim().parse().ok());
        step.set_total(lines.unwrap_or(LINES));
        let fresh = !objects.join("vmlinux").exists();
        let (jobs, settings) = (jobs(), self.settings());
        let mut words = vec!["make", "-C", "/src", "O=/build", &jobs];
        words.extend(settings.iter().map(String::as_str));
        words.extend(["bzImage", "modules"]);
        // Kbuild prints two blanks and the kind of the step in capitals, such as "  CC".
        let is_step = |line: &str| {
            let kind = line.strip_prefix("  ").unwrap_or_default();
            kind.starts_with(|c: char| c.is_ascii_uppercase())
        };
        step.run_counting(self.sandbox(source).command("src", &words), is_step)?;
        if fresh {
            write_atomically(&count_file, step.position().to_string().as_bytes())?;
        }
        step.finish();
        Ok(())
    }

    /// Makes the folder of objects, or a copy of the other folder.
    fn prepare_objects(&self) -> Result<()> {
        let objects = self.objects();
        if let Some(original) = &self.original {
            remove_tree(&objects)?;
            // cp keeps the times, on which make depends, and shares the blocks where it can.
            let mut step = self.ws.step(&self.name, format!("copying the objects of {}", file_name(original)))?;
            let mut copy = Command::new("cp");
            copy.args(["--archive", "--reflink=auto"]).args([original, &objects]);
            step.run(copy)?;
            step.finish();
        }
        let inputs = Recipe::new("objects 1")
            .text("root", self.root.stamp().as_str())
            .text("source", &self.tree.base().to_string());
        if remove_other_objects(&objects, &inputs.stamp())? {
            eprintln!("{}: the build root or the source has changed, so all of it is compiled", self.name);
        }
        Ok(())
    }

    /// Makes `.config` if its inputs have changed: make rebuilds much when it is newer.
    fn configure(&self, step: &mut Step, source: &Path) -> Result<()> {
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
        let objects = self.objects();
        let (stamp_file, product) = (objects.join(".configured"), objects.join(".config"));
        recipe.stamp().make(&stamp_file, &product, || self.make_config(step, source))
    }

    fn make_config(&self, step: &mut Step, source: &Path) -> Result<()> {
        let (objects, sandbox, settings) = (self.objects(), self.sandbox(source), self.settings());
        let config = objects.join(".config");
        // The metadata of the kernel's crates depends on all options, but make does not know that.
        // The headers package contains it.
        remove_tree(&objects.join("rust"))?;
        let make = |target| {
            let mut words = vec!["make", "-C", "/src", "O=/build", kconfig::WARN_UNKNOWN];
            words.extend(settings.iter().map(String::as_str));
            words.push(target);
            sandbox.command("src", &words)
        };
        let debian = match self.debian {
            Some(package) => Some(self.take_debian_config(step, package)?),
            None => {
                step.run(make("tinyconfig"))?;
                None
            }
        };
        let merge = ["/src/scripts/kconfig/merge_config.sh", "-m", "-O", "/build", "/build/.config"];
        let fragments: Vec<_> =
            self.fragments.iter().map(|file| format!("/repo/{FRAGMENTS}/{}", file_name(file))).collect();
        let words: Vec<_> = merge.into_iter().chain(fragments.iter().map(String::as_str)).collect();
        step.run(sandbox.command("build", &words))?;
        let merged = Settings::read(slice::from_ref(&config))?;
        let mut unknown = Vec::new();
        step.run_watching(make("olddefconfig"), |line| unknown.extend(kconfig::unknown(line)))?;
        let mut fragments = Settings::read(&self.fragments)?;
        if self.commit == self.tree.tip()? {
            merged.require_known(&unknown)?;
        } else {
            // Later patches add options.
            fragments.remove(&unknown);
        }
        fragments.require_in(&config)?;
        debian.map_or(Ok(()), |debian| {
            let lost = debian.require_kept(&fragments, &Settings::read(&[config])?, source)?;
            eprintln!("{}: as Debian's, but for {lost} options of drivers that the fragments unset", self.name);
            Ok(())
        })
    }

    /// Writes the configuration in Debian's binary package to `.config`. Returns its settings.
    fn take_debian_config(&self, step: &mut Step, package: &Download) -> Result<Settings> {
        let file = fetch::pinned(self.ws, package)?;
        let downloads = file.parent().context("the download has no parent folder")?;
        let sandbox = self.root.sandbox().bind_ro(downloads, "src").bind_rw(&self.objects(), "build");
        let script = "dpkg-deb --fsys-tarfile \"$1\" | tar --extract --to-stdout --wildcards \"$2\" | xz -dc >.config";
        let package = format!("/src/{}", file_name(&file));
        step.run(sandbox.command("build", &["bash", "-euo", "pipefail", "-c", script, "-", &package, DEBIAN_CONFIG]))?;
        Settings::read(&[self.objects().join(".config")])
    }
}

/// Removes objects that were made of other inputs. make would take them for up to date: compilers
/// have no times, and each pinned source has files of its own, which can be older than the objects
/// of another source. Returns whether there were such objects.
fn remove_other_objects(objects: &Path, inputs: &Stamp) -> Result<bool> {
    let mark = objects.join(".inputs");
    if inputs.is_in(&mark) {
        return Ok(false);
    }
    let existed = mark.exists();
    remove_tree(objects)?;
    fs::create_dir_all(objects)?;
    inputs.write(&mark)?;
    Ok(existed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sources::pins::Pins;
    use crate::workspace::list;

    fn choice(series: &str, config: Config) -> Choice {
        Choice { series: series.to_owned(), config }
    }

    #[test]
    fn the_fragments_of_the_series_and_of_one_kernel_come_last() {
        let folder = tempfile::tempdir().unwrap();
        let names = |series, config| {
            let fragments = choice(series, config).fragments(folder.path());
            fragments.iter().map(|file| file_name(file)).collect::<Vec<_>>()
        };
        assert_eq!(names("7.3", Config::Server), ["server.config"]);
        for name in ["7.3.config", "server-7.3.config"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(names("7.3", Config::Server), ["server.config", "7.3.config", "server-7.3.config"]);
        assert_eq!(names("7.3", Config::Vm), ["base.config", "hardening.config", "vm.config", "7.3.config"]);
        assert_eq!(names("6.12", Config::Server), ["server.config"]);
    }

    #[test]
    fn objects_of_another_source_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (objects, object) = (folder.path().join("kernel"), folder.path().join("kernel/a.o"));
        let inputs = |source: &str| Recipe::new("objects 1").text("source", source).stamp();
        assert!(!remove_other_objects(&objects, &inputs("one")).unwrap());
        for (source, stays) in [("one", true), ("two", false), ("one", false), ("one", true)] {
            fs::write(&object, "").unwrap();
            assert_eq!(remove_other_objects(&objects, &inputs(source)).unwrap(), !stays, "{source}");
            assert_eq!(object.exists(), stays, "{source}");
        }
    }

    /// A fragment whose name has a typing error would be ignored.
    #[test]
    fn every_fragment_is_used_and_exists() {
        let repo = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let folder = repo.join(FRAGMENTS);
        let pins = Pins::read(&repo.join("xtask/pins.toml")).unwrap();
        let choices = pins
            .kernel
            .all_series()
            .flat_map(|series| Config::value_variants().iter().map(move |config| choice(series, *config)));
        let used: BTreeSet<_> = choices.flat_map(|choice| choice.fragments(&folder)).collect();
        assert!(used.iter().eq(&list(&folder).unwrap()), "{used:?}");
    }

    #[test]
    fn a_packaged_kernel_has_its_revision_in_its_release() {
        for (config, revision, expected) in [
            (Config::Server, Some("3"), "-promisc.3"),
            (Config::Vm, Some("3"), "-promisc.3-vm"),
            (Config::Vm, Some("3.dirty"), "-promisc.3.dirty-vm"),
            (Config::Vm, None, "-promisc-vm"),
            (Config::Debug, None, ""),
        ] {
            assert_eq!(config.local_version(revision), expected);
        }
    }
}
