// SPDX-License-Identifier: GPL-2.0-only
//! Child processes of process 1. Orphans become its children too, so one thread reaps all children.
//! It records the exit statuses of those that were started here.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::{setup, sys};

/// The children that were started here, by process id. `Some` is the exit status.
type Statuses = HashMap<u32, Option<i32>>;

/// Starts child processes and reaps them.
#[derive(Clone)]
pub struct Children {
    statuses: Arc<(Mutex<Statuses>, Condvar)>,
}

/// A running shell command. Its output goes to deleted files, not to pipes: a pipe stays open as
/// long as a daemon that the command has started.
pub struct Child {
    pid: u32,
    stdout: File,
    stderr: File,
}

/// The result of a command.
pub struct Outcome {
    /// The exit code, or 128 + the number of the signal. `None`: it did not end in time and was
    /// killed.
    pub status: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Children {
    /// Starts the thread that reaps children.
    pub fn reap() -> io::Result<Self> {
        let shared = Arc::new((Mutex::new(Statuses::new()), Condvar::new()));
        let children = Self { statuses: Arc::clone(&shared) };
        std::thread::Builder::new().name("reaper".into()).spawn(move || {
            let (statuses, changed) = &*shared;
            loop {
                let ended = sys::wait_any();
                let mut statuses = statuses.lock().unwrap_or_else(PoisonError::into_inner);
                match ended {
                    Some((pid, status)) => {
                        // The status of an orphan is discarded.
                        if let Some(entry) = statuses.get_mut(&pid) {
                            *entry = Some(status);
                            changed.notify_all();
                        }
                    }
                    // There is no child: wait until one is started, or until a grandchild may have
                    // become an orphan.
                    None => {
                        let idle = |statuses: &mut Statuses| statuses.values().all(Option::is_some);
                        drop(changed.wait_timeout_while(statuses, Duration::from_secs(1), idle));
                    }
                }
            }
        })?;
        Ok(children)
    }

    /// Starts `/bin/sh -c line` in a process group of its own.
    pub fn start(&self, line: &str) -> io::Result<Child> {
        let (stdout, stderr) = (deleted_file("stdout")?, deleted_file("stderr")?);
        let mut command = setup::shell(line);
        command.process_group(0).stdin(Stdio::null());
        command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        // The lock is held until the id is recorded: the child may end before.
        let (statuses, changed) = &*self.statuses;
        let mut statuses = statuses.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = command.spawn()?.id();
        statuses.insert(pid, None);
        changed.notify_all();
        Ok(Child { pid, stdout, stderr })
    }

    /// Waits for the end of a child. After the timeout it kills the child's process group.
    pub fn finish(&self, child: &Child, timeout: Duration) -> io::Result<Outcome> {
        let status = self.status(child.pid, timeout);
        if status.is_none() {
            sys::kill_group(child.pid);
            // Removes the entry of the killed child.
            self.status(child.pid, Duration::from_secs(10));
        }
        Ok(Outcome { status, stdout: read_all(&child.stdout)?, stderr: read_all(&child.stderr)? })
    }

    fn status(&self, pid: u32, timeout: Duration) -> Option<i32> {
        let (statuses, changed) = &*self.statuses;
        let statuses = statuses.lock().unwrap_or_else(PoisonError::into_inner);
        let running = |statuses: &mut Statuses| !matches!(statuses.get(&pid), Some(Some(_)));
        let waited = changed.wait_timeout_while(statuses, timeout, running);
        let mut statuses = waited.unwrap_or_else(PoisonError::into_inner).0;
        let status = statuses.get(&pid).copied().flatten()?;
        statuses.remove(&pid);
        Some(status)
    }
}

impl Child {
    /// The process id and process group id.
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

fn deleted_file(what: &str) -> io::Result<File> {
    let path = format!("/tmp/.agent-{what}");
    let file = OpenOptions::new().read(true).append(true).create_new(true).open(&path)?;
    fs::remove_file(path)?;
    Ok(file)
}

/// Reads a whole file, independent of its position.
fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
