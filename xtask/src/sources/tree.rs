// SPDX-License-Identifier: GPL-2.0-only
//! Pinned source trees in git: a base commit made of the tarball, the patches as commits on top of
//! it, and checkouts for the builds.
//!
//! A tree is a folder of the cache: `git` (a bare repository), `applied/` (the commit of each list
//! of patches that was applied before), and one folder per checkout. Checkouts are for builds only.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use fs_err::{self as fs, File, os::unix::fs::symlink};
use git2::build::CheckoutBuilder;
use git2::{Index, IndexEntry, IndexTime, ObjectType, Oid, Repository, Signature, Time};

use crate::process::{self, Running};
use crate::sources::fetch;
use crate::sources::patches::{self, Patch};
use crate::sources::pins::Download;
use crate::stamp::{Recipe, remove_if_exists, write_atomically};
use crate::ui::Step;
use crate::workspace::{Workspace, keep};

/// The mode of a plain file in git.
const PLAIN: u32 = 0o100_644;
/// The mode of an executable file in git.
const EXECUTABLE: u32 = 0o100_755;
/// The mode of a symbolic link in git.
const LINK: u32 = 0o120_000;

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

    fn prepare(ws: &Workspace, name: &str, source: &Download, patches: PathBuf) -> Result<Self> {
        let key = format!("{name}-{}-{}", source.version, &source.sha256[..8]);
        let folder = ws.cache().join("tree").join(key);
        if !folder.exists() {
            import(ws, source, &folder)?;
        }
        let git = folder.join("git");
        let repo = Repository::open_bare(&git).with_context(|| format!("cannot open {}", git.display()))?;
        let base = repo.refname_to_id("refs/heads/base").with_context(|| format!("{} has no base", git.display()))?;
        Ok(Self { folder, name: name.to_owned(), repo, base, patches })
    }

    /// The tree's name: `kernel-6.18`, `iptables`.
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
        Ok(self.commits()?.last().map_or(self.base, |(_, oid)| *oid))
    }

    /// The patch files and their commits.
    pub fn commits(&self) -> Result<Vec<(PathBuf, Oid)>> {
        let mut commits = Vec::new();
        let mut tip = self.base;
        let mut before = self.base.to_string();
        for file in patches::files(&self.patches)? {
            let stamp = Recipe::new("series").text("before", &before).file(&file)?.stamp();
            let record = self.folder.join("applied").join(stamp.as_str());
            let known = fs::read_to_string(&record).ok();
            let known = known.and_then(|text| Oid::from_str(text.trim()).ok());
            tip = match known.filter(|oid| self.repo.find_commit(*oid).is_ok()) {
                Some(oid) => oid,
                None => {
                    process::check()?;
                    let oid = Patch::read(&file)?.apply(&self.repo, tip)?;
                    write_atomically(&record, oid.to_string().as_bytes())?;
                    oid
                }
            };
            before = stamp.as_str().to_owned();
            commits.push((file, tip));
        }
        Ok(commits)
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
        let current = fs::read_to_string(&state).ok();
        let current = current.and_then(|text| Oid::from_str(text.trim()).ok());
        if current == Some(commit) {
            return Ok(folder);
        }
        remove_if_exists(&state)?;
        match current {
            Some(current) => self.update(&folder, current, commit),
            None => self.checkout_all(ws, &folder, commit),
        }
        .with_context(|| format!("cannot check out {}", folder.display()))?;
        write_atomically(&state, commit.to_string().as_bytes())?;
        Ok(folder)
    }

    /// Writes only the files that differ between two commits. libgit2's checkout would read all
    /// files.
    fn update(&self, folder: &Path, from: Oid, to: Oid) -> Result<()> {
        let tree = self.repo.find_commit(to)?.tree()?;
        for (path, _) in self.difference(from, to)? {
            let target = folder.join(&path);
            remove_if_exists(&target)?;
            let Ok(entry) = tree.get_path(&path) else {
                continue;
            };
            let blob = self.repo.find_blob(entry.id())?;
            write_file(&target, u32::try_from(entry.filemode())?, blob.content())?;
        }
        Ok(())
    }

    fn checkout_all(&self, ws: &Workspace, folder: &Path, commit: Oid) -> Result<()> {
        let title = format!("checking out {}", self.name);
        let step = ws.step(&format!("checkout-{}", self.name), title)?;
        let mut options = CheckoutBuilder::new();
        options.progress(|_, done, total| {
            step.set_total(total as u64);
            step.set_position(done as u64);
        });
        self.checkout_with(folder, commit, options)?;
        step.finish();
        Ok(())
    }

    /// Writes the files of `commit` to `folder`, which is not one of the tree's checkouts.
    pub fn write(&self, folder: &Path, commit: Oid) -> Result<()> {
        self.checkout_with(folder, commit, CheckoutBuilder::new())
            .with_context(|| format!("cannot write {} to {}", self.name, folder.display()))
    }

    fn checkout_with(&self, folder: &Path, to: Oid, mut how: CheckoutBuilder<'_>) -> Result<()> {
        fs::create_dir_all(folder)?;
        // The work folder is a property of the handle, so open another one.
        let repo = Repository::open_bare(self.repo.path())?;
        repo.set_workdir(folder, false)?;
        how.force().remove_untracked(true).update_index(false);
        let tree = repo.find_commit(to)?.tree()?;
        repo.checkout_tree(tree.as_object(), Some(&mut how))?;
        process::check()
    }

    /// Makes a repository to edit in `folder`, with the branches `base` and `series`; `series` is
    /// at `commit` and checked out. Its objects come from this repository, as an alternate.
    pub fn make_edit_tree(&self, step: &Step, folder: &Path, commit: Oid) -> Result<Repository> {
        let repo = Repository::init(folder)?;
        let alternates = format!("{}\n", self.repo.path().join("objects").display());
        fs::create_dir_all(repo.path().join("objects/info"))?;
        fs::write(repo.path().join("objects/info/alternates"), alternates)?;
        // libgit2 reads the alternates when it opens the repository.
        drop(repo);
        let repo = Repository::open(folder)?;
        repo.reference("refs/heads/base", self.base, true, "the pinned source")?;
        repo.reference("refs/heads/series", commit, true, "the patches")?;
        repo.set_head("refs/heads/series")?;
        let mut options = CheckoutBuilder::new();
        options.force().progress(|_, done, total| {
            step.set_total(total as u64);
            step.set_position(done as u64);
        });
        repo.checkout_head(Some(&mut options))?;
        drop(options);
        process::check()?;
        Ok(repo)
    }
}

/// An index entry without stat data.
pub fn index_entry(path: &[u8], id: Oid, mode: u32) -> IndexEntry {
    IndexEntry {
        ctime: IndexTime::new(0, 0),
        mtime: IndexTime::new(0, 0),
        dev: 0,
        ino: 0,
        mode,
        uid: 0,
        gid: 0,
        file_size: 0,
        id,
        flags: 0,
        flags_extended: 0,
        path: path.to_owned(),
    }
}

/// Unpacks the tarball of `source` into git and into the checkout `build`, in one pass.
fn import(ws: &Workspace, source: &Download, folder: &Path) -> Result<()> {
    let tarball = fetch::pinned(ws, source)?;
    let mut step = ws.step("import", format!("unpacking {} into git", source.file))?;
    let temporary = ws.temporary()?;
    let new = temporary.path().join("tree");
    let repo = Repository::init_bare(new.join("git")).context("cannot make a git repository")?;
    // The default compression takes three times as long and saves a fifth.
    repo.config()?.set_i32("core.looseCompression", 1)?;

    let base = unpack(&mut step, &repo, &tarball, &new.join("build"), source)
        .with_context(|| format!("cannot unpack {}", tarball.display()))?;
    repo.reference("refs/heads/base", base, true, "the pinned source")?;
    repo.set_head("refs/heads/base")?;
    write_atomically(&new.join("build.commit"), base.to_string().as_bytes())?;
    keep(&new, folder)?;
    step.finish();
    Ok(())
}

fn unpack(step: &mut Step, repo: &Repository, tarball: &Path, into: &Path, source: &Download) -> Result<Oid> {
    let packed = File::open(tarball)?;
    step.set_total_bytes(packed.metadata()?.len());
    let position = packed.try_clone()?;
    let mut command = Command::new("xz");
    command
        .args(["--decompress", "--stdout", "--threads=0"])
        .stdin(packed.into_parts().0)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut xz = Running::spawn(command)?;
    let stream = xz.take_stdout().context("xz has no output")?;
    let mut archive = tar::Archive::new(stream);
    let mut index = Index::new()?;
    let odb = repo.odb()?;
    for (count, entry) in archive.entries()?.enumerate() {
        if count % 256 == 0 {
            process::check()?;
            // xz reads through a duplicate of this descriptor, so the offset is its position.
            step.set_position(rustix::fs::tell(&position)?);
        }
        if let Some((path, mode, content)) = extract(entry?, into)? {
            let blob = odb.write(ObjectType::Blob, &content)?;
            index.add(&index_entry(path.as_os_str().as_encoded_bytes(), blob, mode))?;
        }
    }
    ensure!(xz.wait()?.success(), "xz cannot decompress it");
    ensure!(!index.is_empty(), "it contains no files");
    step.line("writing the commit");
    let tree = repo.find_tree(index.write_tree_to(repo)?)?;
    let author = Signature::new("xt_traffic", "xtask@invalid", &Time::new(BASE_TIME, 0))?;
    let message = format!("{}\n\nThe source as it was released, SHA-256 {}.\n", source.file, source.sha256);
    Ok(repo.commit(None, &author, &author, &message, &tree, &[])?)
}

/// Writes one file of the archive below `into`. Returns its path without the archive's top folder,
/// its git mode and its content; `None` for entries that git does not store.
fn extract(mut entry: tar::Entry<'_, impl Read>, into: &Path) -> Result<Option<(PathBuf, u32, Vec<u8>)>> {
    let path: PathBuf = entry.path()?.components().skip(1).collect();
    let plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    ensure!(plain, "it contains the invalid path {}", path.display());
    let target = into.join(&path);
    let kind = entry.header().entry_type();
    if kind.is_dir() {
        fs::create_dir_all(&target)?;
        return Ok(None);
    }
    if kind.is_pax_global_extensions() {
        return Ok(None);
    }
    let (mode, content) = if kind.is_symlink() {
        let link = entry.link_name_bytes().context("a link without a target")?;
        (LINK, link.into_owned())
    } else if kind.is_file() {
        let mut content = Vec::with_capacity(usize::try_from(entry.size())?);
        entry.read_to_end(&mut content)?;
        let executable = entry.header().mode()? & 0o100 != 0;
        (if executable { EXECUTABLE } else { PLAIN }, content)
    } else {
        bail!("it contains {}, which is not a file, folder or link", path.display());
    };
    write_file(&target, mode, &content)?;
    Ok(Some((path, mode, content)))
}

/// Writes a file or symbolic link with a git mode, and its parent folders.
fn write_file(target: &Path, mode: u32, content: &[u8]) -> Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if mode == LINK {
        symlink(OsStr::from_bytes(content), target)?;
        return Ok(());
    }
    fs::write(target, content)?;
    if mode == EXECUTABLE {
        fs::set_permissions(target, PermissionsExt::from_mode(0o755))?;
    }
    Ok(())
}
