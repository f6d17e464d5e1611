// SPDX-License-Identifier: GPL-2.0-only
//! Debian packages. Each folder of `xtask/deb/` contains the templates for the `debian/` of a
//! source package. [`PackageBuilder`] has a method for each of them, which adds the other files and
//! the values of the placeholders.

#[cfg(test)]
mod kernels;
mod reference;
pub mod repository;
pub mod signing;
mod source;
pub mod version;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fs_err as fs;

use self::repository::Signer;
use self::signing::OwnerKey;
use self::source::{Built, Origin, Patched, SourcePackage, copy_tree};
use crate::builds::kconfig::Settings;
use crate::builds::kernel::{self, CHECKOUT, Choice, Config, Kernel};
use crate::builds::module::HOST_ONLY;
use crate::builds::root::BuildRoot;
use crate::sources::fetch;
use crate::sources::pins::Download;
use crate::sources::tree::Tree;
use crate::stamp::Recipe;
use crate::workspace::{Workspace, file_name};

/// The inputs of the versions, other than the templates and [`version::SHARED_INPUTS`].
const IPTABLES: &[&str] = &["iptables-patches"];
const LINUX: &[&str] = &["kernel-patches"];
/// They include the kernel's inputs, because the module is for one kernel build.
const MODULES: &[&str] = &["module", "xtask/deb/linux", "kernel-patches"];
const XT_TRAFFIC: &[&str] = &["libxt", "module/abi.rs"];
/// The files of the extension, relative to the repository.
const EXTENSION: [&str; 3] = ["libxt/src", "libxt/libxt_traffic.8", "module/abi.rs"];
/// The folder of the kernel's templates.
const LINUX_TEMPLATES: &str = "xtask/deb/linux";

/// What follows the version of Debian's iptables in that of ours. Debian's next revisions are
/// higher, also its security updates, such as `+deb13u1`.
const IPTABLES_REVISION: &str = "+0promisc";

/// The version of the module and the extension, without its last part. It has no `-`, because these
/// source packages are native: this repository is their only source.
/// <https://www.debian.org/doc/debian-policy/ch-controlfields.html#version>
const OWN_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "+");

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
    /// What to add to the packages.
    pub extras: Extras<'a>,
}

/// What a [`PackageBuilder`] adds to the binary packages.
#[derive(Clone, Copy, Default)]
pub struct Extras<'a> {
    /// Whether to add the source packages.
    pub sources: bool,
    /// Signs the repository.
    pub signer: Option<&'a Signer>,
    /// Signs the kernel and the modules.
    pub owner_key: Option<&'a OwnerKey>,
}

impl PackageBuilder<'_> {
    /// Builds the packages for one kernel whose inputs have changed, and the index. Returns the
    /// files of all packages.
    pub fn build(&self, choice: &Choice) -> Result<Vec<PathBuf>> {
        require_deployable(choice.config)?;
        let iptables = self.iptables()?;
        let tools = self.xt_traffic()?;
        let kernel = self.kernel(choice)?;
        let linux = self.linux(&kernel)?;
        let modules = self.modules(&kernel, &linux)?;
        let for_kernel = signing::sign(self, &kernel, [linux, modules])?;
        let mut files = [iptables.files, tools.files, for_kernel].concat();
        files.sort();
        self.index()?;
        Ok(files)
    }

    /// Builds the kernel that is packaged.
    pub fn kernel(&self, choice: &Choice) -> Result<Kernel> {
        // The release of the kernel and the version of its packages have the same number.
        let changelog = self.ws.history()?.changelog(LINUX_TEMPLATES, LINUX, self.test_entries)?;
        kernel::build_for_package(self.ws, self.build_root, choice, changelog.number(), self.test_entries > 0)
    }

    /// Copies packages that were built before to the folder, with an index, for tests of upgrades.
    ///
    /// # Errors
    /// When the folder `from` has no package.
    pub fn copy_packages(&self, from: &Path) -> Result<()> {
        let packages = source::packages_in(from).with_context(|| format!("cannot read {}", from.display()))?;
        ensure!(!packages.is_empty(), "no package is in {}", from.display());
        source::publish("packages", &packages, self.folder)?;
        self.index()
    }

    /// Copies Debian's iptables packages to the folder, with an index, for tests of downgrades.
    pub fn copy_debian_packages(&self) -> Result<()> {
        source::publish("debian", &self.debian_iptables()?, self.folder)?;
        self.index()
    }

    /// Makes Debian's iptables packages with the version of a security update, with an index, for
    /// tests of upgrades.
    pub fn raise_debian_packages(&self) -> Result<()> {
        let packages = self.debian_iptables()?;
        let version = self.ws.pins().debian_iptables_version()?;
        let names: Vec<_> = packages.iter().map(|file| file_name(file)).collect();
        let downloads = packages[0].parent().context("the download has no parent folder")?;
        // Version and relations name the version.
        let script = "version=$1; shift
            for package; do
                dpkg-deb --raw-extract \"/src/$package\" /tmp/package
                sed -i \"s/^Version: $version/&+deb13u1/; s/(= $version/&+deb13u1/g\" /tmp/package/DEBIAN/control
                dpkg-deb --root-owner-group --build /tmp/package /out
                rm -r /tmp/package
            done";
        let recipe = Recipe::new("raised 1").text("script", script).list("packages", &names);
        let stamp = recipe.text("version", version).text("root", self.package_root.stamp().as_str()).stamp();
        fs::create_dir_all(self.folder)?;
        stamp.make(&self.folder.join(".raised.stamp"), self.folder, || {
            let mut step = self.ws.step("deb-raised", "making a security update of Debian's iptables")?;
            let sandbox = self.package_root.sandbox().bind_ro(downloads, "src").bind_rw(self.folder, "out");
            let words =
                [&["sh", "-euc", script, "-", version][..], &names.iter().map(String::as_str).collect::<Vec<_>>()];
            step.run(sandbox.command("out", &words.concat()))?;
            step.finish();
            Ok(())
        })?;
        self.index()
    }

    /// Makes the folder a repository for apt.
    fn index(&self) -> Result<()> {
        repository::index(self.ws, self.package_root, self.folder, self.extras.signer)
    }

    /// `iptables`: the patched iptables, split into the same binary packages as Debian's, and
    /// compared with them.
    fn iptables(&self) -> Result<Built> {
        let tree = Tree::iptables(self.ws)?;
        let commit = tree.tip()?;
        let debian = &self.ws.pins().debian_iptables;
        let version = self.ws.pins().debian_iptables_version()?;
        let built = SourcePackage {
            folder: "iptables",
            name: "iptables",
            version_prefix: &format!("{version}{IPTABLES_REVISION}"),
            version_inputs: IPTABLES,
            placeholders: &[],
            inputs: &[],
            // The checkout in which iptables is built has files that autoconf has made.
            origin: self.patched(&tree, &self.ws.pins().iptables, "source", None)?,
            profile: "",
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

    /// The source of a package that is built from a patched tree. `checkout` is a checkout of it
    /// that has no other files.
    fn patched<'b>(
        &self,
        tree: &'b Tree,
        source: &Download,
        checkout: &str,
        config: Option<PathBuf>,
    ) -> Result<Origin<'b>> {
        let commit = tree.tip()?;
        Ok(Origin::Patched(Patched {
            tarball: tree.tarball(self.ws, source)?,
            patches: tree.patches(),
            tree: tree.checkout(self.ws, checkout, commit)?,
            stamp: Recipe::new("patched").text("commit", &commit.to_string()).stamp(),
            config,
        }))
    }

    /// `xt-traffic`: the iptables extension, and the service that installs the rules at boot.
    fn xt_traffic(&self) -> Result<Built> {
        let paths = EXTENSION.map(|name| (name, self.ws.repo().join(name)));
        let files = paths.iter().try_fold(Recipe::new("extension"), |recipe, (_, path)| recipe.path(path))?.stamp();
        SourcePackage {
            folder: "xt-traffic",
            name: "xt-traffic",
            version_prefix: OWN_VERSION,
            version_inputs: XT_TRAFFIC,
            placeholders: &[("SERIES", &self.ws.pins().kernel.default)],
            inputs: &[&files],
            origin: Origin::Native,
            profile: "",
            sandbox: self.package_root.sandbox(),
        }
        .build(self, |folder| {
            paths.iter().try_for_each(|(name, path)| {
                let target = folder.join(name);
                fs::create_dir_all(target.parent().context("a file has no parent folder")?)?;
                if path.is_dir() { copy_tree(path, &target, &[]) } else { Ok(fs::copy(path, &target).map(drop)?) }
            })
        })
    }

    /// `linux`: the built kernel in one configuration, and its headers for modules.
    fn linux(&self, kernel: &Kernel) -> Result<Built> {
        let (release, config) = (kernel.release()?, kernel.choice.config);
        let (upstream, _) = release.split_once('-').context("the kernel's release has no local version")?;
        let settings: Vec<_> = kernel.settings.iter().map(|setting| format!("export {setting}\n")).collect();
        let (tree, source) =
            (Tree::kernel(self.ws, &kernel.choice.series)?, self.ws.pins().kernel_source(&kernel.choice.series)?);
        SourcePackage {
            folder: "linux",
            name: &linux_source(&kernel.choice),
            version_prefix: &format!("{upstream}-promisc."),
            version_inputs: LINUX,
            placeholders: &[
                ("RELEASE", &release),
                ("SOURCE", &linux_source(&kernel.choice)),
                ("CONFIG", &config.to_string()),
                ("DEBIAN", &source.version),
                ("COMPILERS", &compilers(kernel)?),
                // Kbuild also reads them from the environment.
                ("SETTINGS", &settings.concat()),
            ],
            inputs: &[&kernel.stamp],
            origin: self.patched(&tree, source, CHECKOUT, Some(kernel.objects.join(".config")))?,
            profile: "pkg.linux.built",
            sandbox: self.package_root.sandbox().bind_ro(&kernel.source, "src").bind_ro(&kernel.objects, "build"),
        }
        .build(self, |_| Ok(()))
    }

    /// `modules`: the kernel module for one kernel, built against the package of that kernel's
    /// headers alone, as on a host without the kernel's source. Also the metapackage of the series,
    /// which depends on the newest kernel and its module.
    fn modules(&self, kernel: &Kernel, linux: &Built) -> Result<Built> {
        let (release, choice) = (kernel.release()?, &kernel.choice);
        let module = self.ws.repo().join("module");
        SourcePackage {
            folder: "modules",
            name: &metapackage(choice),
            version_prefix: OWN_VERSION,
            version_inputs: MODULES,
            placeholders: &[
                ("RELEASE", &release),
                ("METAPACKAGE", &metapackage(choice)),
                ("SERIES", &choice.series),
                ("CONFIG", &choice.config.to_string()),
                ("COMPILERS", &compilers(kernel)?),
                ("LINUX", &linux.version),
                ("HEADERS", &format!("linux-headers-{release}_{}_amd64.deb", linux.version)),
            ],
            inputs: &[&linux.stamp, &Recipe::new("module source").folder_without(&module, &HOST_ONLY)?.stamp()],
            origin: Origin::Native,
            profile: "pkg.modules.headers",
            sandbox: self.package_root.sandbox().bind_ro(self.folder, "src"),
        }
        .build(self, |folder| copy_tree(&module, &folder.join("module"), &[]))
    }
}

/// Fails if no packages are made of a configuration.
pub fn require_deployable(config: Config) -> Result<()> {
    ensure!(config.is_deployable(), "no packages are made of the configuration {config}: choose server or vm");
    Ok(())
}

/// The metapackage of a series, such as `xt-traffic-6.12`, or `xt-traffic-6.12-vm`.
fn metapackage(choice: &Choice) -> String {
    format!("xt-traffic-{}{}", choice.series, choice.config.suffix())
}

/// The source package of a kernel. Series and configurations share no name, so one repository can
/// have all of them.
fn linux_source(choice: &Choice) -> String {
    format!("linux-{}-promisc{}", choice.series, choice.config.suffix())
}

/// The packages of the compilers with which a kernel was built: a module needs the same. The
/// metadata of Rust crates is for one version of rustc, and the headers are for one major version
/// of gcc.
fn compilers(kernel: &Kernel) -> Result<String> {
    compilers_of(&Settings::read(&[kernel.objects.join(".config")])?)
}

fn compilers_of(config: &Settings) -> Result<String> {
    let version = |name: &str| config.number(name).with_context(|| format!("the kernel's configuration has no {name}"));
    // scripts/cc-version.sh and scripts/rustc-version.sh in the kernel's source compute them.
    let (gcc, rustc) = (version("CONFIG_GCC_VERSION")? / 10_000, version("CONFIG_RUSTC_VERSION")?);
    let (major, minor, patch) = (rustc / 100_000, rustc / 100 % 1000, rustc % 100);
    let rustc = format!("rustc (>= {major}.{minor}.{patch}), rustc (<< {major}.{minor}.{}~)", patch + 1);
    Ok(format!("gcc (>= 4:{gcc}), gcc (<< 4:{}), gcc-{gcc}, {rustc}", gcc + 1))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Compares versions as dpkg does.
    fn is_lower(one: &str, other: &str) -> bool {
        Command::new("dpkg").args(["--compare-versions", one, "lt", other]).status().unwrap().success()
    }

    #[test]
    fn the_version_of_iptables_is_below_debians_next_revisions() {
        let pins = include_str!("../../pins.toml").parse::<toml::Table>().unwrap();
        let debian = pins["debian_iptables"][0]["version"].as_str().unwrap();
        let [ours, newer] = [1, 12].map(|number| format!("{debian}{IPTABLES_REVISION}{number}"));
        assert!(is_lower(debian, &ours) && is_lower(&ours, &newer), "{ours}");
        let dirty = format!("{debian}{IPTABLES_REVISION}1.dirty");
        assert!(is_lower(&ours, &dirty) && is_lower(&dirty, &newer), "{dirty}");
        for security in ["+deb13u1", "+b1", ".1"] {
            assert!(is_lower(&newer, &format!("{debian}{security}")), "{security}");
        }
    }

    #[test]
    fn a_newer_kernel_has_a_higher_release() {
        for suffix in ["", "-vm"] {
            let releases =
                ["6.12.118-promisc.9", "6.12.118-promisc.9.dirty", "6.12.118-promisc.10", "6.12.119-promisc.11"]
                    .map(|release| format!("{release}{suffix}"));
            let sorted = Command::new("sh")
                .args(["-c", "printf '%s\\n' \"$@\" | sort --version-sort --reverse", "-"])
                .args(&releases)
                .output()
                .unwrap();
            let sorted = String::from_utf8(sorted.stdout).unwrap();
            assert!(sorted.lines().rev().eq(&releases), "{sorted}");
            assert!(releases.windows(2).all(|pair| is_lower(&pair[0], &pair[1])), "{releases:?}");
        }
    }

    #[test]
    fn only_the_deployable_configurations_are_packaged() {
        for config in [Config::Vm, Config::Server] {
            require_deployable(config).unwrap();
        }
        for config in [Config::Test, Config::Debug, Config::Bench] {
            let error = require_deployable(config).unwrap_err().to_string();
            assert_eq!(error, format!("no packages are made of the configuration {config}: choose server or vm"));
        }
    }

    #[test]
    fn series_and_configurations_share_no_name() {
        let choice = |series: &str, config| Choice { series: series.into(), config };
        let choices = [("6.12", Config::Server), ("6.12", Config::Vm), ("7.3", Config::Server), ("7.3", Config::Vm)]
            .map(|(series, config)| choice(series, config));
        let names = choices.each_ref().map(metapackage);
        assert_eq!(names, ["xt-traffic-6.12", "xt-traffic-6.12-vm", "xt-traffic-7.3", "xt-traffic-7.3-vm"]);
        let names = choices.each_ref().map(linux_source);
        assert_eq!(names, ["linux-6.12-promisc", "linux-6.12-promisc-vm", "linux-7.3-promisc", "linux-7.3-promisc-vm"]);
    }

    #[test]
    fn headers_depend_on_the_compilers_of_the_kernel() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        fs::write(&file, "CONFIG_GCC_VERSION=140200\nCONFIG_RUSTC_VERSION=108501\n").unwrap();
        assert_eq!(
            compilers_of(&Settings::read(&[file]).unwrap()).unwrap(),
            "gcc (>= 4:14), gcc (<< 4:15), gcc-14, rustc (>= 1.85.1), rustc (<< 1.85.2~)"
        );
    }

    #[test]
    fn the_inputs_of_versions_exist() {
        let repo = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for input in [IPTABLES, LINUX, MODULES, XT_TRAFFIC, &version::SHARED_INPUTS].concat() {
            assert!(repo.join(input).exists(), "{input}");
        }
    }
}
