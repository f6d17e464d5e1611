// SPDX-License-Identifier: GPL-2.0
//! QEMU's machine protocol: one command, one answer, events in between.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// A connection to a running QEMU.
pub(crate) struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Takes the greeting and leaves negotiation mode. The stream's time limits are the caller's.
    pub(crate) fn new(stream: UnixStream) -> Result<Self> {
        let mut qmp = Self { stream: BufReader::new(stream) };
        qmp.read().context("QEMU's greeting")?;
        qmp.command("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and gives what it returns. Events that come before the answer are lost.
    pub(crate) fn command(&mut self, name: &str, arguments: &Value) -> Result<Value> {
        let request = json!({ "execute": name, "arguments": arguments }).to_string() + "\n";
        self.stream.get_mut().write_all(request.as_bytes()).with_context(|| format!("QMP {name}"))?;
        loop {
            let mut answer = self.read().with_context(|| format!("QMP {name}"))?;
            if let Some(error) = answer.get("error") {
                bail!("QMP {name}: {error}");
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// Waits for an event, at most for `patience`.
    pub(crate) fn wait_for(&mut self, event: &str, patience: Duration) -> Result<()> {
        let usual = self.stream.get_ref().read_timeout()?;
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.get_ref().set_read_timeout(Some(left))?;
            if self.read().with_context(|| format!("waiting for QEMU's event {event}"))?["event"] == event {
                return Ok(self.stream.get_ref().set_read_timeout(usual)?);
            }
        }
    }

    /// Waits until the network device `port` takes every frame, at most for `patience`. The driver tells the device
    /// about the mode after the command that sets it has returned; until then the device filters.
    pub(crate) fn await_promiscuous(&mut self, port: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        // QEMU has an event for a changed filter, but only for one change between two queries, so ask.
        loop {
            let state = self.command("query-rx-filter", &json!({ "name": port }))?;
            if state.pointer("/0/promiscuous").is_some_and(|value| value == true) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{port} does not become promiscuous");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("QEMU has closed the connection");
        }
        serde_json::from_str(&line).with_context(|| format!("QEMU says {line:?}"))
    }
}
