// SPDX-License-Identifier: GPL-2.0
//! What a machine is made of: a folder with two disks.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The environment variable that names the folder for tests.
const FOLDER_VARIABLE: &str = "XT_TRAFFIC_BOX";

/// A machine's disks.
#[derive(Clone, Debug)]
pub struct Image {
    disk: PathBuf,
    packages: PathBuf,
}

impl Image {
    /// Takes `box.img`, the disk that it boots from, and `packages.img`, a file system with repositories, from a folder.
    ///
    /// # Errors
    /// When one of them is not there.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let file = |name: &str| {
            let path = dir.join(name);
            path.canonicalize().with_context(|| format!("{}: `cargo xtask vm-test` makes it", path.display()))
        };
        Ok(Self { disk: file("box.img")?, packages: file("packages.img")? })
    }

    /// Takes them from the folder that the environment names.
    ///
    /// # Errors
    /// When it names none, or one of them is not there.
    pub fn from_environment() -> Result<Self> {
        let folder = std::env::var_os(FOLDER_VARIABLE)
            .with_context(|| format!("{FOLDER_VARIABLE} is not set: `cargo xtask vm-test` runs this test"))?;
        Self::from_dir(Path::new(&folder))
    }

    /// The disk with the system.
    pub fn disk(&self) -> &Path {
        &self.disk
    }

    /// The file system with the packages.
    pub fn packages(&self) -> &Path {
        &self.packages
    }
}
