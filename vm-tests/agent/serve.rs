// SPDX-License-Identifier: GPL-2.0
//! The host's requests, one after the other.
//!
//! | request | answer |
//! | --- | --- |
//! | `hello` | `ok` + what became of the module |
//! | `run` milliseconds line | `exit` status stdout stderr, or `late` stdout stderr |
//! | `start` line | `started` id |
//! | `finish` id milliseconds | as `run` |
//! | `read` path | `ok` bytes |
//! | `write` path bytes | `ok` |
//! | `received` netns device count milliseconds | `ok` packets length-errors |
//! | `settle` | `ok` |
//! | `log` | `ok` text |
//!
//! A request that fails is answered with `error` text.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::children::{Child, Children, Outcome};
use crate::netdev::{self, Settler};
use crate::setup::Machine;
use crate::{failed, proto, sys};

/// The virtio-serial port's name on the QEMU command line.
const PORT: &str = "agent";
const O_NONBLOCK: i32 = 0o4000;

type Answer = Vec<Vec<u8>>;

/// What requests work with.
struct Server<'a> {
    machine: &'a Machine,
    children: Children,
    running: HashMap<u32, Child>,
    settler: Settler,
}

/// Serves until the host hangs up.
pub fn serve(machine: &Machine) -> Result<(), String> {
    let mut port = open_port()?;
    let mut server = Server {
        machine,
        children: failed("reaper", Children::reap())?,
        running: HashMap::new(),
        settler: Settler::new(machine.cpus)?,
    };
    loop {
        let request = match proto::read_message(&mut port) {
            // The host is gone: there is nobody left to be there for.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            result => failed("agent port", result)?,
        };
        let answer = server.answer(&request).unwrap_or_else(|error| vec![b"error".to_vec(), error.into_bytes()]);
        let fields: Vec<&[u8]> = answer.iter().map(Vec::as_slice).collect();
        failed("agent port", proto::write_message(&mut port, &fields))?;
    }
}

impl Server<'_> {
    fn answer(&mut self, request: &[Vec<u8>]) -> Result<Answer, String> {
        let words: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
        match words.as_slice() {
            [b"hello"] => Ok(ok([self.machine.module.as_bytes()])),
            [b"run", patience, line] => {
                let child = failed("/bin/sh", self.children.start(text(line)?))?;
                self.finish(&child, millis(patience)?)
            }
            [b"start", line] => {
                let child = failed("/bin/sh", self.children.start(text(line)?))?;
                let pid = child.pid();
                self.running.insert(pid, child);
                Ok(vec![b"started".to_vec(), pid.to_string().into_bytes()])
            }
            [b"finish", pid, patience] => {
                let child = self.running.remove(&number(pid)?).ok_or("no such command was started")?;
                self.finish(&child, millis(patience)?)
            }
            [b"read", path] => {
                let path = text(path)?;
                Ok(ok([failed(path, fs::read(path))?.as_slice()]))
            }
            [b"write", path, bytes] => {
                let path = text(path)?;
                failed(path, fs::write(path, bytes))?;
                Ok(ok([]))
            }
            [b"received", netns, device, want, patience] => {
                let (want, patience) = (number(want)?, millis(patience)?);
                let received = netdev::await_received(text(netns)?, text(device)?, want, patience)?;
                Ok(ok([received.packets.to_string().as_bytes(), received.length_errors.to_string().as_bytes()]))
            }
            [b"settle"] => self.settler.settle().map(|()| ok([])),
            [b"log"] => Ok(ok([failed("/dev/kmsg", kernel_log())?.as_slice()])),
            _ => Err("the agent does not know this request; is the guest's image older than the tests?".into()),
        }
    }

    fn finish(&self, child: &Child, patience: Duration) -> Result<Answer, String> {
        let Outcome { status, stdout, stderr } = failed("command", self.children.finish(child, patience))?;
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
    failed("number", text(bytes)?.parse())
}

fn millis(bytes: &[u8]) -> Result<Duration, String> {
    number(bytes).map(Duration::from_millis)
}

/// Opens the port, once the host's end is there. Until the kernel has heard of the host, reading gives an end
/// of file just like a host that has hung up. There is no event that announces it, so this looks repeatedly.
fn open_port() -> Result<File, String> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        if let Some(path) = find_port() {
            let port = failed("agent port", OpenOptions::new().read(true).write(true).open(path))?;
            while failed("agent port", sys::wait_for(&port, Duration::ZERO))? & sys::POLLHUP != 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            return Ok(port);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(format!("no virtio-serial port named {PORT}"))
}

fn find_port() -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?;
    let port = ports
        .flatten()
        .find(|port| fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == PORT))?;
    Some(PathBuf::from("/dev").join(port.file_name()))
}

/// The whole kernel log, a record a line: `<priority>[microseconds] text`.
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
                text.extend_from_slice(b"<4>[0] agent: BUG: the kernel log overran, records are lost\n");
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
