// SPDX-License-Identifier: GPL-2.0-only
//! The files of the Debian VM: two disk images in a folder.

use std::path::PathBuf;

use anyhow::{Context, Result};
use fs_err as fs;

use crate::artifacts::folder_from_environment;

/// Names the folder for tests. `cargo xtask vm-test` sets it.
const FOLDER_VARIABLE: &str = "XT_TRAFFIC_DEBIAN_VM";

/// The disk images.
#[derive(Clone, Debug)]
pub struct Image {
    /// The disk with the system.
    pub(super) disk: PathBuf,
    /// The file system with the packages.
    pub(super) packages: PathBuf,
}

impl Image {
    /// Finds `system.img`, the disk with the system, and `packages.img`, a file system with
    /// repositories, in the folder that the environment variable `XT_TRAFFIC_DEBIAN_VM` names.
    ///
    /// # Errors
    /// When the variable is not set, or a file does not exist.
    pub fn from_environment() -> Result<Self> {
        let folder = folder_from_environment(FOLDER_VARIABLE)?;
        let file = |name: &str| {
            fs::canonicalize(folder.join(name)).context("a disk image is missing: `cargo xtask vm-test` builds it")
        };
        Ok(Self { disk: file("system.img")?, packages: file("packages.img")? })
    }
}
