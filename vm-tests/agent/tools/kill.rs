// SPDX-License-Identifier: GPL-2.0-only
//! A reader that is killed while it reads byte by byte. It reads into shared memory, which outlives
//! it, so that the bytes that it got are known exactly.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::process::Signal;
use vm_agent::poll::poll_every;

use crate::child::read_all;

/// Longer than the tables of the tests.
const ROOM: usize = 1 << 20;

/// How long the reader may take for its first byte.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take after that. It reaches this timeout when the table is shorter.
const READ_TIMEOUT: Duration = Duration::from_millis(100);
const INTERVAL: Duration = Duration::from_micros(200);

/// Starts a process that reads a file byte by byte, kills it after about `bytes` bytes, and returns
/// what it has read.
pub fn read_until_killed(path: &str, bytes: usize) -> Result<String> {
    let memory = tempfile::tempfile()?;
    memory.set_len(ROOM as u64)?;
    let mut reader = Command::new("/proc/self/exe");
    let mut reader = reader.args(["read-bytes", path]).stdout(memory.try_clone()?).spawn()?;
    await_byte(&memory, 0, &mut reader, START_TIMEOUT)?;
    await_byte(&memory, bytes as u64, &mut reader, READ_TIMEOUT)?;
    reader.kill()?;
    // This waits until the reader's files are closed.
    let status = reader.wait()?;
    ensure!(status.signal() == Some(Signal::KILL.as_raw()), "the reader of {path} has ended ({status})");
    let mut text = read_all(&memory)?;
    // Tables have no NUL, so the first NUL ends what was read.
    text.truncate(text.iter().position(|&byte| byte == 0).unwrap_or(ROOM));
    Ok(String::from_utf8(text)?)
}

/// Waits until the byte at an offset is written, the reader has ended or the time is over.
fn await_byte(file: &File, offset: u64, reader: &mut Child, timeout: Duration) -> Result<()> {
    let mut byte = [0];
    poll_every(INTERVAL, timeout, || {
        file.read_exact_at(&mut byte, offset)?;
        Ok((byte != [0] || reader.try_wait()?.is_some()).then_some(()))
    })?;
    Ok(())
}

/// `read-bytes PATH`: reads a file byte by byte into a shared mapping of standard output, which is
/// a file of [`ROOM`] bytes. Then waits to be killed.
pub fn read_bytes(path: &str) -> Result<()> {
    let mut table = File::open(path)?;
    let (protection, null) = (ProtFlags::READ | ProtFlags::WRITE, std::ptr::null_mut());
    // SAFETY: a new mapping at an address that the kernel chooses does not overlap memory in use.
    let memory = unsafe { mmap(null, ROOM, protection, MapFlags::SHARED, io::stdout(), 0)? };
    // SAFETY: the mapping has ROOM bytes and stays as long as this process. Nothing else in this
    // process refers to it.
    let memory = unsafe { std::slice::from_raw_parts_mut(memory.cast::<u8>(), ROOM) };
    for byte in memory.chunks_mut(1) {
        if table.read(byte)? == 0 {
            break;
        }
    }
    loop {
        std::thread::park();
    }
}
