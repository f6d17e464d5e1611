// SPDX-License-Identifier: GPL-2.0-only
//! Debian packages. Each folder of `xtask/deb/` contains the templates for the `debian/` of a
//! source package. The module of the same name adds the other files and the values of the
//! placeholders.

mod iptables;
mod linux;
mod modules;
mod reference;
mod repository;
mod source;
pub mod version;
mod xt_traffic;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::builds::kernel::{self, Choice};
use crate::builds::root::BuildRoot;
use crate::workspace::Workspace;

/// Builds packages into a folder.
pub struct PackageBuilder<'a> {
    /// The repository and the cache.
    pub ws: &'a Workspace,
    /// The build root.
    pub root: &'a BuildRoot,
    /// The folder for the packages, a repository for apt.
    pub folder: &'a Path,
    /// The number of entries to add to each changelog, for tests of upgrades.
    pub test_entries: usize,
}

impl PackageBuilder<'_> {
    /// Builds the packages for one kernel whose inputs have changed, and the index. Returns the
    /// files of all packages.
    pub fn build(&self, choice: &Choice) -> Result<Vec<PathBuf>> {
        ensure!(
            choice.config.is_deployable(),
            "no packages are made of the configuration {}: choose vm or server",
            choice.config
        );
        let iptables = iptables::build(self)?;
        let tools = xt_traffic::build(self)?;
        let kernel = kernel::build(self.ws, self.root, choice)?;
        let linux = linux::build(self, &kernel)?;
        let modules = modules::build(self, &kernel, &linux)?;
        let mut files: Vec<_> = [iptables, tools, linux, modules].into_iter().flat_map(|built| built.files).collect();
        files.sort();
        repository::index(self)?;
        Ok(files)
    }

    /// Copies Debian's iptables packages to the folder, with an index, for tests of downgrades.
    pub fn copy_debian_packages(&self) -> Result<()> {
        source::publish("debian", &iptables::debian(self.ws)?, self.folder)?;
        repository::index(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inputs_of_versions_exist() {
        let repo = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let packages = [&iptables::INPUTS[..], &linux::INPUTS, &modules::INPUTS, &xt_traffic::INPUTS];
        for input in packages.concat().iter().chain(&version::SHARED_INPUTS) {
            assert!(repo.join(input).exists(), "{input}");
        }
    }
}
