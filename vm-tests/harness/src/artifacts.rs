// SPDX-License-Identifier: GPL-2.0
//! What a guest is made of: a folder with a kernel and two halves of an initramfs.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The environment variable that names the folder for tests.
pub const FOLDER_VARIABLE: &str = "XT_TRAFFIC_VM";

/// A guest's kernel and root file system.
#[derive(Clone, Debug)]
pub struct Artifacts {
    kernel: PathBuf,
    /// In the order in which the kernel unpacks them: later files replace earlier ones.
    initramfs: [PathBuf; 2],
}

impl Artifacts {
    /// Takes `bzImage`, `base.cpio` and `overlay.cpio` from a folder.
    ///
    /// # Errors
    /// When one of them is not there.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let file = |name: &str| {
            let path = dir.join(name);
            path.canonicalize().with_context(|| format!("{}: run `cargo xtask build` first", path.display()))
        };
        Ok(Self { kernel: file("bzImage")?, initramfs: [file("base.cpio")?, file("overlay.cpio")?] })
    }

    /// Takes them from the folder that the environment names, or else from where `cargo xtask build` puts the
    /// debug configuration.
    ///
    /// # Errors
    /// When one of them is not there.
    pub fn from_environment() -> Result<Self> {
        match std::env::var_os(FOLDER_VARIABLE) {
            Some(folder) => Self::from_dir(Path::new(&folder)),
            None => Self::from_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/vm/debug")),
        }
    }

    /// The kernel's bzImage.
    pub fn kernel(&self) -> &Path {
        &self.kernel
    }

    /// Writes the whole initramfs to one file, which is what QEMU takes.
    ///
    /// # Errors
    /// When a half cannot be read, is no archive, or the file cannot be written.
    pub fn write_initramfs(&self, to: &Path) -> Result<()> {
        let mut out = File::create(to).with_context(|| to.display().to_string())?;
        for half in &self.initramfs {
            let mut archive = File::open(half).with_context(|| half.display().to_string())?;
            let length = io::copy(&mut archive, &mut out).with_context(|| half.display().to_string())?;
            // The kernel looks for the next archive at a multiple of four.
            ensure!(length > 0 && length % 4 == 0, "{}: {length} bytes are no newc archive", half.display());
        }
        Ok(())
    }

    /// A text that changes whenever one of the files does. The build puts each file's content hash into its
    /// path, or replaces the file; either shows here, without reading a hundred megabytes.
    ///
    /// # Errors
    /// When a file has gone.
    pub fn identity(&self) -> Result<String> {
        let mut identity = String::new();
        for path in std::iter::once(&self.kernel).chain(&self.initramfs) {
            let data = fs::metadata(path).with_context(|| path.display().to_string())?;
            let (inode, seconds, nanos) = (data.ino(), data.mtime(), data.mtime_nsec());
            writeln!(identity, "{} {} {inode} {seconds}.{nanos:09}", path.display(), data.len())
                .expect("writing to a String cannot fail");
        }
        Ok(identity)
    }
}
