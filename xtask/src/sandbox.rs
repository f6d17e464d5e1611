// SPDX-License-Identifier: GPL-2.0
//! Commands in the build root: no network, nothing of the host but what is bound in, and the same
//! paths on every machine, so that no object file tells where it was made.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The folders that exist in the build root for others to be bound to.
pub const MOUNT_POINTS: [&str; 4] = ["src", "build", "repo", "out"];

/// A build root with folders bound into it.
#[derive(Clone)]
pub struct Sandbox {
    root: PathBuf,
    binds: Vec<(bool, PathBuf, String)>,
}

impl Sandbox {
    /// A sandbox on the build root at `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), binds: Vec::new() }
    }

    /// Shows `from` at `/to`, one of [`MOUNT_POINTS`], for reading.
    pub fn read(mut self, from: &Path, to: &str) -> Self {
        self.binds.push((false, from.to_owned(), to.to_owned()));
        self
    }

    /// Shows `from` at `/to`, one of [`MOUNT_POINTS`], for reading and writing.
    pub fn write(mut self, from: &Path, to: &str) -> Self {
        self.binds.push((true, from.to_owned(), to.to_owned()));
        self
    }

    /// A command in the sandbox that starts in `/folder`.
    ///
    /// There is no `--die-with-parent`: it kills at once, and an interrupted `make` needs a moment
    /// to remove what it has half written.
    pub fn command(&self, folder: &str, words: &[&str]) -> Command {
        let mut command = Command::new("bwrap");
        command
            .args(["--unshare-pid", "--unshare-net", "--unshare-ipc"])
            .arg("--ro-bind")
            .arg(&self.root)
            .args(["/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]);
        for (writable, from, to) in &self.binds {
            debug_assert!(MOUNT_POINTS.contains(&to.as_str()), "{to} is no mount point");
            command.arg(if *writable { "--bind" } else { "--ro-bind" }).arg(from).arg(format!("/{to}"));
        }
        command.args(["--clearenv", "--setenv", "PATH", "/usr/sbin:/usr/bin"]);
        command.args(["--setenv", "HOME", "/tmp", "--setenv", "LC_ALL", "C.UTF-8"]);
        command.args(["--chdir", &format!("/{folder}"), "--"]);
        command.args(words);
        command
    }
}

/// The `-jN` for make: one job for each processor that we may use.
pub fn jobs() -> String {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("-j{count}")
}
