// SPDX-License-Identifier: GPL-2.0-only
//! A source package: a folder with a `debian/` in it, which `dpkg-buildpackage` makes binary packages of.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::{PackageBuilder, version::Revision};
use crate::{
    builds::sandbox::{Sandbox, jobs},
    stamp::{Recipe, Stamp, remove_if_exists, write_atomically},
    ui::Step,
    workspace::{file_name, remove_tree},
};

/// Who answers for the packages.
const MAINTAINER: &str = "xt_traffic maintainers <xt-traffic@xt-traffic.invalid>";
/// How many builds of a package the cache keeps: of this commit and of the next, and those before.
const KEPT: usize = 4;
/// The folders of the packages, from the top of the repository.
const FOLDERS: &str = "xtask/deb";

/// What is to be built.
pub struct Source<'a> {
    /// Its folder below `xtask/deb`.
    pub folder: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The part of the version before the revision's number, dash included.
    pub base: &'a str,
    /// The rest of the version, and the date.
    pub revision: Revision,
    /// What `@WORD@` stands for in names and contents of the files of the folder.
    pub words: &'a [(&'a str, &'a str)],
    /// What lies beside `debian/` was made from this, and so was what the sandbox shows.
    pub made_from: &'a [&'a Stamp],
    /// The sandbox to build in, without its folder `/out`.
    pub sandbox: Sandbox,
}

/// What was built.
pub struct Built {
    /// The version of all its binary packages.
    pub version: String,
    /// Their files.
    pub files: Vec<PathBuf>,
    /// What they were made from.
    pub stamp: Stamp,
}

impl Built {
    /// The file of the binary package `name`.
    pub fn file(&self, name: &str) -> Result<&Path> {
        let is_it = |file: &&PathBuf| file_name(file).split('_').next() == Some(name);
        self.files.iter().find(is_it).map(PathBuf::as_path).with_context(|| format!("{name} was not built"))
    }
}

impl Source<'_> {
    fn version(&self) -> String {
        format!("{}{}", self.base, self.revision.number())
    }

    fn changelog(&self, builder: &PackageBuilder<'_>) -> String {
        self.revision.changelog(self.name, self.base, &builder.ws.pins().suite, MAINTAINER)
    }

    /// Builds the package when it is not in the cache, and copies it to the builder's folder. `fill` puts what
    /// lies beside `debian/` into the folder that it is given.
    pub fn build(&self, builder: &PackageBuilder<'_>, fill: impl FnOnce(&Path) -> Result<()>) -> Result<Built> {
        let stamp = self.stamp(builder)?;
        let shelf = builder.ws.cache().join("deb").join(self.name);
        let kept = shelf.join(stamp.short());
        if !kept.exists() {
            make_room(&shelf)?;
            self.make(builder, fill, &kept)?;
        }
        let files = self.hand_out(&kept, builder.folder)?;
        Ok(Built { version: self.version(), files, stamp })
    }

    /// Copies the packages in `kept` to `folder`, in the place of those of the last time.
    fn hand_out(&self, kept: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
        let problem = || format!("cannot put packages into {}", folder.display());
        fs::create_dir_all(folder).with_context(problem)?;
        let list = folder.join(format!(".{}", self.name));
        let names = packages_in(kept)?;
        for old in fs::read_to_string(&list).unwrap_or_default().lines().filter(|old| !names.iter().any(|n| n == old)) {
            remove_if_exists(&folder.join(old))?;
        }
        for name in &names {
            fs::copy(kept.join(name), folder.join(name)).with_context(problem)?;
        }
        write_atomically(&list, names.join("\n").as_bytes())?;
        Ok(names.iter().map(|name| folder.join(name)).collect())
    }

    fn stamp(&self, builder: &PackageBuilder<'_>) -> Result<Stamp> {
        let mut recipe = Recipe::new("package 1")
            .text("root", builder.root.stamp().as_str())
            .text("changelog", &self.changelog(builder))
            .folder(&builder.ws.repo().join(FOLDERS).join(self.folder))?;
        for (word, value) in self.words {
            recipe = recipe.text(word, value);
        }
        for stamp in self.made_from {
            recipe = recipe.text("made from", stamp.as_str());
        }
        Ok(recipe.stamp())
    }

    fn make(&self, builder: &PackageBuilder<'_>, fill: impl FnOnce(&Path) -> Result<()>, kept: &Path) -> Result<()> {
        let title = format!("packing {} {}", self.name, self.version());
        let mut step = builder.ws.step(&format!("deb-{}", self.name), title)?;
        let out = builder.ws.temporary()?;
        let source = out.path().join("source");
        fs::create_dir(&source).with_context(|| format!("cannot make {}", source.display()))?;
        fill(&source)?;
        copy_tree(&builder.ws.repo().join(FOLDERS).join(self.folder), &source.join("debian"), self.words)?;
        write_atomically(&source.join("debian/changelog"), self.changelog(builder).as_bytes())?;
        let sandbox = self.sandbox.clone().bind_rw(out.path(), "out");
        let jobs = jobs();
        // Nobody is helped by packages with debugging symbols of what he can build himself.
        let words =
            ["env", "DEB_BUILD_OPTIONS=noautodbgsym", "dpkg-buildpackage", "--build=binary", "--no-sign", &jobs];
        step.run(sandbox.command("out/source", &words))?;
        lint(&mut step, &sandbox)?;
        remove_tree(&source)?;
        ensure!(!packages_in(out.path())?.is_empty(), "dpkg-buildpackage has made no package of {}", self.name);
        fs::create_dir_all(kept.parent().unwrap_or(kept))
            .and_then(|()| fs::rename(out.keep(), kept))
            .with_context(|| format!("cannot keep {}", kept.display()))?;
        step.finish();
        Ok(())
    }
}

/// Has lintian look at the packages in `/out`; an error when it finds an error or a reason for a warning.
fn lint(step: &mut Step, sandbox: &Sandbox) -> Result<()> {
    // They are not for Debian's archive, where the first upload answers somebody's wish for the package.
    let suppressed = "initial-upload-closes-no-bugs";
    let script = format!("lintian --allow-root --fail-on=error,warning --suppress-tags={suppressed} /out/*.deb");
    step.run(sandbox.command("out", &["sh", "-c", &script]))
}

/// Copies a folder, with values in the place of `@WORD@` in names and texts.
pub fn copy_tree(from: &Path, to: &Path, words: &[(&str, &str)]) -> Result<()> {
    let replace = |text: &str| {
        let one = |text: String, (word, value): &(&str, &str)| text.replace(&format!("@{word}@"), value);
        words.iter().fold(text.to_owned(), one)
    };
    let problem = || format!("cannot copy {}", from.display());
    fs::create_dir_all(to).with_context(problem)?;
    for entry in fs::read_dir(from).with_context(problem)? {
        let path = entry.with_context(problem)?.path();
        let target = to.join(replace(&file_name(&path)));
        if path.is_dir() {
            copy_tree(&path, &target, words)?;
            continue;
        }
        // With its permissions first; what is no text has no words.
        fs::copy(&path, &target).with_context(|| format!("cannot copy {}", path.display()))?;
        if let Ok(text) = fs::read_to_string(&path) {
            fs::write(&target, replace(&text)).with_context(|| format!("cannot write {}", target.display()))?;
        }
    }
    Ok(())
}

/// The names of the packages in a folder.
fn packages_in(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        if path.extension() == Some(OsStr::new("deb")) {
            names.push(file_name(&path));
        }
    }
    names.sort();
    Ok(names)
}

/// Removes all but the latest of what the cache keeps of a package.
fn make_room(shelf: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(shelf) else {
        return Ok(());
    };
    let mut kept = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", shelf.display()))?;
        kept.push((entry.metadata()?.modified()?, entry.path()));
    }
    kept.sort();
    kept.iter().rev().skip(KEPT - 1).try_for_each(|(_, folder)| remove_tree(folder))
}
