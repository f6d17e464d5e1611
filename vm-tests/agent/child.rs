// SPDX-License-Identifier: GPL-2.0-only
//! Shell commands as child processes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::PollFlags;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::{setup, sys};

/// How long a killed process may take to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// A running shell command. Its output goes to deleted files, not to pipes: a pipe stays open as
/// long as a daemon that the command has started.
pub struct Child {
    process: std::process::Child,
    stdout: File,
    stderr: File,
}

impl Child {
    /// Starts `/bin/sh -c line` in a process group of its own.
    pub fn start(line: &str) -> Result<Self> {
        let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let mut command = setup::shell(line);
        command.process_group(0).stdin(Stdio::null());
        command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        Ok(Self { process: command.spawn().context("/bin/sh")?, stdout, stderr })
    }

    /// The process id and process group id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits for the end. After the timeout it kills the process group. Returns the status,
    /// standard output and standard error. The status is the exit code, or 128 + the number of the
    /// signal; it is empty if the command did not end in time.
    pub fn finish(mut self, timeout: Duration) -> Result<Vec<Vec<u8>>> {
        let pid = Pid::from_child(&self.process);
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        let in_time = sys::wait_for(&process, timeout)?.contains(PollFlags::IN);
        if !in_time {
            // An error means that the group has ended.
            let _ = kill_process_group(pid, Signal::KILL);
            sys::wait_for(&process, KILL_TIMEOUT)?;
        }
        let status = self.process.try_wait()?.filter(|_| in_time);
        let status = status.and_then(|status| status.code().or(status.signal().map(|signal| 128 + signal)));
        let status = status.map(|status| status.to_string()).unwrap_or_default();
        Ok(vec![status.into(), read_all(&self.stdout)?, read_all(&self.stderr)?])
    }
}

/// Reads a whole file, independent of its position.
pub fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
