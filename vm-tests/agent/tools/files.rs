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
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use crate::{context, sys};

pub fn steps(path: &str, steps: &[&str]) -> Result<(), String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return report(path, Err(error)),
    };
    for step in steps {
        let (word, argument) = step.split_once(':').unwrap_or((step, ""));
        let done = match word {
            "touch" | "await" => synchronize(word, Path::new(argument)),
            "pread" => {
                let (at, count) = argument.split_once(':').unwrap_or((argument, ""));
                read_at(&file, context(step, at.parse())?, context(step, count.parse())?).map(|bytes| shown(&bytes))
            }
            "poll" => sys::wait_for(&file, Duration::from_secs(1)).map(|events| format!("{events:x}")),
            "sendfile" => send_file(&file),
            "splice" => splice(&file),
            _ => with_number(&file, word, context(step, argument.parse())?)?,
        };
        report(step, done)?;
    }
    Ok(())
}

/// The steps whose argument is one number.
fn with_number(mut file: &File, word: &str, number: u32) -> Result<io::Result<String>, String> {
    let count = number as usize;
    Ok(match word {
        "read" => read(file, count).map(|bytes| shown(&bytes)),
        "all" => read_all(file, count),
        "preads" => backwards(file, count),
        "set" => file.seek(SeekFrom::Start(number.into())).map(|at| at.to_string()),
        "cur" => file.seek(SeekFrom::Current(number.into())).map(|at| at.to_string()),
        "end" => file.seek(SeekFrom::End(number.into())).map(|at| at.to_string()),
        "bad" => sys::read_to_bad_address(file, count).map(|length| length.to_string()),
        _ => return Err(format!("unknown step: {word}")),
    })
}

fn report(what: &str, done: io::Result<String>) -> Result<(), String> {
    match done.map_err(|error| error.raw_os_error().ok_or(error)) {
        Ok(output) => println!("{output}"),
        Err(Ok(number)) => println!("errno {number}"),
        Err(Err(error)) => return Err(format!("{what}: {error}")),
    }
    Ok(())
}

fn shown(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(bytes))
}

fn synchronize(word: &str, path: &Path) -> io::Result<String> {
    if word == "touch" {
        fs::write(path, "")?;
    }
    while !path.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(String::new())
}

fn read(mut file: &File, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    let length = file.read(&mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

fn read_all(file: &File, count: usize) -> io::Result<String> {
    let mut all = Vec::new();
    loop {
        let piece = read(file, count)?;
        if piece.is_empty() {
            return Ok(shown(&all));
        }
        all.extend(piece);
    }
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

fn backwards(file: &File, count: usize) -> io::Result<String> {
    let at = |number: usize| (number * count) as u64;
    let mut pieces = 0;
    while !read_at(file, at(pieces), count)?.is_empty() {
        pieces += 1;
    }
    let mut all = Vec::new();
    for number in (0..pieces).rev() {
        all.push(read_at(file, at(number), count)?);
    }
    all.reverse();
    Ok(shown(&all.concat()))
}

fn send_file(file: &File) -> io::Result<String> {
    let path = format!("/tmp/.sendfile-{}", std::process::id());
    let copy = File::create(&path)?;
    while sys::send_file(file, &copy, 1 << 16)? > 0 {}
    fs::read(path).map(|bytes| shown(&bytes))
}

fn splice(file: &File) -> io::Result<String> {
    let (mut reader, writer) = sys::pipe()?;
    let mut all = Vec::new();
    loop {
        let length = sys::splice_to(file, &writer, 4096)?;
        if length == 0 {
            return Ok(shown(&all));
        }
        let before = all.len();
        all.resize(before + length, 0);
        reader.read_exact(&mut all[before..])?;
    }
}
