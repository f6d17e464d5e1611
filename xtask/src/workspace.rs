// SPDX-License-Identifier: GPL-2.0-only
//! The repository, the cache and its lock.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use std::{env, io, thread};

use anyhow::{Context, Result, ensure};
use fs_err::{self as fs, File};
use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use tempfile::TempDir;
use walkdir::WalkDir;

use crate::packages::version::History;
use crate::process;
use crate::sources::pins::Pins;
use crate::ui::Step;

/// The repository, the cache and the pins. Every command works with them.
pub struct Workspace {
    repo: PathBuf,
    cache: PathBuf,
    pins: Pins,
    history: OnceLock<History>,
}

/// The lock on the cache and on `target/`.
pub struct Lock(#[expect(dead_code, reason = "closing the file releases the lock")] File);

impl Workspace {
    /// Finds the repository and the cache, and reads the pins.
    pub fn open() -> Result<Self> {
        // Cargo sets the variable at run time. A binary that is started by hand uses the constant.
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .filter(|_| env::var_os("CARGO_PKG_NAME").is_some_and(|name| name == "xtask"))
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let repo = manifest.parent().context("xtask/ has no parent folder")?.to_owned();
        let pins = Pins::read(&manifest.join("pins.toml"))?;
        Ok(Self { repo, cache: vm_harness::cache_folder()?, pins, history: OnceLock::new() })
    }

    /// The same with other pins.
    pub fn with_pins(&self, pins: Pins) -> Self {
        Self { repo: self.repo.clone(), cache: self.cache.clone(), pins, history: self.history.clone() }
    }

    /// The repository's top folder.
    pub fn repo(&self) -> &Path {
        &self.repo
    }

    /// The cache folder.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The pins.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The history of the repository at the first call. Later calls return the same.
    ///
    /// # Errors
    /// In an archive of the source, which has no history.
    pub fn history(&self) -> Result<&History> {
        if let Some(history) = self.history.get() {
            return Ok(history);
        }
        let history = History::read(&self.repo).context("cannot read the history of the repository")?;
        Ok(self.history.get_or_init(|| history))
    }

    /// The commit that was checked out at the first call of [`history`](Self::history), followed by
    /// `+` if the work tree differed. An archive of the source has none.
    pub fn commit(&self) -> String {
        self.history().map_or_else(|_| "unknown".to_owned(), History::commit)
    }

    /// A path in the repository's `target` folder.
    pub fn target(&self, name: impl AsRef<Path>) -> PathBuf {
        self.repo.join("target").join(name)
    }

    /// Begins a step of work whose log is `target/log/LOG.log`.
    pub fn step(&self, log: &str, title: impl Into<String>) -> Result<Step> {
        Step::begin(&self.target("log").join(format!("{log}.log")), title)
    }

    /// Takes the lock that keeps two runs from making the same product, and removes the temporary
    /// files of a run that was killed.
    pub fn lock(&self) -> Result<Lock> {
        fs::create_dir_all(&self.cache)?;
        let path = self.cache.join("lock");
        let file = File::options().create(true).append(true).open(&path)?;
        // Children inherit the lock. If xtask is killed, the lock lasts until they have ended.
        fcntl_setfd(&file, FdFlags::empty()).with_context(|| format!("cannot share {}", path.display()))?;
        let mut announced = false;
        // A blocking flock() is restarted after a signal, so Ctrl-C would not end it.
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            ensure!(error == Errno::WOULDBLOCK, "cannot lock {}: {error}", path.display());
            if !announced {
                eprintln!("waiting for another cargo xtask");
                announced = true;
            }
            thread::sleep(Duration::from_millis(100));
            process::check()?;
        }
        remove_tree(&self.cache.join("tmp"))?;
        Ok(Lock(file))
    }

    /// A temporary folder in the cache, removed with the value. A rename from there into the cache
    /// is atomic.
    pub fn temporary(&self) -> Result<TempDir> {
        let tmp = self.cache.join("tmp");
        fs::create_dir_all(&tmp)?;
        tempfile::tempdir_in(&tmp).with_context(|| format!("cannot make a folder in {}", tmp.display()))
    }
}

/// The last component of a path, as text.
pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether a file's name begins with a dot.
pub fn is_hidden(path: &Path) -> bool {
    file_name(path).starts_with('.')
}

/// The visible files and folders in `folder`, sorted.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = entries.collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| !is_hidden(path));
    paths.sort();
    Ok(paths)
}

/// Moves a finished product from a temporary folder to its place in the cache.
pub fn keep(new: &Path, place: &Path) -> Result<()> {
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    Ok(fs::rename(new, place)?)
}

/// Removes a folder and its content, including folders without write permission. A folder that does
/// not exist is no error.
pub fn remove_tree(folder: &Path) -> Result<()> {
    let remove = || match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    if remove().is_ok() {
        return Ok(());
    }
    for entry in WalkDir::new(folder) {
        let entry = entry?;
        if entry.file_type().is_dir() {
            let mode = entry.metadata()?.permissions().mode();
            fs::set_permissions(entry.path(), PermissionsExt::from_mode(mode | 0o700))?;
        }
    }
    Ok(remove()?)
}

#[cfg(test)]
mod tests {
    use git2::{Repository, Signature, Time};

    use super::*;

    #[test]
    fn a_commit_during_a_run_does_not_change_its_history() {
        let folder = tempfile::tempdir().unwrap();
        let repo = Repository::init(folder.path()).unwrap();
        let commit = || {
            let tree = repo.find_tree(repo.treebuilder(None).unwrap().write().unwrap()).unwrap();
            let who = Signature::new("a", "a@b", &Time::new(10, 0)).unwrap();
            let parent = repo.head().ok().map(|head| head.peel_to_commit().unwrap());
            let parents: Vec<_> = parent.iter().collect();
            repo.commit(Some("HEAD"), &who, &who, "change", &tree, &parents).unwrap().to_string()
        };
        let pins = Pins::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("pins.toml")).unwrap();
        let (path, history) = (folder.path(), OnceLock::new());
        let ws = Workspace { repo: path.to_owned(), cache: path.to_owned(), pins, history };
        assert_eq!(ws.commit(), "unknown");
        let first = commit();
        assert_eq!(ws.commit(), first);
        assert_ne!(commit(), first);
        assert_eq!(ws.history().unwrap().commit(), first);
        assert_eq!(ws.with_pins(ws.pins.clone()).commit(), first);
    }

    #[test]
    fn a_tree_with_read_only_folders_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("top");
        fs::create_dir_all(top.join("sub")).unwrap();
        fs::write(top.join("sub/file"), "").unwrap();
        fs::set_permissions(top.join("sub"), PermissionsExt::from_mode(0o500)).unwrap();
        remove_tree(&top).unwrap();
        assert!(!top.exists());
        remove_tree(&top).unwrap();
    }
}
