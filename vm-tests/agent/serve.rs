// SPDX-License-Identifier: GPL-2.0-only
//! Serves the host's requests in order.
//!
//! | request | answer |
//! | --- | --- |
//! | `hello` | `ok` module: `loaded`, `absent` or an error |
//! | `run` milliseconds line | `ok` status stdout stderr; no status if it did not end in time |
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
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::str::{self, FromStr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fs_err as fs;
use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::process::{WaitOptions, wait};
use vm_agent::poll::poll;
use vm_agent::proto::{read_message, write_message};

use crate::child::Child;
use crate::netdev::{self, Settler};
use crate::sys;

/// The name of the virtio-serial port on QEMU's command line.
const PORT: &str = "agent";
/// For the host to connect to the port.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The fields after `ok`.
type Answer = Vec<Vec<u8>>;

struct Server<'a> {
    module: &'a str,
    running: HashMap<u32, Child>,
    settler: Settler,
}

/// Serves until the host closes the connection. `module` is the state of the kernel module.
pub fn serve(module: &str) -> Result<()> {
    let mut port = open_port()?;
    let mut server = Server { module, running: HashMap::new(), settler: Settler::new()? };
    loop {
        let request = match read_message(&mut port) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            result => result.context("agent port")?,
        };
        let answer = match server.answer(&request) {
            Ok(fields) => [vec![b"ok".to_vec()], fields].concat(),
            Err(error) => vec![b"error".to_vec(), format!("{error:#}").into_bytes()],
        };
        write_message(&mut port, &answer).context("agent port")?;
    }
}

impl Server<'_> {
    fn answer(&mut self, request: &[Vec<u8>]) -> Result<Answer> {
        let words: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
        Ok(match words.as_slice() {
            [b"hello"] => vec![self.module.into()],
            [b"run", timeout, line] => self.finish(Child::start(str::from_utf8(line)?)?, millis(timeout)?)?,
            [b"start", line] => {
                let child = Child::start(str::from_utf8(line)?)?;
                let pid = child.pid();
                self.running.insert(pid, child);
                vec![pid.to_string().into()]
            }
            [b"finish", pid, timeout] => {
                let child = self.running.remove(&number(pid)?).context("no such command was started")?;
                self.finish(child, millis(timeout)?)?
            }
            [b"read", path] => vec![fs::read(str::from_utf8(path)?)?],
            [b"write", path, bytes] => fs::write(str::from_utf8(path)?, bytes).map(|()| vec![])?,
            [b"received", netns, device, want, timeout] => {
                let (netns, device) = (str::from_utf8(netns)?, str::from_utf8(device)?);
                let counts = netdev::await_received(netns, device, number(want)?, millis(timeout)?)?;
                counts.map(|count| count.to_string().into()).to_vec()
            }
            [b"settle"] => self.settler.settle().map(|()| vec![])?,
            [b"log"] => vec![kernel_log().context("/dev/kmsg")?],
            _ => bail!("unknown request: the initramfs may be older than the tests"),
        })
    }

    fn finish(&self, child: Child, timeout: Duration) -> Result<Answer> {
        let answer = child.finish(timeout)?;
        // Orphans become children of process 1, which must wait for them. `wait` would also take
        // the status of a started command. So orphans stay zombies until no started command is
        // left.
        while self.running.is_empty() && matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
        Ok(answer)
    }
}

/// A decimal number.
pub fn number<N: FromStr<Err: std::error::Error + Send + Sync + 'static>>(bytes: &[u8]) -> Result<N> {
    Ok(str::from_utf8(bytes)?.parse()?)
}

/// A number of milliseconds.
pub fn millis(bytes: &[u8]) -> Result<Duration> {
    number(bytes).map(Duration::from_millis)
}

/// Opens the port when the host has connected. Before, a read returns end of file, as after the
/// host has closed the connection. There is no event for either.
fn open_port() -> Result<File> {
    let path = poll(TIMEOUT, &format!("a virtio-serial port named {PORT}"), || Ok(find_port()))?;
    let port = OpenOptions::new().read(true).write(true).open(path).context("agent port")?;
    poll(TIMEOUT, "the host to connect to the agent port", || {
        let events = sys::wait_for(&port, Duration::ZERO).context("agent port")?;
        Ok((!events.contains(PollFlags::HUP)).then_some(()))
    })?;
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
    let mut log = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open("/dev/kmsg")?;
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
