// SPDX-License-Identifier: GPL-2.0-only
//! `file PATH STEP...`: opens a file and performs the steps. Prints one line for each.
//!
//! | step | action | output |
//! | --- | --- | --- |
//! | `read:N` | one `read` of at most N bytes | the bytes |
//! | `pread:AT:N` | `pread` until all N bytes are there | the bytes |
//! | `all:N` | `read` of N bytes each until the end | the bytes |
//! | `preads:N` | `pread` of N bytes each, from the end to the start | all bytes in order |
//! | `set:N`, `cur:N`, `end:N` | `lseek` | the position |
//! | `bad:N` | `read` to an invalid address | |
//! | `poll` | waits for input for one second at most | `revents` in hexadecimal |
//! | `sendfile`, `splice` | copies until the end | the bytes |
//! | `touch:FILE`, `await:FILE` | creates a file, waits for one | |
//!
//! Bytes are printed as a Rust string literal. A step that fails prints `errno N`.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::sendfile;
use rustix::pipe::{SpliceFlags, pipe, splice};

use super::reader::sequence;
use crate::{child, sys};

pub fn steps(path: &str, steps: &[&str]) -> Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return report(path, Err(error.into())),
    };
    for step in steps {
        report(step, perform(&file, step))?;
    }
    Ok(())
}

/// Performs a step and returns its output.
fn perform(mut file: &File, step: &str) -> Result<String> {
    let (word, argument) = step.split_once(':').unwrap_or((step, ""));
    let number = || argument.parse::<u32>();
    let bytes = match word {
        "touch" | "await" => return synchronize(word, Path::new(argument)),
        "poll" => return Ok(format!("{:x}", sys::wait_for(file, Duration::from_secs(1))?)),
        "set" => return Ok(file.seek(SeekFrom::Start(number()?.into()))?.to_string()),
        "cur" => return Ok(file.seek(SeekFrom::Current(number()?.into()))?.to_string()),
        "end" => return Ok(file.seek(SeekFrom::End(number()?.into()))?.to_string()),
        "bad" => return Ok(read_to_bad_address(file, argument.parse()?)?.to_string()),
        "read" => {
            let count = argument.parse()?;
            sequence(file, || count, 1)?
        }
        "pread" => {
            let (at, count) = argument.split_once(':').context("pread without a count")?;
            read_at(file, at.parse()?, count.parse()?)?
        }
        "all" => {
            let count = argument.parse()?;
            sequence(file, || count, usize::MAX)?
        }
        "preads" => backwards(file, argument.parse()?)?,
        "sendfile" => send_file(file)?,
        "splice" => splice_all(file)?,
        _ => bail!("unknown step"),
    };
    Ok(format!("{:?}", String::from_utf8_lossy(&bytes)))
}

/// Prints the output of a step, or the number of its error.
fn report(what: &str, done: Result<String>) -> Result<()> {
    match done {
        Ok(output) => println!("{output}"),
        Err(error) => match error.downcast_ref().and_then(io::Error::raw_os_error) {
            Some(number) => println!("errno {number}"),
            None => return Err(error.context(what.to_owned())),
        },
    }
    Ok(())
}

fn synchronize(word: &str, path: &Path) -> Result<String> {
    if word == "touch" {
        fs::write(path, "")?;
    }
    while !path.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(String::new())
}

/// `read` to address 16, which is never mapped.
fn read_to_bad_address(file: &File, count: usize) -> io::Result<usize> {
    // SAFETY: the kernel checks the address before it writes; the first page is never mapped.
    let length = unsafe { libc::read(file.as_raw_fd(), std::ptr::without_provenance_mut(16), count) };
    usize::try_from(length).map_err(|_| io::Error::last_os_error())
}

fn read_at(file: &File, at: u64, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    let mut got = 0;
    while got < count {
        match file.read_at(&mut bytes[got..], at + got as u64)? {
            0 => break,
            more => got += more,
        }
    }
    bytes.truncate(got);
    Ok(bytes)
}

fn backwards(file: &File, count: usize) -> io::Result<Vec<u8>> {
    let piece = |number: usize| read_at(file, (number * count) as u64, count);
    let mut pieces = 0;
    while !piece(pieces)?.is_empty() {
        pieces += 1;
    }
    let mut all = (0..pieces).rev().map(piece).collect::<io::Result<Vec<_>>>()?;
    all.reverse();
    Ok(all.concat())
}

fn send_file(file: &File) -> io::Result<Vec<u8>> {
    let copy = tempfile::tempfile()?;
    while sendfile(&copy, file, None, 1 << 16)? > 0 {}
    child::read_all(&copy)
}

fn splice_all(file: &File) -> io::Result<Vec<u8>> {
    let (reader, writer) = pipe()?;
    let (mut reader, mut all) = (File::from(reader), Vec::new());
    loop {
        match splice(file, None, &writer, None, 4096, SpliceFlags::empty())? {
            0 => return Ok(all),
            length => reader.by_ref().take(length as u64).read_to_end(&mut all)?,
        };
    }
}
