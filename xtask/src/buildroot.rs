// SPDX-License-Identifier: GPL-2.0
//! The build root: a Debian system with the compilers, made once per recipe, in which everything
//! is built. It is the same on every host, whatever the host has installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::{
    mirrors,
    process::{self, Running},
    sandbox::{MOUNT_POINTS, Sandbox},
    stamp::{Recipe, Stamp},
    ui::Step,
    workshop::{Workshop, remove_tree},
};

/// Where Debian's keys are: the package debian-archive-keyring, on every Debian.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What nobody reads in a system that no person uses.
pub const UNREAD: [&str; 6] = [
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/doc/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/overrides/*",
    "/usr/share/bug/*",
];

/// A build root that is there.
pub struct BuildRoot {
    path: PathBuf,
    stamp: Stamp,
}

impl BuildRoot {
    /// The build root of the pins' recipe; made when it is not in the cache.
    pub fn ready(ws: &Workshop) -> Result<Self> {
        let pins = ws.pins();
        let stamp = Recipe::new("build root 1")
            .text("suite", &pins.suite)
            .list("packages", &pins.buildroot.packages)
            .list("mount points", &MOUNT_POINTS)
            .list("without", &UNREAD)
            .stamp();
        let path = ws.cache().join("root").join(stamp.short());
        if !path.exists() {
            make(ws, &path)?;
        }
        Ok(Self { path, stamp })
    }

    /// The hash of its recipe.
    pub fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// A sandbox on it, with nothing bound in yet.
    pub fn sandbox(&self) -> Sandbox {
        Sandbox::new(&self.path)
    }
}

fn make(ws: &Workshop, path: &Path) -> Result<()> {
    let pins = ws.pins();
    let mut step = ws.step("build-root", format!("making the build root (Debian {})", pins.suite))?;
    let folder = ws.temporary()?;
    let root = folder.path().join("root");
    fs::create_dir(&root).with_context(|| format!("cannot make {}", root.display()))?;

    let mut unpack = Command::new("tar");
    unpack.args(["--extract", "--no-same-owner", "--exclude=./dev/*", "--directory"]).arg(&root);
    let packages = &pins.buildroot.packages;
    debootstrap(&mut step, "minbase", &pins.suite, packages, &UNREAD, unpack)?;

    for name in MOUNT_POINTS {
        let point = root.join(name);
        fs::create_dir(&point).with_context(|| format!("cannot make {}", point.display()))?;
    }
    let parent = path.parent().context("the build root has no parent")?;
    fs::create_dir_all(parent)
        .and_then(|()| fs::rename(&root, path))
        .with_context(|| format!("cannot keep {}", path.display()))?;
    // It may hold folders that their owner cannot write, which tempfile would trip over.
    remove_tree(&folder.keep())?;
    step.finish();
    Ok(())
}

/// Makes a Debian system with mmdebstrap, without what the patterns `unwanted` match, and gives it, as
/// a tar archive, to the command `consumer` on its standard input.
pub fn debootstrap(
    step: &mut Step,
    variant: &str,
    suite: &str,
    packages: &[String],
    unwanted: &[&str],
    mut consumer: Command,
) -> Result<()> {
    let mirror = mirrors::serving(suite)?;
    let source = format!("deb [signed-by={KEYRING}] {mirror} {suite} main");
    let mut make = Command::new("mmdebstrap");
    make.arg(format!("--variant={variant}"))
        .arg(format!("--include={}", packages.join(",")))
        .args(["--architectures=amd64", "--format=tar"]);
    for pattern in unwanted {
        make.arg(format!("--dpkgopt=path-exclude={pattern}"));
    }
    for option in mirrors::proxy_options() {
        make.arg(format!("--aptopt={option}"));
    }
    // /tmp is often a small memory file system.
    make.env("TMPDIR", "/var/tmp").args([suite, "-", &source]).stdin(Stdio::null()).stdout(Stdio::piped());
    let (log, writer) = process::pipe()?;
    let second = writer.try_clone().context("cannot clone a pipe")?;
    let third = writer.try_clone().context("cannot clone a pipe")?;
    make.stderr(writer);

    let mut maker = Running::spawn(make)?;
    let archive = maker.take_stdout().context("mmdebstrap has no output")?;
    let name = consumer.get_program().to_string_lossy().into_owned();
    consumer.stdin(archive).stdout(second).stderr(third);
    let taker = Running::spawn(consumer)?;
    step.drain(log)?;
    let (made, taken) = (maker.wait()?, taker.wait()?);
    // When the consumer fails, mmdebstrap fails for want of a reader: tell the cause.
    step.require(taken, &name)?;
    step.require(made, "mmdebstrap")
}
