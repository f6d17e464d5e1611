// SPDX-License-Identifier: GPL-2.0-only
//! Pinned source trees in git: a base commit made of the tarball, the patches as commits on top of
//! it, and checkouts for the builds.
//!
//! A tree is a folder of the cache: `git` (a bare repository), `applied/` (the commit of each list
//! of patches that was applied before), and one folder per checkout. Checkouts are for builds only.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use git2::build::CheckoutBuilder;
use git2::{IndexAddOption, Oid, Repository, Signature, Time};

use crate::process;
use crate::sources::fetch;
use crate::sources::patches::{self, Patch};
use crate::sources::pins::Download;
use crate::stamp::{Recipe, Stamp, remove_if_exists, write_atomically};
use crate::ui::Step;
use crate::workspace::{Workspace, file_name, keep, list};

/// The date of the base commits, 2026-01-01 00:00 UTC. A fixed date gives the same commit
/// everywhere.
const BASE_TIME: i64 = 1_767_225_600;

/// A pinned source tree.
pub struct Tree {
    folder: PathBuf,
    name: String,
    repo: Repository,
    base: Oid,
    patches: PathBuf,
}

/// A patch and its commit.
pub struct Applied {
    /// The patch file.
    pub file: PathBuf,
    /// The hash of the base, of the patches before this one, and of this patch.
    pub hash: Stamp,
    /// The commit.
    pub commit: Oid,
}

impl Tree {
    /// The tree of a kernel series.
    pub fn kernel(ws: &Workspace, series: &str) -> Result<Self> {
        let source = ws.pins().kernel_source(series)?;
        let patches = ws.repo().join("kernel-patches").join(series);
        Self::prepare(ws, &format!("kernel-{series}"), source, patches)
    }

    /// The tree of iptables.
    pub fn iptables(ws: &Workspace) -> Result<Self> {
        let source = &ws.pins().iptables;
        let patches = ws.repo().join("iptables-patches").join(&source.version);
        Self::prepare(ws, "iptables", source, patches)
    }

    /// Whether the source of a kernel series is in the cache, so that [`Tree::kernel`] is quick.
    pub fn has_kernel(ws: &Workspace, series: &str) -> Result<bool> {
        Ok(Self::folder(ws, &format!("kernel-{series}"), ws.pins().kernel_source(series)?).exists())
    }

    fn folder(ws: &Workspace, name: &str, source: &Download) -> PathBuf {
        ws.cache().join("tree").join(format!("{name}-{}-{}", source.version, &source.sha256[..8]))
    }

    fn prepare(ws: &Workspace, name: &str, source: &Download, patches: PathBuf) -> Result<Self> {
        let folder = Self::folder(ws, name, source);
        if !folder.exists() {
            import(ws, source, &folder)?;
        }
        let git = folder.join("git");
        let repo = Repository::open_bare(&git).with_context(|| format!("cannot open {}", git.display()))?;
        let base = repo.refname_to_id("refs/heads/base").with_context(|| format!("{} has no base", git.display()))?;
        Ok(Self { folder, name: name.to_owned(), repo, base, patches })
    }

    /// The tree's name: `kernel-6.12`, `iptables`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of its patch files in the repository.
    pub fn patches(&self) -> &Path {
        &self.patches
    }

    /// The commit of the unpatched source.
    pub fn base(&self) -> Oid {
        self.base
    }

    /// The bare repository with the commits.
    pub fn repo(&self) -> &Repository {
        &self.repo
    }

    /// The commit of the last patch. Patches that were applied before are not applied again.
    pub fn tip(&self) -> Result<Oid> {
        Ok(self.commits()?.last().map_or(self.base, |patch| patch.commit))
    }

    /// The patches as commits.
    pub fn commits(&self) -> Result<Vec<Applied>> {
        let mut commits = Vec::new();
        let (mut commit, mut before) = (self.base, self.base.to_string());
        for file in patches::files(&self.patches)? {
            // These hashes are in the committed files `checked`, so do not change their inputs.
            let content = patches::without_number(fs::read_to_string(&file)?);
            let recipe = Recipe::new("checked patch").text("before", &before);
            let hash = recipe.text(&file_name(&file), &content).stamp();
            let record = self.folder.join("applied").join(hash.as_str());
            commit = match read_oid(&record).filter(|oid| self.repo.find_commit(*oid).is_ok()) {
                Some(known) => known,
                None => {
                    process::check()?;
                    let new = Patch::read(&file)?.apply(&self.repo, commit)?;
                    write_atomically(&record, new.to_string().as_bytes())?;
                    new
                }
            };
            before = hash.as_str().to_owned();
            commits.push(Applied { file, hash, commit });
        }
        Ok(commits)
    }

    /// The archive of the unpatched source: `source` itself, or the archive in Debian's package. It
    /// is taken out of the package once.
    pub fn tarball(&self, ws: &Workspace, source: &Download) -> Result<PathBuf> {
        let file = fetch::pinned(ws, source)?;
        if !source.is_package() {
            return Ok(file);
        }
        let kept = self.folder.join("source.tar.xz");
        if !kept.exists() {
            let mut step = ws.step("tarball", format!("taking the source out of {}", source.file))?;
            let temporary = ws.temporary()?;
            keep(&tarball_in(&mut step, &file, &temporary.path().join("package"))?, &kept)?;
            step.finish();
        }
        Ok(kept)
    }

    /// The files that differ between the base and `commit`, with their content's hash.
    pub fn changed(&self, commit: Oid) -> Result<Vec<(PathBuf, Oid)>> {
        self.difference(self.base, commit)
    }

    fn difference(&self, from: Oid, to: Oid) -> Result<Vec<(PathBuf, Oid)>> {
        let from = self.repo.find_commit(from)?.tree()?;
        let to = self.repo.find_commit(to)?.tree()?;
        let diff = self.repo.diff_tree_to_tree(Some(&from), Some(&to), None)?;
        let files = diff.deltas().filter_map(|delta| {
            let file = delta.new_file();
            // For a file that was deleted git2 gives the path on both sides, and a hash of zeros.
            file.path().map(|path| (path.to_owned(), file.id()))
        });
        Ok(files.collect())
    }

    /// Checks out `commit` in the folder `name` of the tree. Files that do not change keep their
    /// modification time, so that make rebuilds only what depends on the others.
    pub fn checkout(&self, ws: &Workspace, name: &str, commit: Oid) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        let state = self.folder.join(format!("{name}.commit"));
        let current = read_oid(&state);
        if current == Some(commit) {
            return Ok(folder);
        }
        let mut step = ws.step(&format!("checkout-{}", self.name), format!("checking out {}", self.name))?;
        remove_if_exists(&state)?;
        let options = showing_progress(&mut step);
        match current {
            Some(current) => self.update(&folder, current, commit, options)?,
            None => self.checkout_with(&folder, commit, options)?,
        }
        write_atomically(&state, commit.to_string().as_bytes())?;
        step.finish();
        Ok(folder)
    }

    /// Writes only the files that differ between two commits. Without the list of paths, libgit2
    /// would read all files.
    fn update(&self, folder: &Path, from: Oid, to: Oid, mut options: CheckoutBuilder<'_>) -> Result<()> {
        let files = self.difference(from, to)?;
        if files.is_empty() {
            return Ok(());
        }
        // A file that was removed may be one that a .gitignore ignores.
        options.disable_pathspec_match(true).remove_ignored(true);
        for (path, _) in files {
            options.path(path);
        }
        self.checkout_with(folder, to, options)
    }

    /// Writes the files of `commit` to `folder`.
    pub fn write(&self, folder: &Path, commit: Oid) -> Result<()> {
        self.checkout_with(folder, commit, CheckoutBuilder::new())
    }

    fn checkout_with(&self, folder: &Path, to: Oid, mut how: CheckoutBuilder<'_>) -> Result<()> {
        fs::create_dir_all(folder)?;
        // The work folder is a property of the handle, so open another one.
        let repo = Repository::open_bare(self.repo.path())?;
        repo.set_workdir(folder, false)?;
        // The filters depend on the user's attributes.
        how.force().remove_untracked(true).update_index(false).disable_filters(true);
        repo.checkout_tree(&repo.find_object(to, None)?, Some(&mut how))
            .with_context(|| format!("cannot write {} to {}", self.name, folder.display()))?;
        process::check()
    }

    /// Makes a repository to edit in `folder`, with the branches `base` and `series`; `series` is
    /// at `commit` and checked out. Its objects come from this repository, as an alternate.
    pub fn make_edit_tree(&self, step: &mut Step, folder: &Path, commit: Oid) -> Result<Repository> {
        Repository::init(folder)?;
        add_alternate(folder, &self.repo)?;
        let repo = Repository::open(folder)?;
        repo.reference("refs/heads/base", self.base, true, "the pinned source")?;
        repo.reference("refs/heads/series", commit, true, "the patches")?;
        repo.set_head("refs/heads/series")?;
        repo.checkout_head(Some(showing_progress(step).force()))?;
        process::check()?;
        Ok(repo)
    }
}

/// Lets the repository at `folder` use the objects of another one. libgit2 reads the file when it
/// opens the repository.
pub fn add_alternate(folder: &Path, other: &Repository) -> Result<()> {
    let file = Repository::open(folder)?.path().join("objects/info/alternates");
    let mut text = fs::read_to_string(&file).unwrap_or_default();
    let line = format!("{}\n", other.path().join("objects").display());
    if !text.contains(&line) {
        text.push_str(&line);
        write_atomically(&file, text.as_bytes())?;
    }
    Ok(())
}

/// Options of a checkout whose progress `step` shows.
fn showing_progress(step: &mut Step) -> CheckoutBuilder<'_> {
    let mut options = CheckoutBuilder::new();
    options.progress(|path, done, total| {
        if done == 0 {
            step.set_total(total as u64);
        }
        step.set_position(done as u64);
        step.show(&path.unwrap_or(Path::new("")).to_string_lossy());
    });
    options
}

fn read_oid(file: &Path) -> Option<Oid> {
    Oid::from_str(fs::read_to_string(file).ok()?.trim()).ok()
}

/// Unpacks the tarball of `source` into the checkout `build`, and commits it.
fn import(ws: &Workspace, source: &Download, folder: &Path) -> Result<()> {
    let file = fetch::pinned(ws, source)?;
    let mut step = ws.step("import", format!("unpacking {} into git", source.file))?;
    let temporary = ws.temporary()?;
    let tarball = match source.is_package() {
        true => tarball_in(&mut step, &file, &temporary.path().join("package"))?,
        false => file,
    };
    let new = temporary.path().join("tree");
    unpack(&mut step, source, &tarball, &new)?;
    keep(&new, folder)?;
    step.finish();
    Ok(())
}

/// Unpacks Debian's package `linux-source-*` to `folder`. Returns the path of the tarball in it.
fn tarball_in(step: &mut Step, package: &Path, folder: &Path) -> Result<PathBuf> {
    let mut extract = Command::new("dpkg-deb");
    extract.arg("--extract").arg(package).arg(folder);
    step.run(extract)?;
    let sources = folder.join("usr/src");
    let mut files = list(&sources)?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "xz"));
    ensure!(files.len() == 1, "{} has {} tarballs in usr/src instead of one", package.display(), files.len());
    Ok(files.remove(0))
}

/// Makes the tree `new` of a tarball. Returns the base commit.
fn unpack(step: &mut Step, source: &Download, tarball: &Path, new: &Path) -> Result<Oid> {
    let build = new.join("build");
    fs::create_dir_all(&build)?;
    let mut unpack = Command::new("tar");
    unpack.args(["--extract", "--touch", "--no-same-owner", "--no-same-permissions", "--strip-components=1"]);
    unpack.arg("--directory").arg(&build).arg("--file").arg(tarball);
    // xz, if tar calls it, uses all processors.
    unpack.env("XZ_DEFAULTS", "--threads=0");
    step.run(unpack)?;

    let repo = Repository::init_bare(new.join("git")).context("cannot make a git repository")?;
    // The default compression takes three times as long and saves a fifth.
    repo.config()?.set_i32("core.looseCompression", 1)?;
    // The user's configuration and attributes must not change the files. This file has the highest
    // precedence: https://git-scm.com/docs/gitattributes
    let attributes = "* -text -ident -filter -working-tree-encoding\n";
    write_atomically(&repo.path().join("info/attributes"), attributes.as_bytes())?;
    repo.set_workdir(&build, false)?;
    let mut index = repo.index()?;
    let mut stop = |_: &Path, _: &[u8]| -i32::from(process::interrupted());
    index.add_all(["*"], IndexAddOption::FORCE, Some(&mut stop))?;
    let tree = repo.find_tree(index.write_tree()?)?;
    let author = Signature::new("xt_traffic", "xtask@invalid", &Time::new(BASE_TIME, 0))?;
    let message = format!("{}\n\nThe source as it was released, SHA-256 {}.\n", source.file, source.sha256);
    let base = repo.commit(Some("refs/heads/base"), &author, &author, &message, &tree, &[])?;
    repo.set_head("refs/heads/base")?;
    write_atomically(&new.join("build.commit"), base.to_string().as_bytes())?;
    Ok(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_changes_only_the_files_that_differ() {
        let temporary = tempfile::tempdir().unwrap();
        let repo = Repository::init_bare(temporary.path().join("git")).unwrap();
        let who = Signature::new("t", "t@example.org", &Time::new(1, 0)).unwrap();
        let commit = |files: &[(&str, &str, i32)]| {
            let mut index = repo.treebuilder(None).unwrap();
            for (name, text, mode) in files {
                let mut folder = repo.treebuilder(None).unwrap();
                folder.insert("x", repo.blob(text.as_bytes()).unwrap(), *mode).unwrap();
                index.insert(name, folder.write().unwrap(), 0o040_000).unwrap();
            }
            let tree = repo.find_tree(index.write().unwrap()).unwrap();
            repo.commit(None, &who, &who, "", &tree, &[]).unwrap()
        };
        let base = commit(&[("same", "1", 0o100_644), ("changed", "1", 0o100_755), ("removed", "1", 0o100_644)]);
        let new = commit(&[("same", "1", 0o100_644), ("changed", "2", 0o100_755), ("link", "../same/x", 0o120_000)]);
        let repo = Repository::open_bare(repo.path()).unwrap();
        let tree = Tree { folder: PathBuf::new(), name: "t".into(), repo, base, patches: PathBuf::new() };

        let folder = temporary.path().join("checkout");
        tree.write(&folder, base).unwrap();
        fs::write(folder.join("object"), "made by a build").unwrap();
        fs::write(folder.join(".gitignore"), "x\n").unwrap();
        let time = |name: &str| fs::metadata(folder.join(name)).unwrap().modified().unwrap();
        let before = time("same/x");
        for (from, to, content, removed) in [(base, new, "2", "removed/x"), (new, base, "1", "link/x")] {
            tree.update(&folder, from, to, CheckoutBuilder::new()).unwrap();
            assert_eq!(fs::read_to_string(folder.join("changed/x")).unwrap(), content);
            assert!(!folder.join(removed).exists());
            assert!(folder.join("same/x").exists() && folder.join("object").exists());
            assert_eq!(time("same/x"), before);
            let link = fs::read_link(folder.join("link/x")).ok();
            assert_eq!(link.is_some(), to == new);
        }
    }

    #[test]
    fn a_tarball_becomes_a_commit_with_the_same_files() {
        let temporary = tempfile::tempdir().unwrap();
        let tarball = temporary.path().join("source.tar");
        let mut archive = tar::Builder::new(fs::File::create(&tarball).unwrap());
        for (path, mode, text) in [
            (".gitattributes", 0o644, "* text ident\n"),
            (".gitignore", 0o644, "ignored\n"),
            ("ignored", 0o644, "$Id$\n"),
            ("dos", 0o644, "a\r\n"),
            ("sub/run", 0o755, "#!/bin/sh\n"),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_mode(mode);
            header.set_size(text.len() as u64);
            archive.append_data(&mut header, format!("top/{path}"), text.as_bytes()).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, "top/link", "sub/run").unwrap();
        archive.finish().unwrap();

        let mut step = Step::begin(&temporary.path().join("log"), "test").unwrap();
        let [version, file, sha256] = ["1", "source.tar", "0"].map(String::from);
        let source = Download { version, file, sha256, size: 0, paths: Vec::new(), snapshot: None };
        let new = temporary.path().join("tree");
        let base = unpack(&mut step, &source, &tarball, &new).unwrap();
        let repo = Repository::open_bare(new.join("git")).unwrap();
        let tree = repo.find_commit(base).unwrap().tree_id();
        assert_eq!(tree.to_string(), "3dffb4c40cd7fb90fc0d72c3a5fc58eb626069b1");
        fs::write(repo.path().join("info/attributes"), "* ident\n").unwrap();
        let tree = Tree { folder: new, name: "t".into(), repo, base, patches: PathBuf::new() };
        let folder = temporary.path().join("checkout");
        tree.write(&folder, base).unwrap();
        assert_eq!(fs::read_to_string(folder.join("dos")).unwrap(), "a\r\n");
        assert_eq!(fs::read_to_string(folder.join("ignored")).unwrap(), "$Id$\n");
    }
}
