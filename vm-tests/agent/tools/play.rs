// SPDX-License-Identifier: GPL-2.0
//! `play DEVICE SCRIPT`: sends frames out of a device, with pauses in the guest's own time, and shows files on the
//! way. All of it is one process's doing, so nothing that the host does (or does not do in time) comes between.
//!
//! The script is a file with messages as in `proto.rs`, one a step:
//!
//! | step | does |
//! | --- | --- |
//! | `send` frame... | sends the frames, and waits until the receiving end has dealt with them |
//! | `pass` milliseconds | sleeps |
//! | `show` path | reads a file |
//!
//! Standard output is a message whose fields are what the files held.

use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::time::Duration;

use crate::netdev::Settler;
use crate::{failed, proto, sys};

/// No buffer space: the device's queue is full, and has room again soon.
const ENOBUFS: i32 = 105;

pub fn play(device: &str, script: &str) -> Result<(), String> {
    let index = failed(device, fs::read_to_string(format!("/sys/class/net/{device}/ifindex")))?;
    let mut socket = failed(device, sys::frame_socket(failed(device, index.trim().parse())?))?;
    let cpus = failed("CPUs", std::thread::available_parallelism())?.get();
    let mut settler = Settler::new(cpus)?;
    let mut script = BufReader::new(failed(script, File::open(script))?);
    let mut shown = Vec::new();
    loop {
        let step = match proto::read_message(&mut script) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            step => failed("script", step)?,
        };
        match step.split_first() {
            Some((word, frames)) if word == b"send" => {
                frames.iter().try_for_each(|frame| failed(device, send(&mut socket, frame)))?;
                settler.settle()?;
            }
            Some((word, [millis])) if word == b"pass" => std::thread::sleep(duration(millis)?),
            Some((word, [path])) if word == b"show" => {
                let path = failed("path", std::str::from_utf8(path))?;
                shown.push(failed(path, fs::read(path))?);
            }
            _ => return Err("the script has an unknown step".into()),
        }
    }
    let shown: Vec<&[u8]> = shown.iter().map(Vec::as_slice).collect();
    failed("standard output", proto::write_message(&mut io::stdout(), &shown))
}

fn duration(millis: &[u8]) -> Result<Duration, String> {
    let millis = failed("pause", std::str::from_utf8(millis))?;
    failed("pause", millis.parse()).map(Duration::from_millis)
}

fn send(socket: &mut File, frame: &[u8]) -> io::Result<()> {
    loop {
        match socket.write(frame) {
            Err(error) if error.raw_os_error() == Some(ENOBUFS) => std::thread::yield_now(),
            result => return result.map(drop),
        }
    }
}
