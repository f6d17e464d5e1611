// SPDX-License-Identifier: GPL-2.0-only
//! Debian packages. Each folder of `xtask/deb/` contains the templates for the `debian/` of a
//! source package. [`PackageBuilder`] has a method for each of them, which adds the other files and
//! the values of the placeholders.

mod reference;
mod source;
pub mod version;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fs_err as fs;

use self::source::{Built, SourcePackage, copy_tree};
use crate::builds::kernel::{self, Choice, FIXED, Kernel};
use crate::builds::module::HOST_ONLY;
use crate::builds::root::BuildRoot;
use crate::builds::{iptables, libxt};
use crate::sources::fetch;
use crate::sources::tree::Tree;
use crate::stamp::Recipe;
use crate::workspace::{Workspace, file_name};

/// The inputs of the versions, other than the templates and [`version::SHARED_INPUTS`].
const IPTABLES: &[&str] = &["iptables-patches"];
const LINUX: &[&str] = &["kernel-patches"];
/// They include the kernel's inputs, because the module is for one kernel build.
const MODULES: &[&str] = &["module", "xtask/deb/linux", "kernel-patches"];
/// The extension is linked with the patched libxtables.
const XT_TRAFFIC: &[&str] = &["libxt", "module/abi.rs", "iptables-patches"];

/// The version of the module and the extension, without its last part.
const OWN_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "-");
/// The extension's manual page, relative to the repository.
const MANUAL: &str = "libxt/libxt_traffic.8";

/// Builds packages into a folder.
pub struct PackageBuilder<'a> {
    /// The repository and the cache.
    pub ws: &'a Workspace,
    /// The build root, for what the packages contain.
    pub build_root: &'a BuildRoot,
    /// The package root, in which packages are made.
    pub package_root: &'a BuildRoot,
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
        let iptables = self.iptables()?;
        let tools = self.xt_traffic()?;
        let kernel = kernel::build(self.ws, self.build_root, choice)?;
        let linux = self.linux(&kernel)?;
        let modules = self.modules(&kernel, &linux)?;
        let mut files = [iptables.files, tools.files, linux.files, modules.files].concat();
        files.sort();
        self.index()?;
        Ok(files)
    }

    /// Copies Debian's iptables packages to the folder, with an index, for tests of downgrades.
    pub fn copy_debian_packages(&self) -> Result<()> {
        source::publish("debian", &self.debian_iptables()?, self.folder)?;
        self.index()
    }

    /// Writes the index that makes the folder a repository for apt, `Packages` and `Release`, if
    /// the packages have changed. `Release` contains the time, so an index that is written again
    /// differs.
    /// <https://wiki.debian.org/DebianRepository/Format>
    fn index(&self) -> Result<()> {
        let recipe = Recipe::new("index 1").text("root", self.package_root.stamp().as_str());
        let recipe = source::packages_in(self.folder)?.iter().try_fold(recipe, |recipe, file| recipe.file(file))?;
        recipe.stamp().make(&self.folder.join(".index.stamp"), &self.folder.join("Release"), || {
            let mut step = self.ws.step("deb-index", "indexing the packages")?;
            let sandbox = self.package_root.sandbox().bind_rw(self.folder, "out");
            // `apt-ftparchive release` lists every index file that it finds, also an old Release.
            let script = "rm -f Packages Release
                apt-ftparchive packages . >.new; mv .new Packages
                apt-ftparchive -o APT::FTPArchive::Release::Label=xt_traffic release . >.new; mv .new Release";
            step.run(sandbox.command("out", &["sh", "-euc", script]))?;
            step.finish();
            Ok(())
        })
    }

    /// `iptables`: the patched iptables, split into the same binary packages as Debian's, and
    /// compared with them.
    fn iptables(&self) -> Result<Built> {
        let tree = Tree::iptables(self.ws)?;
        let commit = tree.tip()?;
        let debian = &self.ws.pins().debian_iptables;
        let version = &debian.first().context("pins.toml has no Debian package of iptables")?.version;
        let built = SourcePackage {
            folder: "iptables",
            name: "iptables",
            version_prefix: &format!("{version}+promisc"),
            version_inputs: IPTABLES,
            placeholders: &[],
            inputs: &[&Recipe::new("iptables source").text("commit", &commit.to_string()).stamp()],
            sandbox: self.package_root.sandbox(),
        }
        .build(self, |folder| tree.write(folder, commit))?;
        let hashes: Vec<_> = debian.iter().map(|package| &package.sha256).collect();
        let compared = Recipe::new("comparison 1").text("ours", built.stamp.as_str()).list("debian", &hashes).stamp();
        compared.make(&self.folder.join(".comparison.stamp"), self.folder, || {
            reference::check(self, &built, &self.debian_iptables()?, version)
        })?;
        Ok(built)
    }

    /// The files of Debian's iptables packages.
    fn debian_iptables(&self) -> Result<Vec<PathBuf>> {
        self.ws.pins().debian_iptables.iter().map(|package| fetch::pinned(self.ws, package)).collect()
    }

    /// `xt-traffic`: the iptables extension, and the service that installs the rules at boot.
    fn xt_traffic(&self) -> Result<Built> {
        let library = libxt::build(self.ws, self.build_root, &iptables::build(self.ws, self.build_root)?)?;
        let manual = self.ws.repo().join(MANUAL);
        SourcePackage {
            folder: "xt-traffic",
            name: "xt-traffic",
            version_prefix: OWN_VERSION,
            version_inputs: XT_TRAFFIC,
            placeholders: &[],
            inputs: &[&library.stamp, &Recipe::new("manual page").file(&manual)?.stamp()],
            sandbox: self.package_root.sandbox(),
        }
        .build(self, |folder| {
            let files = [&library.file, &manual];
            files.into_iter().try_for_each(|file| Ok(fs::copy(file, folder.join(file_name(file))).map(drop)?))
        })
    }

    /// `linux`: the built kernel in one configuration, and its headers for modules.
    fn linux(&self, kernel: &Kernel) -> Result<Built> {
        let (release, config) = (kernel.release()?, kernel.choice.config);
        let (upstream, _) = release.split_once('-').context("the kernel's release has no local version")?;
        SourcePackage {
            folder: "linux",
            name: &format!("linux-{config}-promisc"),
            version_prefix: &format!("{upstream}-promisc"),
            version_inputs: LINUX,
            placeholders: &[
                ("RELEASE", &release),
                ("CONFIG", &config.to_string()),
                // Kbuild also reads them from the environment.
                ("FIXED", &FIXED.map(|setting| format!("export {setting}\n")).concat()),
            ],
            inputs: &[&kernel.stamp],
            sandbox: self.package_root.sandbox().bind_ro(&kernel.source, "src").bind_ro(&kernel.objects, "build"),
        }
        .build(self, |_| Ok(()))
    }

    /// `modules`: the kernel module for one kernel, built against the package of that kernel's
    /// headers alone, as on a host without the kernel's source. Also the metapackage that depends
    /// on everything that a host needs.
    fn modules(&self, kernel: &Kernel, linux: &Built) -> Result<Built> {
        let (release, config) = (kernel.release()?, kernel.choice.config);
        let module = self.ws.repo().join("module");
        SourcePackage {
            folder: "modules",
            name: &format!("xt-traffic-{config}"),
            version_prefix: OWN_VERSION,
            version_inputs: MODULES,
            placeholders: &[
                ("RELEASE", &release),
                ("CONFIG", &config.to_string()),
                ("LINUX", &linux.version),
                ("HEADERS", &format!("linux-headers-{release}_{}_amd64.deb", linux.version)),
            ],
            inputs: &[&linux.stamp, &Recipe::new("module source").folder_without(&module, &HOST_ONLY)?.stamp()],
            sandbox: self.package_root.sandbox().bind_ro(self.folder, "src"),
        }
        .build(self, |folder| copy_tree(&module, &folder.join("module"), &[]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inputs_of_versions_exist() {
        let repo = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for input in [IPTABLES, LINUX, MODULES, XT_TRAFFIC, &version::SHARED_INPUTS].concat() {
            assert!(repo.join(input).exists(), "{input}");
        }
    }
}
