// SPDX-License-Identifier: GPL-2.0
//! Where everything is: the repository, the cache and its lock.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use tempfile::TempDir;

use crate::{pins::Pins, process, ui::Step};

/// The repository, the cache and the pins: what every command works with.
pub struct Workshop {
    repo: PathBuf,
    cache: PathBuf,
    pins: Pins,
}

/// Held while something is made in the cache or in `target/`.
pub struct Lock(#[expect(dead_code, reason = "closing the file releases the lock")] File);

impl Workshop {
    /// Finds the repository and the cache, and reads the pins.
    pub fn open() -> Result<Self> {
        // Cargo sets the variable at run time; the constant serves a binary that is started by hand.
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .filter(|_| env::var_os("CARGO_PKG_NAME").is_some_and(|name| name == "xtask"))
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let repo = manifest.parent().context("xtask lies in no repository")?.to_owned();
        let pins = Pins::read(&manifest.join("pins.toml"))?;
        let cache = cache_folder()?;
        Ok(Self { repo, cache, pins })
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

    /// A path in the repository's `target` folder.
    pub fn target(&self, name: impl AsRef<Path>) -> PathBuf {
        self.repo.join("target").join(name)
    }

    /// Begins a step of work, with a log file called after `log`.
    pub fn step(&self, log: &str, title: impl Into<String>) -> Result<Step> {
        Step::begin(&self.target("log").join(format!("{log}.log")), title)
    }

    /// Takes the lock that keeps two runs from making the same thing, and clears away what a killed
    /// run has left behind.
    pub fn lock(&self) -> Result<Lock> {
        fs::create_dir_all(&self.cache).with_context(|| format!("cannot make {}", self.cache.display()))?;
        let path = self.cache.join("lock");
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        // Children inherit the lock: when we are killed, it lasts until they have gone too.
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())
            .with_context(|| format!("cannot share {}", path.display()))?;
        let mut told = false;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) => {}
                Err(error) => bail!("cannot lock {}: {error}", path.display()),
            }
            if !told {
                eprintln!("waiting for another cargo xtask");
                told = true;
            }
            // A blocking flock() is restarted after a signal, so Ctrl-C would not end it.
            thread::sleep(Duration::from_millis(100));
            process::check()?;
        }
        self.clear_temporary()?;
        Ok(Lock(file))
    }

    fn clear_temporary(&self) -> Result<()> {
        let tmp = self.cache.join("tmp");
        if tmp.exists() {
            remove_tree(&tmp)?;
        }
        Ok(())
    }

    /// A temporary folder in the cache: what is made in it can be renamed to its place when it is
    /// whole. It goes away with the value.
    pub fn temporary(&self) -> Result<TempDir> {
        let tmp = self.cache.join("tmp");
        fs::create_dir_all(&tmp)
            .and_then(|()| tempfile::tempdir_in(&tmp))
            .with_context(|| format!("cannot make a folder in {}", tmp.display()))
    }
}

fn cache_folder() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(base.join("xt-traffic"))
}

/// The last part of a path, as text.
pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Removes a folder with everything in it, also where a folder in it may not be written.
pub fn remove_tree(folder: &Path) -> Result<()> {
    let remove = || match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    remove()
        .or_else(|_| {
            make_writable(folder)?;
            remove()
        })
        .with_context(|| format!("cannot remove {}", folder.display()))
}

fn make_writable(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::symlink_metadata(folder)?.permissions().mode();
    fs::set_permissions(folder, fs::Permissions::from_mode(mode | 0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_tree_with_read_only_folders_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("top");
        fs::create_dir_all(top.join("sub")).unwrap();
        fs::write(top.join("sub/file"), "").unwrap();
        fs::set_permissions(top.join("sub"), fs::Permissions::from_mode(0o500)).unwrap();
        remove_tree(&top).unwrap();
        assert!(!top.exists());
        remove_tree(&top).unwrap();
    }
}
