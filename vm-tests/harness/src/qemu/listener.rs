// SPDX-License-Identifier: GPL-2.0-only
//! Sockets that QEMU connects to when it starts.

use std::io::ErrorKind;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::poll;

const START_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) struct Listener(UnixListener);

impl Listener {
    pub(super) fn bind(folder: &Path, name: &str) -> Result<Self> {
        let listener = UnixListener::bind(folder.join(name)).with_context(|| format!("socket {name}"))?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// Waits until QEMU connects or ends.
    pub(super) fn accept(&self, qemu: &mut Child) -> Result<UnixStream> {
        let stream = poll(START_TIMEOUT, "QEMU to connect", || match self.0.accept() {
            Ok((stream, _)) => Ok(Some(stream)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => match qemu.try_wait()? {
                Some(status) => bail!("QEMU did not start ({status})"),
                None => Ok(None),
            },
            Err(error) => Err(error).context("QEMU's connection"),
        })?;
        stream.set_nonblocking(false)?;
        Ok(stream)
    }
}
