// SPDX-License-Identifier: GPL-2.0-only
//! A reader that is killed while it reads byte by byte. It reads into shared memory, which outlives
//! it, so that the bytes that it got are known exactly.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::poll::poll;
use crate::{context, sys};

/// Longer than the tables of the tests.
const ROOM: usize = 1 << 20;

/// How long the reader may take for its first byte.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take after that. It reaches this timeout when the table is shorter.
const READ_TIMEOUT: Duration = Duration::from_millis(100);
const INTERVAL: Duration = Duration::from_micros(200);

/// Starts a process that reads a file byte by byte, kills it after about `bytes` bytes, and returns
/// what it has read.
pub fn read_and_die(path: &str, bytes: usize) -> Result<String, String> {
    let memory = PathBuf::from(format!("/tmp/.read-into-{}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&memory);
    let file = context("shared memory", file)?;
    context("shared memory", file.set_len(ROOM as u64))?;
    // Only the reader keeps the table open, so that its end closes the table.
    let table = context(path, File::open(path))?;
    let reader = context("fork", sys::start_reader(&table, &file, ROOM))?;
    drop(table);
    context("shared memory", await_byte(&file, bytes as u64))?;
    // This waits until the reader's files are closed.
    context("reader", sys::kill_child(reader))?;
    let mut text = context("shared memory", fs::read(&memory))?;
    // Tables have no NUL, so the first NUL ends what was read.
    text.truncate(text.iter().position(|&byte| byte == 0).unwrap_or(ROOM));
    context(path, String::from_utf8(text))
}

/// Waits until the byte at an offset is written, or a time after the first byte is written.
fn await_byte(file: &File, offset: u64) -> io::Result<()> {
    for (offset, timeout) in [(0, START_TIMEOUT), (offset, READ_TIMEOUT)] {
        poll(timeout, INTERVAL, || {
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset)?;
            Ok::<_, io::Error>((byte[0] != 0).then_some(()))
        })?;
    }
    Ok(())
}
