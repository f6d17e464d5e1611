// SPDX-License-Identifier: GPL-2.0
//! Child processes of process 1. It is the parent of every orphan too, so one thread waits for any child
//! there is, and whoever started one asks that thread's notes for the exit status.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{setup, sys};

/// The children that were started here and not yet asked for; `Some` is the exit status.
type Statuses = HashMap<u32, Option<i32>>;

/// The processes of this guest.
#[derive(Clone)]
pub struct Children {
    notes: Arc<(Mutex<Statuses>, Condvar)>,
}

/// A running shell command. Its output goes to files that have no name any more, not to pipes: a daemon that
/// it leaves behind can keep them open without anybody waiting for it.
pub struct Child {
    pid: u32,
    stdout: File,
    stderr: File,
}

/// What a command left.
pub struct Outcome {
    /// As in a shell: the exit code, or 128 + the signal. `None`: it did not end in time and was killed.
    pub status: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Children {
    /// Starts the thread that reaps.
    pub fn reap() -> io::Result<Self> {
        let notes = Arc::new((Mutex::new(Statuses::new()), Condvar::new()));
        let children = Self { notes: Arc::clone(&notes) };
        std::thread::Builder::new().name("reaper".into()).spawn(move || {
            let (statuses, changed) = &*notes;
            loop {
                let ended = sys::wait_any();
                let mut statuses = statuses.lock().unwrap_or_else(PoisonError::into_inner);
                match ended {
                    Some((pid, status)) => {
                        // Nobody asks for an orphan's status.
                        if let Some(note) = statuses.get_mut(&pid) {
                            *note = Some(status);
                            changed.notify_all();
                        }
                    }
                    // No child at all: wait until one is started. The time limit is for grandchildren that
                    // become orphans meanwhile, which nobody announces.
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
        let (stdout, stderr) = (nameless_file("stdout")?, nameless_file("stderr")?);
        let mut command = setup::shell(line);
        command.process_group(0).stdin(Stdio::null());
        command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        // The lock is held across the start: the reaper may see the child's end before its id is known here,
        // and must then wait until it is.
        let (statuses, changed) = &*self.notes;
        let mut statuses = statuses.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = command.spawn()?.id();
        statuses.insert(pid, None);
        changed.notify_all();
        Ok(Child { pid, stdout, stderr })
    }

    /// Waits for the end of a child, at most for `patience`, then kills its process group.
    pub fn finish(&self, child: &Child, patience: Duration) -> io::Result<Outcome> {
        let status = self.status(child.pid, patience);
        if status.is_none() {
            sys::kill_group(child.pid);
            // Killed, so it ends now; the note must not stay behind.
            self.status(child.pid, Duration::from_secs(10));
        }
        Ok(Outcome { status, stdout: whole(&child.stdout)?, stderr: whole(&child.stderr)? })
    }

    fn status(&self, pid: u32, patience: Duration) -> Option<i32> {
        let deadline = Instant::now() + patience;
        let (statuses, changed) = &*self.notes;
        let mut statuses = statuses.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(Some(status)) = statuses.get(&pid).copied() {
                statuses.remove(&pid);
                return Some(status);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            statuses = changed.wait_timeout(statuses, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Child {
    /// The process id, which is also the id of its group.
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

fn nameless_file(what: &str) -> io::Result<File> {
    let path = format!("/tmp/.agent-{what}");
    let file = OpenOptions::new().read(true).append(true).create_new(true).open(&path)?;
    fs::remove_file(path)?;
    Ok(file)
}

/// Everything in a file, whatever its position.
fn whole(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
