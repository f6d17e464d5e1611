// SPDX-License-Identifier: GPL-2.0-only
//! The build root: a Debian system with the compilers, in which everything is built. It does not
//! depend on the host's packages. The package root has the same packages and those for packaging
//! and for the checks. The two are separate, so that `demo` does not wait for these packages.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use fs_err as fs;

use crate::builds::sandbox::{MOUNT_POINTS, Sandbox};
use crate::process::{self, Running};
use crate::sources::mirrors;
use crate::stamp::{Recipe, Stamp};
use crate::ui::Step;
use crate::workspace::{Workspace, keep, remove_tree};

/// Paths excluded from the roots: documentation and translations.
pub const EXCLUDED: [&str; 6] = [
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/doc/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/overrides/*",
    "/usr/share/bug/*",
];

/// Paths excluded from the build root in addition to [`EXCLUDED`]: the compiler's own source in
/// `rust-src`, of which the kernel needs the folder `library` only, and the static libraries and
/// headers of clang, of which bindgen needs the shared library only. These paths are half of all
/// files. The versions are in full, because dpkg's `*` matches slashes, too.
const UNUSED: [&str; 4] = [
    "/usr/src/rustc-1.85.1/compiler/*",
    "/usr/src/rustc-1.85.1/src/*",
    "/usr/lib/llvm-19/include/*",
    "/usr/lib/llvm-19/lib/*.a",
];

/// The build root or the package root.
pub struct BuildRoot {
    path: PathBuf,
    stamp: Stamp,
}

impl BuildRoot {
    /// Makes the build root unless the cache has it.
    pub fn prepare(ws: &Workspace) -> Result<Self> {
        Self::with(ws, "build root", &ws.pins().buildroot.packages)
    }

    /// Makes the package root unless the cache has it.
    pub fn prepare_for_packages(ws: &Workspace) -> Result<Self> {
        let pins = ws.pins();
        Self::with(ws, "package root", &[&pins.buildroot.packages[..], &pins.packageroot.packages].concat())
    }

    fn with(ws: &Workspace, name: &str, packages: &[String]) -> Result<Self> {
        let stamp = Recipe::new("build root 1")
            .text("suite", &ws.pins().suite)
            .list("packages", packages)
            .list("mount points", &MOUNT_POINTS)
            .list("without", &excluded())
            .stamp();
        let path = ws.cache().join("root").join(stamp.short());
        if !path.exists() {
            make(ws, name, packages, &path)?;
        }
        Ok(Self { path, stamp })
    }

    /// The hash of its inputs.
    pub fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// A sandbox without bind mounts.
    pub fn sandbox(&self) -> Sandbox {
        Sandbox::new(&self.path)
    }
}

fn excluded() -> Vec<&'static str> {
    [&EXCLUDED[..], &UNUSED].concat()
}

fn make(ws: &Workspace, name: &str, packages: &[String], path: &Path) -> Result<()> {
    let suite = &ws.pins().suite;
    let mut step = ws.step(&name.replace(' ', "-"), format!("making the {name} (Debian {suite})"))?;
    let folder = ws.temporary()?;
    let root = folder.path().join("root");
    fs::create_dir(&root)?;

    let mut unpack = Command::new("tar");
    unpack.args(["--extract", "--no-same-owner", "--exclude=./dev/*", "--directory"]).arg(&root);
    bootstrap(&mut step, "minbase", suite, packages, &excluded(), unpack)?;

    for name in MOUNT_POINTS {
        fs::create_dir(root.join(name))?;
    }
    for pattern in UNUSED {
        let folder = Path::new(pattern).parent().unwrap_or_else(|| Path::new("/")).strip_prefix("/")?;
        ensure!(root.join(folder).exists(), "{suite} does not match {pattern}: has a version changed?");
    }
    keep(&root, path)?;
    // TempDir could not remove folders without write permission.
    remove_tree(&folder.keep())?;
    step.finish();
    Ok(())
}

/// Makes a Debian system with mmdebstrap, without the paths that the patterns `excluded` match. The
/// command `consumer` reads it as a tar archive on standard input.
pub fn bootstrap(
    step: &mut Step,
    variant: &str,
    suite: &str,
    packages: &[String],
    excluded: &[&str],
    mut consumer: Command,
) -> Result<()> {
    let mirror = mirrors::serving(suite, mirrors::Patience::LONG)?;
    let source = format!("deb [signed-by={}] {mirror} {suite} main", mirrors::KEYRING);
    let mut make = Command::new("mmdebstrap");
    make.arg(format!("--variant={variant}"))
        .arg(format!("--include={}", packages.join(",")))
        .args(["--architectures=amd64", "--format=tar"]);
    for pattern in excluded {
        make.arg(format!("--dpkgopt=path-exclude={pattern}"));
    }
    for option in mirrors::proxy_options() {
        make.arg(format!("--aptopt={option}"));
    }
    // /tmp is often a small tmpfs.
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
    // If the consumer fails, mmdebstrap fails with a broken pipe: report the consumer first.
    step.require(taken, &name)?;
    step.require(made, "mmdebstrap")
}
