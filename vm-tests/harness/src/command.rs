// SPDX-License-Identifier: GPL-2.0-only
//! Results of commands that run in a virtual machine.

use std::time::Duration;

use anyhow::{Result, ensure};

/// The default timeout of a command. It is long enough for slow hosts: only a command that hangs
/// reaches it.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(120);

/// What a command printed, and its exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The exit code, or 128 + the number of the signal that killed it.
    pub status: i32,
    /// Standard output; in the Debian VM with standard error. Invalid UTF-8 is replaced.
    pub stdout: String,
    /// Standard error; empty in the Debian VM. Invalid UTF-8 is replaced.
    pub stderr: String,
}

impl Output {
    /// The standard output of `command`, which must have succeeded.
    ///
    /// # Errors
    /// With the output when the exit status is not 0.
    pub fn success(self, command: &str) -> Result<String> {
        let Self { status, stdout, stderr } = self;
        ensure!(status == 0, "{command}: exit status {status}\n{stderr}{stdout}");
        Ok(stdout)
    }
}
