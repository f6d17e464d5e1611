// SPDX-License-Identifier: GPL-2.0-only
//! The QEMU machine protocol: <https://www.qemu.org/docs/master/interop/qmp-spec.html>.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::command::COMMAND_TIMEOUT;
use crate::poll;

/// A connection to a running QEMU.
pub(crate) struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Reads the greeting and leaves negotiation mode.
    pub(super) fn new(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(COMMAND_TIMEOUT))?;
        let mut qmp = Self { stream: BufReader::new(stream) };
        qmp.read().context("QEMU's greeting")?;
        qmp.command("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns its result. Discards events that arrive before the result.
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

    /// Waits for an event. Each other event restarts the timeout.
    pub(crate) fn wait_for(&mut self, event: &str, timeout: Duration) -> Result<()> {
        self.stream.get_ref().set_read_timeout(Some(timeout))?;
        while self.read().with_context(|| format!("waiting for QEMU's event {event}"))?["event"] != event {}
        Ok(self.stream.get_ref().set_read_timeout(Some(COMMAND_TIMEOUT))?)
    }

    /// Waits until network port `n` accepts all frames. The driver tells the device about
    /// promiscuous mode after the command that sets it has returned; until then the device filters.
    pub(crate) fn await_promiscuous(&mut self, n: usize, timeout: Duration) -> Result<()> {
        // QEMU's event for a changed filter comes only once between two queries.
        poll(timeout, &format!("port {n} to become promiscuous"), || {
            let state = self.command("query-rx-filter", &json!({ "name": format!("port{n}") }))?;
            Ok(state.pointer("/0/promiscuous").is_some_and(|value| value == true).then_some(()))
        })
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("QEMU has closed the connection");
        }
        serde_json::from_str(&line).with_context(|| format!("QEMU sent {line:?}"))
    }
}
