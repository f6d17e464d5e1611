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

use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::time::Duration;

use crate::netdev::Settler;
use crate::{context, proto, sys};

/// No buffer space: the device's queue is full for a moment.
const ENOBUFS: i32 = 105;

pub fn play(device: &str, script: &str) -> Result<(), String> {
    let index = context(device, fs::read_to_string(format!("/sys/class/net/{device}/ifindex")))?;
    let mut socket = context(device, sys::frame_socket(context(device, index.trim().parse())?))?;
    let cpus = context("CPUs", std::thread::available_parallelism())?.get();
    let mut settler = Settler::new(cpus)?;
    let mut script = BufReader::new(context(script, File::open(script))?);
    let mut shown = Vec::new();
    loop {
        let step = match proto::read_message(&mut script) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            step => context("script", step)?,
        };
        match step.split_first() {
            Some((word, frames)) if word == b"send" => {
                frames.iter().try_for_each(|frame| context(device, send(&mut socket, frame)))?;
                settler.settle()?;
            }
            Some((word, [millis])) if word == b"sleep" => std::thread::sleep(duration(millis)?),
            Some((word, [path])) if word == b"show" => {
                let path = context("path", std::str::from_utf8(path))?;
                shown.push(context(path, fs::read(path))?);
            }
            _ => return Err("the script has an unknown step".into()),
        }
    }
    let shown: Vec<&[u8]> = shown.iter().map(Vec::as_slice).collect();
    context("standard output", proto::write_message(&mut io::stdout(), &shown))
}

fn duration(millis: &[u8]) -> Result<Duration, String> {
    let millis = context("pause", std::str::from_utf8(millis))?;
    context("pause", millis.parse()).map(Duration::from_millis)
}

fn send(socket: &mut File, frame: &[u8]) -> io::Result<()> {
    loop {
        match socket.write(frame) {
            Err(error) if error.raw_os_error() == Some(ENOBUFS) => std::thread::yield_now(),
            result => return result.map(drop),
        }
    }
}
