// SPDX-License-Identifier: GPL-2.0-only
//! Source packages: a folder with a `debian/` from which `dpkg-buildpackage` builds binary
//! packages, and the files for `apt-get source`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use walkdir::WalkDir;

use super::PackageBuilder;
use crate::builds::sandbox::{Sandbox, jobs};
use crate::sources::patches;
use crate::stamp::{Recipe, Stamp, remove_if_exists, write_atomically};
use crate::ui::Step;
use crate::workspace::{file_name, keep, list, remove_tree};

const MAINTAINER: &str = "xt_traffic maintainers <xt-traffic@xt-traffic.invalid>";
/// The number of builds of a package that the cache keeps. Tests of upgrades need two of one
/// commit.
const KEPT: usize = 4;
/// The folder of the templates, relative to the repository.
const TEMPLATES: &str = "xtask/deb";

/// A source package and how to build it.
pub struct SourcePackage<'a> {
    /// The folder of its templates in `xtask/deb`; they become `debian/`.
    pub folder: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The version without its last part, which is the number of the changelog.
    pub version_prefix: &'a str,
    /// The files and folders whose history makes the changelog, other than the templates (see
    /// [`History::changelog`](super::version::History::changelog)).
    pub version_inputs: &'a [&'a str],
    /// The placeholders in names and contents of the templates, without the `@` on both sides, and
    /// their values.
    pub placeholders: &'a [(&'a str, &'a str)],
    /// The stamps of all other inputs of the build.
    pub inputs: &'a [&'a Stamp],
    /// What its source is.
    pub origin: Origin<'a>,
    /// The build profile, for rules that take inputs from elsewhere than the source package. It can
    /// be empty. <https://wiki.debian.org/BuildProfileSpec>
    pub profile: &'a str,
    /// The sandbox for the build. `/out` is added to it.
    pub sandbox: Sandbox,
}

/// The source of a package.
pub enum Origin<'a> {
    /// Files of this repository. The source package is one archive of them and `debian/`.
    Native,
    /// A release of another project, with patches.
    Patched(Patched<'a>),
}

/// A release of another project, with patches. The source package has the release's archive as it
/// was downloaded. `debian/patches` has the patches.
pub struct Patched<'a> {
    /// The archive.
    pub tarball: PathBuf,
    /// The folder with the patches.
    pub patches: &'a Path,
    /// The folder with the patched source that the binary packages are built from. The source
    /// package must unpack to the same files.
    pub tree: PathBuf,
    /// The hash of what is in `tree`.
    pub stamp: Stamp,
    /// The kernel's configuration, for `debian/config`.
    pub config: Option<PathBuf>,
}

/// The binary packages of a source package.
pub struct Built {
    /// The name of the source package.
    pub name: String,
    /// The folder in the cache with the binary packages and the source package.
    pub folder: PathBuf,
    /// Their version.
    pub version: String,
    /// Their files.
    pub files: Vec<PathBuf>,
    /// The hash of their inputs.
    pub stamp: Stamp,
}

impl SourcePackage<'_> {
    /// Builds the package unless the cache has it, and copies it to the builder's folder.
    /// `write_sources` writes the files other than `debian/` to the folder that it is given.
    pub fn build(&self, builder: &PackageBuilder<'_>, write_sources: impl Fn(&Path) -> Result<()>) -> Result<Built> {
        let ws = builder.ws;
        let folder = format!("{TEMPLATES}/{}", self.folder);
        let changelog = ws.history()?.changelog(&folder, self.version_inputs, builder.test_entries)?;
        let version = format!("{}{}", self.version_prefix, changelog.number());
        let changelog = changelog.text(self.name, self.version_prefix, &ws.pins().suite, MAINTAINER);
        let templates = ws.repo().join(folder);
        let mut recipe = Recipe::new("package 2")
            .text("root", builder.package_root.stamp().as_str())
            .text("changelog", &changelog)
            .folder(&templates)?;
        for (placeholder, value) in self.placeholders {
            recipe = recipe.text(placeholder, value);
        }
        if let Origin::Patched(patched) = &self.origin {
            recipe = recipe.folder(patched.patches)?.text("source", patched.stamp.as_str());
        }
        let stamp = self.inputs.iter().fold(recipe, |recipe, input| recipe.text("input", input.as_str())).stamp();
        let builds = ws.cache().join("deb").join(self.name);
        let build = builds.join(stamp.short());
        if !build.exists() {
            remove_old_builds(&builds)?;
            let mut step = ws.step(&format!("deb-{}", self.name), format!("packing {} {version}", self.name))?;
            let out = ws.temporary()?;
            let source = out.path().join("source");
            fs::create_dir(&source)?;
            write_sources(&source)?;
            copy_tree(&templates, &source.join("debian"), self.placeholders)?;
            write_atomically(&source.join("debian/changelog"), changelog.as_bytes())?;
            self.make_source_package(builder, &mut step, out.path(), &version)?;
            self.run_dpkg(&mut step, out.path())?;
            remove_tree(&source)?;
            keep(&out.keep(), &build)?;
            step.finish();
        }
        let files = publish(self.name, &packages_in(&build)?, builder.folder)?;
        let sources = if builder.extras.sources { sources_in(&build)? } else { Vec::new() };
        publish(&format!("{}-source", self.name), &sources, builder.folder)?;
        Ok(Built { name: self.name.to_owned(), folder: build, version, files, stamp })
    }

    /// Makes the source package in `out`, where the folder `source` has what the binary packages
    /// are built from.
    fn make_source_package(
        &self,
        builder: &PackageBuilder<'_>,
        step: &mut Step,
        out: &Path,
        version: &str,
    ) -> Result<()> {
        let sandbox = builder.package_root.sandbox().bind_rw(out, "out");
        match &self.origin {
            Origin::Native => step.run(sandbox.command("out", &["dpkg-source", "--build", "source"])),
            Origin::Patched(patched) => {
                patched.write(&sandbox, step, out, self.name, version)?;
                let recipe = Recipe::new("comparison of sources 1")
                    .text("source", patched.stamp.as_str())
                    .text("tarball", &file_name(&patched.tarball))
                    .folder(patched.patches)?;
                let stamp_file = builder.ws.cache().join("deb").join(format!("{}.compared", self.name));
                let compare = || patched.compare(builder, step, out, &format!("{}_{version}.dsc", self.name));
                recipe.stamp().make(&stamp_file, out, compare)
            }
        }
    }

    /// Builds and checks the packages of the folder `source` in `out`.
    fn run_dpkg(&self, step: &mut Step, out: &Path) -> Result<()> {
        let sandbox = self.sandbox.clone().bind_rw(out, "out");
        let jobs = jobs();
        // No -dbgsym packages: everything can be rebuilt.
        // https://manpages.debian.org/trixie/debhelper/debhelper.7.en.html
        let profiles = format!("DEB_BUILD_PROFILES={}", self.profile);
        let environment = ["env", "DEB_BUILD_OPTIONS=noautodbgsym", &profiles];
        let words = [&environment[..], &["dpkg-buildpackage", "--build=binary", "--no-sign", &jobs]].concat();
        step.run(sandbox.command("out/source", &words))?;
        ensure!(!packages_in(out)?.is_empty(), "dpkg-buildpackage did not build a package of {}", self.name);
        // Errors and warnings of lintian are errors. The suppressed tag is for the first upload to
        // Debian's archive, which must close a bug.
        let lintian = "lintian --allow-root --fail-on=error,warning \
                       --suppress-tags=initial-upload-closes-no-bugs /out/*.deb";
        step.run(sandbox.command("out", &["sh", "-c", lintian]))
    }
}

impl Patched<'_> {
    /// Writes the source package to `out`. dpkg-source does not unpack or compress the release: it
    /// writes the description of given files (`3.0 (custom)` in dpkg-source(1)).
    fn write(&self, sandbox: &Sandbox, step: &mut Step, out: &Path, name: &str, version: &str) -> Result<()> {
        let (upstream, _) = version.rsplit_once('-').context("the version has no revision")?;
        let orig = format!("{name}_{upstream}.orig.tar.xz");
        link_or_copy(&self.tarball, &out.join(&orig))?;
        let debian = out.join("description/debian");
        copy_tree(&out.join("source/debian"), &debian, &[])?;
        let patches = patches::files(self.patches)?;
        fs::create_dir(debian.join("patches"))?;
        for patch in &patches {
            fs::copy(patch, debian.join("patches").join(file_name(patch)))?;
        }
        let series: String = patches.iter().map(|patch| file_name(patch) + "\n").collect();
        fs::write(debian.join("patches/series"), series)?;
        if let Some(config) = &self.config {
            fs::copy(config, debian.join("config"))?;
        }
        let script = "
            time=$(dpkg-parsechangelog --file description/debian/changelog --show-field Timestamp)
            tar --directory=description --create --sort=name --owner=0 --group=0 --numeric-owner \
                --mode=u=rwX,go=rX --mtime=@$time debian | xz --threads=1 >\"$2\"
            dpkg-source --format='3.0 (custom)' --target-format='3.0 (quilt)' --build description \"$1\" \"$2\"";
        let packaging = format!("{name}_{version}.debian.tar.xz");
        step.run(sandbox.command("out", &["bash", "-euo", "pipefail", "-c", script, "-", &orig, &packaging]))?;
        remove_tree(&out.join("description"))
    }

    /// Fails if the source package does not unpack to the source that was built.
    fn compare(&self, builder: &PackageBuilder<'_>, step: &mut Step, out: &Path, description: &str) -> Result<()> {
        let sandbox = builder.package_root.sandbox().bind_rw(out, "out").bind_ro(&self.tree, "src");
        let script = "dpkg-source --no-check --extract \"$1\" unpacked
            rm -r unpacked/debian unpacked/.pc
            diff --recursive --brief --no-dereference /src unpacked
            rm -r unpacked";
        step.run(sandbox.command("out", &["sh", "-euc", script, "-", description]))
            .context("the source package does not have the source that was built")
    }
}

/// Copies files to `folder` and removes those that an earlier call with the same `name` copied
/// there. Returns the copies.
pub fn publish(name: &str, files: &[PathBuf], folder: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder)?;
    let list_file = folder.join(format!(".{name}"));
    for old in fs::read_to_string(&list_file).unwrap_or_default().lines() {
        remove_if_exists(&folder.join(old))?;
    }
    let names: Vec<_> = files.iter().map(|file| file_name(file)).collect();
    write_atomically(&list_file, names.join("\n").as_bytes())?;
    let copies = names.iter().map(|name| folder.join(name));
    files.iter().zip(copies).map(|(file, copy)| link_or_copy(file, &copy).map(|()| copy)).collect()
}

/// Makes a hard link, or a copy on another file system. The archive of a kernel's source is large.
fn link_or_copy(file: &Path, copy: &Path) -> Result<()> {
    remove_if_exists(copy)?;
    fs::hard_link(file, copy).or_else(|_| fs::copy(file, copy).map(drop)).map_err(Into::into)
}

/// Copies a folder. Replaces placeholders, such as `@RELEASE@`, in names and in text files.
pub fn copy_tree(from: &Path, to: &Path, placeholders: &[(&str, &str)]) -> Result<()> {
    let replace = |text: &str| {
        placeholders.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value))
    };
    for entry in WalkDir::new(from) {
        let entry = entry?;
        let target = to.join(replace(&entry.path().strip_prefix(from)?.to_string_lossy()));
        if entry.file_type().is_dir() {
            fs::create_dir_all(&target)?;
            continue;
        }
        // fs::copy also copies the permissions.
        fs::copy(entry.path(), &target)?;
        if let Ok(text) = fs::read_to_string(&target) {
            fs::write(&target, replace(&text))?;
        }
    }
    Ok(())
}

/// The binary packages in a folder, sorted.
pub fn packages_in(folder: &Path) -> Result<Vec<PathBuf>> {
    files_in(folder, &["deb"])
}

/// The descriptions of source packages in a folder, sorted.
pub fn descriptions_in(folder: &Path) -> Result<Vec<PathBuf>> {
    files_in(folder, &["dsc"])
}

/// The files of source packages in a folder, sorted.
pub fn sources_in(folder: &Path) -> Result<Vec<PathBuf>> {
    files_in(folder, &["dsc", "xz"])
}

fn files_in(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut files = list(folder)?;
    files.retain(|file| file.extension().and_then(OsStr::to_str).is_some_and(|found| extensions.contains(&found)));
    Ok(files)
}

/// Makes room for one more build of a package: removes the oldest.
pub fn remove_old_builds(builds: &Path) -> Result<()> {
    fs::create_dir_all(builds)?;
    let mut kept = list(builds)?;
    kept.sort_by_cached_key(|build| fs::metadata(build).and_then(|metadata| metadata.modified()).ok());
    kept.iter().rev().skip(KEPT - 1).try_for_each(|build| remove_tree(build))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_replaced_in_names_and_texts() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("sub")).unwrap();
        fs::write(from.join("sub/image-@RELEASE@.install"), "boot/@RELEASE@ @OTHER@\n").unwrap();
        fs::write(from.join("binary"), b"@RELEASE@\xff").unwrap();
        copy_tree(&from, &to, &[("RELEASE", "6.12")]).unwrap();
        assert_eq!(fs::read_to_string(to.join("sub/image-6.12.install")).unwrap(), "boot/6.12 @OTHER@\n");
        assert_eq!(fs::read(to.join("binary")).unwrap(), b"@RELEASE@\xff");
    }

    #[test]
    fn published_packages_replace_those_of_the_last_build() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let packages = ["a_1.deb", "b_1.deb", "a_2.deb"].map(path);
        packages.iter().for_each(|package| fs::write(package, "").unwrap());
        let out = path("out");
        publish("a", &packages[..1], &out).unwrap();
        publish("b", &packages[1..2], &out).unwrap();
        assert_eq!(publish("a", &packages[2..], &out).unwrap(), [out.join("a_2.deb")]);
        assert_eq!(packages_in(&out).unwrap(), [out.join("a_2.deb"), out.join("b_1.deb")]);
    }
}
