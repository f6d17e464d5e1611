// SPDX-License-Identifier: GPL-2.0
//! Guests that have already booted. Booting a debug kernel without KVM takes many seconds and always ends in
//! the same state, so it is done once: the guest's memory stays in a file, the state of its devices in another,
//! and each guest of the same make starts from there. It maps the memory privately, so what it changes is its
//! own, and pages that it never touches are never read.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock, statvfs};

use super::qemu::{COMMAND_LINE, MACHINE};
use super::{Config, Guest};
use crate::accel::QEMU;

/// To be raised when guests are started in another way than before.
const FORMAT: u32 = 2;

/// How many states are kept. One takes 100 to 300 MB.
const KEPT: usize = 6;

/// How the name of a folder begins whose state is being made.
const UNFINISHED: &str = "unfinished-";

/// A booted guest's memory and devices on disk.
#[derive(Clone, Debug)]
pub(super) struct State {
    folder: PathBuf,
}

impl State {
    /// Finds the state for a kind of guest, or boots one to make it.
    pub(super) fn of(config: &Config) -> Result<Self> {
        let identity = identity(config)?;
        let shelf = cache()?.join("guests");
        fs::create_dir_all(&shelf).with_context(|| shelf.display().to_string())?;
        let state = Self { folder: shelf.join(short(&identity)) };
        // Whoever comes first makes it, the others wait for it. The lock goes with the file.
        let lock = File::create(shelf.join("lock")).context("the guests' lock file")?;
        flock(&lock, FlockOperation::LockExclusive).context("the guests' lock file")?;
        if fs::read_to_string(state.folder.join("identity")).is_ok_and(|found| found == identity) {
            // The folder's age is the time since its last use.
            File::open(&state.folder)?.set_modified(SystemTime::now())?;
        } else {
            state.make(config, &identity, &shelf)?;
        }
        Ok(state)
    }

    /// The guest's memory.
    pub(super) fn memory(&self) -> PathBuf {
        self.folder.join("memory")
    }

    /// The state of everything else.
    pub(super) fn devices(&self) -> PathBuf {
        self.folder.join("devices")
    }

    /// Makes the state in a folder of another name first, so that one that is there is whole.
    fn make(&self, config: &Config, identity: &str, shelf: &Path) -> Result<()> {
        make_room(config, shelf)?;
        eprintln!("booting the guest; from now on it starts from its saved state");
        let unfinished = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(shelf)?;
        let made = Self { folder: unfinished.path().to_owned() };
        let mut guest = Guest::power_on(config, &made)?;
        guest.save()?;
        drop(guest);
        fs::write(made.folder.join("identity"), identity)?;
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)?;
        }
        fs::rename(unfinished.keep(), &self.folder)?;
        Ok(())
    }
}

/// Everything that makes a difference to a booted guest.
fn identity(config: &Config) -> Result<String> {
    let Config { artifacts, cpus, ports, memory_mib, clock } = config;
    Ok(format!(
        "format {FORMAT}\n{}{}{}\n{}\n{MACHINE} {COMMAND_LINE}\n{cpus} CPUs, {ports} ports, {memory_mib} MiB\n",
        artifacts.identity()?,
        qemu_version()?,
        clock.arguments()?.join(" "),
        clock.cpu()?,
    ))
}

fn short(identity: &str) -> String {
    // A name, not a proof: the whole identity is compared too.
    let mut hasher = DefaultHasher::new();
    identity.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn qemu_version() -> Result<&'static str> {
    static VERSION: OnceLock<String> = OnceLock::new();
    if let Some(version) = VERSION.get() {
        return Ok(version);
    }
    let output = Command::new(QEMU).arg("--version").output().with_context(|| format!("cannot run {QEMU}"))?;
    ensure!(output.status.success(), "{QEMU} --version fails");
    Ok(VERSION.get_or_init(|| String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// The project's cache folder.
fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|path| Path::new(path).is_absolute()) {
        Some(cache) => PathBuf::from(cache),
        None => {
            PathBuf::from(std::env::var_os("HOME").context("neither HOME nor XDG_CACHE_HOME is set")?).join(".cache")
        }
    };
    Ok(base.join("xt-traffic"))
}

/// Removes what an interrupted run has left, and all but the states that were used last; makes sure that a new
/// one fits. A guest that still runs from a removed state keeps its files until it ends.
fn make_room(config: &Config, shelf: &Path) -> Result<()> {
    let mut folders: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(shelf)? {
        let entry = entry?;
        let data = entry.metadata()?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs::remove_dir_all(entry.path()).context("the remains of an interrupted run")?;
        } else if data.is_dir() {
            folders.push((data.modified()?, entry.path()));
        }
    }
    folders.sort();
    for (_, folder) in folders.iter().rev().skip(KEPT - 1) {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    // The memory's file has holes, and a guest that finds no room to fill one would die of a bus error.
    let disk = statvfs(shelf).with_context(|| shelf.display().to_string())?;
    let (free, needed) = ((disk.f_bavail * disk.f_frsize) >> 20, u64::from(config.memory_mib) + 16);
    ensure!(free >= needed, "{}: {free} MiB are free, a guest needs {needed}", shelf.display());
    Ok(())
}
