// SPDX-License-Identifier: GPL-2.0
//! A reader that is killed while it reads byte by byte. What it had been given by then must be known exactly, so
//! it reads straight into memory that outlives it: the kernel's own write is the record.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::{failed, sys};

/// More than any table of the tests that use it.
const ROOM: usize = 1 << 20;

/// A table that has fewer bytes than the victim was to be given ends this wait.
const PATIENCE: Duration = Duration::from_millis(100);

/// Starts a process that reads byte by byte, kills it when it has been given about so many bytes, and gives all that it had got.
pub fn read_and_die(path: &str, bytes: usize) -> Result<String, String> {
    let memory = PathBuf::from(format!("/tmp/.read-into-{}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&memory);
    let file = failed("shared memory", file)?;
    failed("shared memory", file.set_len(ROOM as u64))?;
    // The victim is to have the only descriptor soon, so that its end closes the file.
    let table = failed(path, File::open(path))?;
    let victim = failed("fork", sys::start_reader(&table, &file, ROOM))?;
    drop(table);
    failed("shared memory", await_byte(&file, bytes as u64))?;
    // Its files are closed when this returns.
    failed("victim", sys::kill_child(victim))?;
    let mut text = failed("shared memory", fs::read(&memory))?;
    // No table has a NUL, so the first one is where the kernel has not been.
    text.truncate(text.iter().position(|&byte| byte == 0).unwrap_or(ROOM));
    failed(path, String::from_utf8(text))
}

/// Waits until something else than a NUL is in a place, or it takes too long after the first byte was there.
fn await_byte(file: &File, at: u64) -> io::Result<()> {
    let mut deadline = None;
    let mut byte = [0];
    loop {
        file.read_exact_at(&mut byte, at)?;
        if byte[0] != 0 || deadline.is_some_and(|deadline| Instant::now() > deadline) {
            return Ok(());
        }
        file.read_exact_at(&mut byte, 0)?;
        if byte[0] != 0 && deadline.is_none() {
            deadline = Some(Instant::now() + PATIENCE);
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}
