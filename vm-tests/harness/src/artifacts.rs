// SPDX-License-Identifier: GPL-2.0-only
//! The files of a guest: a kernel and an initramfs in two parts.

use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fs_err as fs;

/// Names the folder with the files for tests. `cargo xtask vm-test` sets it.
const FOLDER_VARIABLE: &str = "XT_TRAFFIC_GUEST";

/// The folder that an environment variable names.
pub(crate) fn folder_from_environment(variable: &str) -> Result<PathBuf> {
    let folder = std::env::var_os(variable);
    folder.map(PathBuf::from).with_context(|| format!("{variable} is not set: `cargo xtask vm-test` runs this test"))
}

/// A guest's kernel and root file system.
#[derive(Clone, Debug)]
pub struct Artifacts {
    pub(crate) kernel: PathBuf,
    /// In the order in which the kernel unpacks them: later files replace earlier ones.
    initramfs: [PathBuf; 2],
}

impl Artifacts {
    /// Finds `bzImage`, `base.cpio` and `overlay.cpio` in a folder.
    ///
    /// # Errors
    /// When one of them does not exist.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let file = |name: &str| {
            fs::canonicalize(dir.join(name)).context("a file of the guest is missing: `cargo xtask vm-test` builds it")
        };
        Ok(Self { kernel: file("bzImage")?, initramfs: [file("base.cpio")?, file("overlay.cpio")?] })
    }

    /// The same with another base of the root file system.
    pub fn with_base(mut self, base: PathBuf) -> Self {
        self.initramfs[0] = base;
        self
    }

    /// Finds them in the folder that the environment variable `XT_TRAFFIC_GUEST` names.
    ///
    /// # Errors
    /// When the variable is not set or a file does not exist.
    pub fn from_environment() -> Result<Self> {
        Self::from_dir(&folder_from_environment(FOLDER_VARIABLE)?)
    }

    /// Concatenates the parts of the initramfs to one file, as QEMU takes only one.
    ///
    /// # Errors
    /// When a part cannot be read or is not an archive, or the file cannot be written.
    pub fn write_initramfs(&self, to: &Path) -> Result<()> {
        let mut out = fs::File::create(to)?;
        for part in &self.initramfs {
            let length = io::copy(&mut fs::File::open(part)?, &mut out)?;
            // The kernel expects the next archive at a multiple of four.
            ensure!(length > 0 && length % 4 == 0, "{}: {length} bytes are not a newc archive", part.display());
        }
        Ok(())
    }

    /// Text that changes when one of the files changes. The build puts each file's content hash
    /// into its path or replaces the file, so that paths and metadata suffice.
    ///
    /// # Errors
    /// When a file does not exist.
    pub fn identity(&self) -> Result<String> {
        let mut identity = String::new();
        for path in std::iter::once(&self.kernel).chain(&self.initramfs) {
            let data = fs::metadata(path)?;
            let (inode, seconds, nanos) = (data.ino(), data.mtime(), data.mtime_nsec());
            writeln!(identity, "{} {} {inode} {seconds}.{nanos:09}", path.display(), data.len())
                .expect("writing to a String cannot fail");
        }
        Ok(identity)
    }
}
