// SPDX-License-Identifier: GPL-2.0-only
//! Commands in the build root. They have no network and see only the folders that are bind-mounted.
//! The paths are the same on every host, so object files do not depend on the host.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The mount points in the build root.
pub const MOUNT_POINTS: [&str; 4] = ["src", "build", "repo", "out"];

/// A build root and its bind mounts.
#[derive(Clone)]
pub struct Sandbox {
    root: PathBuf,
    binds: Vec<OsString>,
}

impl Sandbox {
    /// A sandbox on the build root at `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), binds: Vec::new() }
    }

    /// Bind-mounts `from` read-only at `/to`, one of [`MOUNT_POINTS`] or a path below `repo`.
    pub fn bind_ro(self, from: &Path, to: &str) -> Self {
        self.bind("--ro-bind", from, to)
    }

    /// Bind-mounts `from` read-write at `/to`, one of [`MOUNT_POINTS`].
    pub fn bind_rw(self, from: &Path, to: &str) -> Self {
        self.bind("--bind", from, to)
    }

    fn bind(mut self, option: &str, from: &Path, to: &str) -> Self {
        debug_assert!(MOUNT_POINTS.contains(&to) || to.starts_with("repo/"), "{to} is not a mount point");
        self.binds.extend([option.into(), from.into(), format!("/{to}").into()]);
        self
    }

    /// A command in the sandbox with `/folder` as its work folder.
    ///
    /// It runs without `--die-with-parent`, which would send SIGKILL: an interrupted `make` must
    /// have the time to remove incomplete files.
    pub fn command(&self, folder: &str, words: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new("bwrap");
        command
            .args(["--unshare-pid", "--unshare-net", "--unshare-ipc"])
            .arg("--ro-bind")
            .arg(&self.root)
            .args(["/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", "/repo"]);
        command.args(&self.binds).args(["--clearenv", "--setenv", "PATH", "/usr/sbin:/usr/bin"]);
        command.args(["--setenv", "HOME", "/tmp", "--setenv", "LC_ALL", "C.UTF-8"]);
        command.args(["--chdir", &format!("/{folder}"), "--"]).args(words);
        command
    }
}

/// The `-jN` for make: one job for each available processor.
pub fn jobs() -> String {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("-j{count}")
}
