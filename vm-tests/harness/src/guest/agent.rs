// SPDX-License-Identifier: GPL-2.0-only
//! The host's end of the agent protocol. `agent/serve.rs` lists the requests.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use vm_agent::proto::{read_message, write_message};

use crate::command::Output;

/// How much longer than the agent's own timeout the host waits, as the guest can be slow.
const SLACK: Duration = Duration::from_secs(60);

/// A connection to the agent.
pub(super) struct Agent {
    stream: UnixStream,
}

impl Agent {
    pub(super) fn new(stream: UnixStream) -> Result<Self> {
        stream.set_write_timeout(Some(SLACK))?;
        Ok(Self { stream })
    }

    /// Returns the state of the module: `loaded`, `absent` or an error.
    pub(super) fn hello(&mut self, timeout: Duration) -> Result<String> {
        let [module] = self.ask(&[b"hello"], timeout)?;
        Ok(text(module))
    }

    pub(super) fn run(&mut self, line: &str, timeout: Duration) -> Result<Output> {
        let answer = self.ask(&[b"run", &millis(timeout), line.as_bytes()], timeout)?;
        output(answer).with_context(|| format!("in the guest: {line}"))
    }

    /// Starts a command and returns its process id for [`Agent::finish`].
    pub(super) fn start(&mut self, line: &str) -> Result<u32> {
        let [pid] = self.ask(&[b"start", line.as_bytes()], SLACK)?;
        Ok(text(pid).parse()?)
    }

    pub(super) fn finish(&mut self, pid: u32, timeout: Duration) -> Result<Output> {
        let pid = pid.to_string();
        output(self.ask(&[b"finish", pid.as_bytes(), &millis(timeout)], timeout)?)
    }

    pub(super) fn read(&mut self, path: &str) -> Result<Vec<u8>> {
        let [bytes] = self.ask(&[b"read", path.as_bytes()], SLACK)?;
        Ok(bytes)
    }

    pub(super) fn write(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        let [] = self.ask(&[b"write", path.as_bytes(), bytes], SLACK)?;
        Ok(())
    }

    /// Waits until a port has received `want` frames or the time is over. Returns how many frames
    /// it has received, and how many of them the driver refused for their length.
    pub(super) fn received(&mut self, netns: &str, device: &str, want: u64, timeout: Duration) -> Result<[u64; 2]> {
        let want = want.to_string();
        let request = [b"received", netns.as_bytes(), device.as_bytes(), want.as_bytes(), &millis(timeout)];
        let counts: [Vec<u8>; 2] = self.ask(&request, timeout)?;
        let [packets, length_errors] = counts.map(|count| text(count).parse());
        Ok([packets?, length_errors?])
    }

    pub(super) fn settle(&mut self) -> Result<()> {
        let [] = self.ask(&[b"settle"], SLACK)?;
        Ok(())
    }

    pub(super) fn log(&mut self) -> Result<String> {
        let [log] = self.ask(&[b"log"], SLACK)?;
        Ok(text(log))
    }

    /// Sends a request whose answer is `ok` and `N` fields.
    fn ask<const N: usize>(&mut self, request: &[&[u8]], timeout: Duration) -> Result<[Vec<u8>; N]> {
        self.stream.set_read_timeout(Some(timeout + SLACK))?;
        write_message(&mut self.stream, request).context("cannot send a request to the agent")?;
        let answer = read_message(&mut self.stream).context("no answer from the agent")?;
        match answer.as_slice() {
            [word, error] if word == b"error" => bail!("in the guest: {}", String::from_utf8_lossy(error)),
            [word, ..] if word == b"ok" => {
                let fields: Vec<_> = answer.into_iter().skip(1).collect();
                fields.try_into().map_err(|fields| anyhow!("unexpected answer from the agent: {fields:?}"))
            }
            _ => bail!("unexpected answer from the agent: {answer:?}"),
        }
    }
}

fn output(answer: [Vec<u8>; 3]) -> Result<Output> {
    let [status, stdout, stderr] = answer.map(text);
    ensure!(!status.is_empty(), "the command did not end in time and was killed; its output: {stdout}{stderr}");
    Ok(Output { status: status.parse()?, stdout, stderr })
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn millis(timeout: Duration) -> Vec<u8> {
    timeout.as_millis().to_string().into_bytes()
}
