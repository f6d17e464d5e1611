// SPDX-License-Identifier: GPL-2.0
//! Sockets that QEMU connects to when it starts.

use std::io::ErrorKind;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long QEMU may take to open its sockets.
const START_TIME: Duration = Duration::from_secs(60);

/// A listening end.
pub(crate) struct Door(UnixListener);

impl Door {
    /// Listens at `name` in a folder.
    pub(crate) fn open(folder: &Path, name: &str) -> Result<Self> {
        let listener = UnixListener::bind(folder.join(name)).with_context(|| format!("socket {name}"))?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// The connection that `qemu` makes.
    pub(crate) fn accept(&self, qemu: &mut Child) -> Result<UnixStream> {
        let deadline = Instant::now() + START_TIME;
        loop {
            match self.0.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("QEMU's connection"),
            }
            // Two events are waited for, a connection and the process's end, and std can wait for one.
            if let Some(status) = qemu.try_wait()? {
                bail!("QEMU did not start ({status})");
            }
            ensure!(Instant::now() < deadline, "QEMU does not connect");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
