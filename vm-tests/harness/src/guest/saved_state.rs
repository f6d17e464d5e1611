// SPDX-License-Identifier: GPL-2.0-only
//! Saved states of booted guests. A debug kernel without KVM boots for many seconds and always ends
//! in the same state, so each kind of guest boots once: its memory stays in a file, the state of
//! its devices in another. Each guest then maps the memory privately and resumes from there.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use rustix::fs::{FlockOperation, flock, statvfs};

use crate::cache_folder;

/// How many states are kept. One takes 100 to 300 MB. For each of two kernel series, the tests need
/// five and the benchmark one.
const KEPT: usize = 12;

/// The prefix of folders with an incomplete state.
const UNFINISHED: &str = "unfinished-";

/// The memory and the devices of a booted guest on disk.
#[derive(Clone, Debug)]
pub(super) struct SavedState {
    folder: PathBuf,
}

impl SavedState {
    /// Finds the state of guests with this identity. If there is none, `make` makes it.
    /// `memory_mib` is the guest's memory.
    pub(super) fn find_or_make(
        identity: &str,
        memory_mib: u32,
        make: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<Self> {
        let states = cache_folder()?.join("guests");
        fs::create_dir_all(&states)?;
        let state = Self { folder: states.join(short(identity)) };
        // The first process makes the state, the others wait. Closing the file unlocks it.
        let lock = fs::File::create(states.join("lock"))?;
        flock(lock.file(), FlockOperation::LockExclusive).context("cannot lock the saved guests")?;
        if fs::read_to_string(state.folder.join("identity")).is_ok_and(|found| found == identity) {
            // The modification time is the time of the last use.
            fs::File::open(&state.folder)?.file().set_modified(SystemTime::now())?;
            return Ok(state);
        }
        make_room(memory_mib, &states)?;
        eprintln!("booting the guest and saving its state");
        let unfinished = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(&states)?;
        make(&Self { folder: unfinished.path().to_owned() })?;
        fs::write(unfinished.path().join("identity"), identity)?;
        if state.folder.exists() {
            fs::remove_dir_all(&state.folder)?;
        }
        fs::rename(unfinished.keep(), &state.folder)?;
        Ok(state)
    }

    /// The file with the guest's memory.
    pub(super) fn memory(&self) -> PathBuf {
        self.folder.join("memory")
    }

    /// The file with the state of the devices.
    pub(super) fn devices(&self) -> PathBuf {
        self.folder.join("devices")
    }
}

/// A name for a folder. Collisions are harmless: the whole identity is compared as well.
fn short(identity: &str) -> String {
    let mut hasher = DefaultHasher::new();
    identity.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Removes incomplete states and the least recently used ones. A guest that runs from a removed
/// state keeps its open files. Then checks that there is room for another state.
fn make_room(memory_mib: u32, states: &Path) -> Result<()> {
    let mut folders: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(states)? {
        let entry = entry?;
        let data = entry.metadata()?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs::remove_dir_all(entry.path())?;
        } else if data.is_dir() {
            folders.push((data.modified()?, entry.path()));
        }
    }
    folders.sort();
    for (_, folder) in folders.iter().rev().skip(KEPT - 1) {
        fs::remove_dir_all(folder)?;
    }
    // The memory's file is sparse. Without room to fill it, a guest ends with SIGBUS.
    let disk = statvfs(states).with_context(|| states.display().to_string())?;
    let (free, needed) = ((disk.f_bavail * disk.f_frsize) >> 20, u64::from(memory_mib) + 16);
    ensure!(free >= needed, "{}: {free} MiB are free, a guest needs {needed}", states.display());
    Ok(())
}
