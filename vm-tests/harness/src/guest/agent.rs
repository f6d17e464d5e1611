// SPDX-License-Identifier: GPL-2.0
//! The host's end of the conversation with the agent in the guest (`agent/serve.rs` has the words).

use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

#[path = "../../../agent/proto.rs"]
mod proto;

pub(super) use proto::{read_message, write_message};

/// How much longer than the agent's own time limit the host waits: the guest can be slow.
const SLACK: Duration = Duration::from_secs(60);

/// A connection to the agent.
pub(super) struct Agent {
    stream: UnixStream,
}

/// What a command in the guest left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The exit code, or 128 + the signal that ended it.
    pub status: i32,
    /// Standard output. What is not UTF-8 is replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}

impl Agent {
    pub(super) fn new(stream: UnixStream) -> Result<Self> {
        stream.set_write_timeout(Some(SLACK))?;
        Ok(Self { stream })
    }

    /// Says hello; gives what became of the module: `loaded`, `absent` or an error.
    pub(super) fn hello(&mut self, patience: Duration) -> Result<String> {
        let [module] = self.ask(&[b"hello"], patience)?;
        Ok(text(module))
    }

    pub(super) fn run(&mut self, line: &str, patience: Duration) -> Result<Output> {
        let answer = self.exchange(&[b"run", &millis(patience), line.as_bytes()], patience)?;
        output(answer).with_context(|| format!("in the guest: {line}"))
    }

    /// Starts a command and gives its number for [`Agent::finish`].
    pub(super) fn start(&mut self, line: &str) -> Result<u32> {
        match self.exchange(&[b"start", line.as_bytes()], SLACK)?.as_slice() {
            [word, pid] if word == b"started" => Ok(text(pid.clone()).parse()?),
            other => bail!("an odd answer from the agent: {other:?}"),
        }
    }

    pub(super) fn finish(&mut self, pid: u32, patience: Duration) -> Result<Output> {
        let pid = pid.to_string();
        output(self.exchange(&[b"finish", pid.as_bytes(), &millis(patience)], patience)?)
    }

    pub(super) fn read(&mut self, path: &str) -> Result<Vec<u8>> {
        let [bytes] = self.ask(&[b"read", path.as_bytes()], SLACK)?;
        Ok(bytes)
    }

    pub(super) fn write(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        let [] = self.ask(&[b"write", path.as_bytes(), bytes], SLACK)?;
        Ok(())
    }

    /// Waits until a port has received `want` frames, at most for `patience`. Gives the frames that it has
    /// received, and how many of them the driver refused for their length.
    pub(super) fn received(&mut self, netns: &str, device: &str, want: u64, patience: Duration) -> Result<[u64; 2]> {
        let want = want.to_string();
        let request = [b"received", netns.as_bytes(), device.as_bytes(), want.as_bytes(), &millis(patience)];
        let counts: [Vec<u8>; 2] = self.ask(&request, patience)?;
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

    /// A request whose answer is `ok` and `N` fields.
    fn ask<const N: usize>(&mut self, request: &[&[u8]], patience: Duration) -> Result<[Vec<u8>; N]> {
        let mut answer = self.exchange(request, patience)?;
        if answer.first().is_some_and(|word| word == b"ok") {
            answer.remove(0);
        }
        answer.try_into().map_err(|answer| anyhow::anyhow!("an odd answer from the agent: {answer:?}"))
    }

    fn exchange(&mut self, request: &[&[u8]], patience: Duration) -> Result<Vec<Vec<u8>>> {
        self.stream.set_read_timeout(Some(patience + SLACK))?;
        proto::write_message(&mut self.stream, request).context("cannot reach the agent")?;
        let answer = proto::read_message(&mut self.stream).context("no answer from the agent")?;
        match answer.as_slice() {
            [word, error] if word == b"error" => bail!("in the guest: {}", String::from_utf8_lossy(error)),
            _ => Ok(answer),
        }
    }
}

fn output(answer: Vec<Vec<u8>>) -> Result<Output> {
    match <[Vec<u8>; 4]>::try_from(answer) {
        Ok([word, status, stdout, stderr]) if word == b"exit" => {
            Ok(Output { status: text(status).parse()?, stdout: text(stdout), stderr: text(stderr) })
        }
        Ok(other) => bail!("an odd answer from the agent: {other:?}"),
        Err(answer) => {
            let said = answer.into_iter().skip(1).map(text).collect::<String>();
            bail!("the command did not end in time and was killed; until then it said: {said}")
        }
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn millis(patience: Duration) -> Vec<u8> {
    patience.as_millis().to_string().into_bytes()
}
