// SPDX-License-Identifier: GPL-2.0-only
//! Serves the host's requests in order.
//!
//! | request | answer |
//! | --- | --- |
//! | `hello` | `ok` module: `loaded`, `absent` or an error |
//! | `run` milliseconds line | `exit` status stdout stderr, or `late` stdout stderr |
//! | `start` line | `ok` id |
//! | `finish` id milliseconds | as `run` |
//! | `read` path | `ok` bytes |
//! | `write` path bytes | `ok` |
//! | `received` netns device count milliseconds | `ok` packets length-errors |
//! | `settle` | `ok` |
//! | `log` | `ok` text |
//!
//! The answer to a request that fails is `error` text.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::children::{Child, Children, Outcome};
use crate::netdev::{self, Settler};
use crate::poll::poll;
use crate::setup::System;
use crate::{context, proto, sys};

/// The name of the virtio-serial port on QEMU's command line.
const PORT: &str = "agent";
const O_NONBLOCK: i32 = 0o4000;

type Answer = Vec<Vec<u8>>;

struct Server<'a> {
    system: &'a System,
    children: Children,
    running: HashMap<u32, Child>,
    settler: Settler,
}

/// Serves until the host closes the connection.
pub fn serve(system: &System) -> Result<(), String> {
    let mut port = open_port()?;
    let mut server = Server {
        system,
        children: context("reaper", Children::reap())?,
        running: HashMap::new(),
        settler: Settler::new(system.cpus)?,
    };
    loop {
        let request = match proto::read_message(&mut port) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            result => context("agent port", result)?,
        };
        let answer = server.answer(&request).unwrap_or_else(|error| vec![b"error".to_vec(), error.into_bytes()]);
        let fields: Vec<&[u8]> = answer.iter().map(Vec::as_slice).collect();
        context("agent port", proto::write_message(&mut port, &fields))?;
    }
}

impl Server<'_> {
    fn answer(&mut self, request: &[Vec<u8>]) -> Result<Answer, String> {
        let words: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
        match words.as_slice() {
            [b"hello"] => Ok(ok([self.system.module.as_bytes()])),
            [b"run", timeout, line] => {
                let child = context("/bin/sh", self.children.start(text(line)?))?;
                self.finish(&child, millis(timeout)?)
            }
            [b"start", line] => {
                let child = context("/bin/sh", self.children.start(text(line)?))?;
                let pid = child.pid();
                self.running.insert(pid, child);
                Ok(ok([pid.to_string().as_bytes()]))
            }
            [b"finish", pid, timeout] => {
                let child = self.running.remove(&number(pid)?).ok_or("no such command was started")?;
                self.finish(&child, millis(timeout)?)
            }
            [b"read", path] => {
                let path = text(path)?;
                Ok(ok([context(path, fs::read(path))?.as_slice()]))
            }
            [b"write", path, bytes] => {
                let path = text(path)?;
                context(path, fs::write(path, bytes))?;
                Ok(ok([]))
            }
            [b"received", netns, device, want, timeout] => {
                let (want, timeout) = (number(want)?, millis(timeout)?);
                let received = netdev::await_received(text(netns)?, text(device)?, want, timeout)?;
                Ok(ok([received.packets.to_string().as_bytes(), received.length_errors.to_string().as_bytes()]))
            }
            [b"settle"] => self.settler.settle().map(|()| ok([])),
            [b"log"] => Ok(ok([context("/dev/kmsg", kernel_log())?.as_slice()])),
            _ => Err("unknown request: the initramfs may be older than the tests".into()),
        }
    }

    fn finish(&self, child: &Child, timeout: Duration) -> Result<Answer, String> {
        let Outcome { status, stdout, stderr } = context("command", self.children.finish(child, timeout))?;
        Ok(match status {
            Some(status) => vec![b"exit".to_vec(), status.to_string().into_bytes(), stdout, stderr],
            None => vec![b"late".to_vec(), stdout, stderr],
        })
    }
}

fn ok<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Answer {
    std::iter::once(&b"ok"[..]).chain(fields).map(<[u8]>::to_vec).collect()
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| error.to_string())
}

fn number<N: std::str::FromStr<Err: std::fmt::Display>>(bytes: &[u8]) -> Result<N, String> {
    context("number", text(bytes)?.parse())
}

fn millis(bytes: &[u8]) -> Result<Duration, String> {
    number(bytes).map(Duration::from_millis)
}

/// Opens the port when the host has connected. Before, a read returns end of file, as after the
/// host has closed the connection. There is no event for either.
fn open_port() -> Result<File, String> {
    let (timeout, interval) = (Duration::from_secs(60), Duration::from_millis(1));
    let path = poll(timeout, interval, || Ok::<_, String>(find_port()))?;
    let path = path.ok_or_else(|| format!("no virtio-serial port named {PORT}"))?;
    let port = context("agent port", OpenOptions::new().read(true).write(true).open(path))?;
    let connected = poll(timeout, interval, || {
        let events = context("agent port", sys::wait_for(&port, Duration::ZERO))?;
        Ok::<_, String>((events & sys::POLLHUP == 0).then_some(()))
    })?;
    connected.ok_or("the host does not connect to the agent port")?;
    Ok(port)
}

fn find_port() -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
    let port = ports
        .flatten()
        .find(|port| fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == PORT))?;
    Some(PathBuf::from("/dev").join(port.file_name()))
}

/// The kernel log, one record per line: `<priority>[microseconds] text`.
/// Format of the records: <https://www.kernel.org/doc/Documentation/ABI/testing/dev-kmsg>.
fn kernel_log() -> io::Result<Vec<u8>> {
    let mut log = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open("/dev/kmsg")?;
    let mut text = Vec::new();
    let mut record = vec![0; 16 << 10];
    loop {
        let length = match log.read(&mut record) {
            Ok(0) => return Ok(text),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(text),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                text.extend_from_slice(b"<4>[0] agent: BUG: the kernel log overflowed, records are lost\n");
                continue;
            }
            Err(error) => return Err(error),
        };
        // "priority,sequence,microseconds,flags;text\n KEY=value..."
        let record = String::from_utf8_lossy(&record[..length]);
        let (head, message) = record.split_once(';').unwrap_or(("", &record));
        let mut head = head.split(',');
        let priority = head.next().unwrap_or("");
        let time = head.nth(1).unwrap_or("");
        let message = message.lines().next().unwrap_or("");
        text.extend_from_slice(format!("<{priority}>[{time}] {message}\n").as_bytes());
    }
}
