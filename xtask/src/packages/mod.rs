// SPDX-License-Identifier: GPL-2.0-only
//! Debian packages. Each folder of `xtask/deb/` is the `debian/` of a source package; what lies beside it
//! when it is built, and what its placeholders stand for, is in the module of the same name here.

mod iptables;
mod linux;
mod modules;
mod reference;
mod repository;
mod source;
pub mod version;
mod xt_traffic;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    builds::{
        kernel::{self, Choice},
        root::BuildRoot,
    },
    workspace::{Workspace, remove_tree},
};

/// Where packages are built.
pub struct PackageBuilder<'a> {
    /// The repository and the cache.
    pub ws: &'a Workspace,
    /// The build root.
    pub root: &'a BuildRoot,
    /// The folder that they come into, a repository for apt.
    pub folder: &'a Path,
    /// How many commits from now they are to be from: tests of upgrades need a future.
    pub steps: usize,
}

impl PackageBuilder<'_> {
    /// Builds every package for one kernel, those that changed since the last time, and the index. Gives
    /// the packages' files.
    pub fn build(&self, choice: &Choice) -> Result<Vec<PathBuf>> {
        let iptables = iptables::build(self)?;
        let tools = xt_traffic::build(self)?;
        ensure!(
            choice.config.is_deployable(),
            "no packages are made of the configuration {}: choose vm or server",
            choice.config
        );
        let kernel = kernel::build(self.ws, self.root, choice)?;
        let linux = linux::build(self, &kernel)?;
        let modules = modules::build(self, &kernel, &linux)?;
        let mut files: Vec<_> = [iptables, tools, linux, modules].into_iter().flat_map(|built| built.files).collect();
        files.sort();
        repository::index(self)?;
        Ok(files)
    }

    /// Fills the folder with the packages of Debian's that ours replace.
    pub fn take_debian(&self) -> Result<()> {
        remove_tree(self.folder)?;
        fs::create_dir_all(self.folder).with_context(|| format!("cannot make {}", self.folder.display()))?;
        for file in iptables::debian(self.ws)? {
            let name = file.file_name().unwrap_or_default();
            fs::copy(&file, self.folder.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
        }
        repository::index(self)
    }
}
