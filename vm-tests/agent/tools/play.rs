// SPDX-License-Identifier: GPL-2.0-only
//! `play DEVICE SCRIPT`: sends frames out of a device, sleeps by the guest's clock, and reads
//! files. One process does all of it, so the host's timing has no influence.
//!
//! The script is a file with one message (see `proto.rs`) for each step:
//!
//! | step | action |
//! | --- | --- |
//! | `send` frame... | sends the frames and waits until the kernel has processed them |
//! | `sleep` milliseconds | sleeps |
//! | `show` path | reads a file |
//!
//! Standard output is a message whose fields are the content of the files.

use std::fs::File;
use std::io::{self, BufReader, Write};

use anyhow::{Context, Result, bail};
use fs_err as fs;
use rustix::io::Errno;
use rustix::net::SocketType;
use vm_agent::proto::{read_message, write_message};

use crate::netdev::Settler;
use crate::serve::millis;
use crate::sys;

pub fn play(device: &str, script: &str) -> Result<()> {
    let mut socket = sys::packet_socket(SocketType::RAW, device, 0).with_context(|| device.to_owned())?;
    let mut settler = Settler::new()?;
    let mut script = BufReader::new(fs::File::open(script)?);
    let mut shown = Vec::new();
    loop {
        let step = match read_message(&mut script) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            step => step.context("script")?,
        };
        match step.split_first() {
            Some((word, frames)) if word == b"send" => {
                frames.iter().try_for_each(|frame| send(&mut socket, frame)).with_context(|| device.to_owned())?;
                settler.settle()?;
            }
            Some((word, [time])) if word == b"sleep" => std::thread::sleep(millis(time)?),
            Some((word, [path])) if word == b"show" => shown.push(fs::read(std::str::from_utf8(path)?)?),
            _ => bail!("the script has an unknown step"),
        }
    }
    write_message(&mut io::stdout(), &shown).context("standard output")
}

pub(super) fn send(socket: &mut File, frame: &[u8]) -> io::Result<()> {
    loop {
        match socket.write(frame) {
            // The device's queue is full for a moment.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOBUFS) => std::thread::yield_now(),
            result => return result.map(drop),
        }
    }
}
