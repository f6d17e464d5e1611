// SPDX-License-Identifier: GPL-2.0
//! `build-kernel`: the patched kernel in one configuration, with what out-of-tree modules need.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use git2::Oid;

use crate::{
    buildroot::BuildRoot,
    commands::setup,
    fetch,
    kconfig::{self, Settings},
    pins::Source,
    sandbox::{Sandbox, jobs},
    stamp::{Recipe, Stamp, withdraw, write_atomically},
    tree::Tree,
    ui::Step,
    workshop::{Workshop, file_name, remove_tree},
};

/// What makes the build independent of who makes it, where and when; and `LOCALVERSION`, which keeps
/// the kernel's scripts from appending a `+` to the release that the fragments name.
pub const FIXED: [&str; 5] = [
    "KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 2026",
    "KBUILD_BUILD_USER=xt_traffic",
    "KBUILD_BUILD_HOST=build-root",
    "KBUILD_BUILD_VERSION=1",
    "LOCALVERSION=",
];

/// The folder of the configurations' fragments.
const FRAGMENTS: &str = "kernel-patches/config";
/// Where Debian's package has the configuration of its ordinary kernel.
const DEBIAN_CONFIG: &str = "./usr/src/linux-config-*/config.amd64_none_amd64.xz";

/// How many lines make prints for a whole build, until a build has counted them.
const LINES: u64 = 2200;

/// A kernel configuration: what it starts from, and fragments in `kernel-patches/config/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Config {
    /// With everything that finds bugs at run time; the tests boot it.
    Debug,
    /// Small, for virtual machines and for measuring.
    Vm,
    /// Debian's own, without what a server has no use for.
    Server,
}

impl Config {
    /// The fragments, in the order in which they are merged.
    fn fragments(self) -> &'static [&'static str] {
        match self {
            Self::Debug => &["base.config", "debug.config"],
            Self::Vm => &["base.config", "vm.config"],
            Self::Server => &["server.config"],
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debug => "debug",
            Self::Vm => "vm",
            Self::Server => "server",
        })
    }
}

/// Which kernel.
#[derive(Args, Clone, Debug)]
#[group(skip)] // flattened into others that are called so too
pub struct Options {
    /// The kernel's configuration
    #[arg(long, value_enum, default_value_t = Config::Vm)]
    pub config: Config,
    /// The kernel series, of those in pins.toml
    #[arg(long)]
    pub series: Option<String>,
}

/// A built kernel.
pub struct Kernel {
    /// Its checked-out source.
    pub source: PathBuf,
    /// The folder of its objects, with the `bzImage`.
    pub objects: PathBuf,
    /// What it was made from.
    pub stamp: Stamp,
    /// `kernel-SERIES-CONFIG`
    pub name: String,
}

impl Kernel {
    /// The bootable image.
    pub fn image(&self) -> PathBuf {
        self.objects.join("arch/x86/boot/bzImage")
    }

    /// What `uname -r` says of it.
    pub fn release(&self) -> Result<String> {
        let file = self.objects.join("include/config/kernel.release");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(text.trim().to_owned())
    }
}

/// The command.
pub fn run(ws: &Workshop, options: &Options) -> Result<()> {
    let _lock = setup::prepare(ws)?;
    let root = BuildRoot::ready(ws)?;
    let kernel = build(ws, &root, options)?;
    eprintln!("{}", kernel.image().display());
    Ok(())
}

/// Builds the kernel when what it is made from has changed.
pub fn build(ws: &Workshop, root: &BuildRoot, options: &Options) -> Result<Kernel> {
    let series = options.series.as_ref().unwrap_or(&ws.pins().kernel.default);
    let tree = Tree::kernel(ws, series)?;
    let tip = tree.tip()?;
    build_at(ws, root, &tree, tip, options.config, "build")
}

/// Builds the kernel of one commit in the checkout `checkout`, whose objects are kept apart from those
/// of other checkouts.
pub fn build_at(
    ws: &Workshop,
    root: &BuildRoot,
    tree: &Tree,
    commit: Oid,
    config: Config,
    checkout: &str,
) -> Result<Kernel> {
    let folder = ws.repo().join(FRAGMENTS);
    let fragments: Vec<_> = config.fragments().iter().map(|name| folder.join(name)).collect();
    let name = format!("{}-{config}", tree.name());
    let objects = ws.cache().join(checkout).join(&name);
    let mut recipe = Recipe::new("kernel 2")
        .text("root", root.stamp().as_str())
        .text("commit", &commit.to_string())
        .list("fixed", &FIXED);
    for fragment in &fragments {
        recipe = recipe.file(fragment)?;
    }
    let debian = match config {
        Config::Server => Some(ws.pins().debian_config(tree.name())?),
        Config::Debug | Config::Vm => None,
    };
    if let Some(debian) = debian {
        recipe = recipe.text("debian", &debian.sha256);
    }
    let build = Build { ws, root, tree, commit, debian, fragments, name: name.clone(), objects: objects.clone() };
    let stamp = recipe.stamp();
    let stamp_file = ws.cache().join(checkout).join(format!("{name}.stamp"));
    let source = tree.checkout(ws, checkout, commit)?;
    if !stamp.is_in(&stamp_file) {
        withdraw(&stamp_file)?;
        build.make(&source)?;
        stamp.write(&stamp_file)?;
    }
    Ok(Kernel { source, objects, stamp, name })
}

struct Build<'a> {
    ws: &'a Workshop,
    root: &'a BuildRoot,
    tree: &'a Tree,
    commit: Oid,
    /// The package with Debian's configuration, to start from that instead of from nothing.
    debian: Option<&'a Source>,
    fragments: Vec<PathBuf>,
    name: String,
    objects: PathBuf,
}

impl Build<'_> {
    fn make(&self, source: &Path) -> Result<()> {
        let (ws, name) = (self.ws, &self.name);
        let mut step = ws.step(name, format!("building {name}"))?;
        self.forget_other_roots()?;
        let sandbox = self.root.sandbox().read(source, "src").write(&self.objects, "build").read(ws.repo(), "repo");
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
        // Kbuild's short lines: two blanks, then the kind of step in capitals.
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

    /// Objects that another build root has made are of no use, and could be mistaken for good ones.
    fn forget_other_roots(&self) -> Result<()> {
        let mark = self.objects.join(".build-root");
        if !self.root.stamp().is_in(&mark) {
            remove_tree(&self.objects)?;
            fs::create_dir_all(&self.objects).with_context(|| format!("cannot make {}", self.objects.display()))?;
            self.root.stamp().write(&mark)?;
        }
        Ok(())
    }

    /// Makes `.config`, unless nothing that it depends on has changed: make rebuilds much when it
    /// is new.
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
        let stamp = recipe.stamp();
        let stamp_file = self.objects.join(".configured");
        if stamp.is_in(&stamp_file) {
            return Ok(());
        }
        withdraw(&stamp_file)?;
        // rustc writes into a crate's metadata, which the headers package holds, what comes of all options. make does not
        // see that crates depend on them.
        remove_tree(&self.objects.join("rust"))?;
        let make = |target| {
            let mut words = vec!["make", "-C", "/src", "O=/build", kconfig::NAME_THE_UNKNOWN];
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
        Settings::read(&self.fragments)?.require_in(&self.objects.join(".config"))?;
        stamp.write(&stamp_file)
    }

    /// Makes Debian's configuration, from the binary package that has it, the `.config`.
    fn take_debian_config(&self, step: &mut Step, package: &Source) -> Result<()> {
        let file = fetch::pinned(self.ws, package)?;
        let downloads = file.parent().context("a download lies in no folder")?;
        let sandbox = self.root.sandbox().read(downloads, "src").write(&self.objects, "build");
        let script = "dpkg-deb --fsys-tarfile \"$1\" | tar --extract --to-stdout --wildcards \"$2\" | xz -dc >.config";
        let package = format!("/src/{}", file_name(&file));
        step.run(sandbox.command("build", &["bash", "-euo", "pipefail", "-c", script, "-", &package, DEBIAN_CONFIG]))
    }
}
