// SPDX-License-Identifier: GPL-2.0-only
//! `read PATH PATTERN STOP CPU`: reads a table repeatedly with a read pattern until the file STOP
//! exists. Creates the file STOP.PATTERN when it has read some rows. Prints how often it has read
//! the table, how many complete rows it got, and their sums.
//!
//! A row is complete when its bytes were read in order, from the first one to the newline.
//!
//! | pattern | how it reads the table once |
//! | --- | --- |
//! | `whole` | to the end, with a buffer of 64 KiB |
//! | `bytes` | to the end, byte by byte |
//! | `page` | one read of 4096 bytes |
//! | `pieces` | to the end, in pieces of random length |
//! | `rewind` | some pieces, then from the start to the end |
//! | `killed` | byte by byte, in a process that is killed while it reads |
//! | `random:LENGTH` | eight pieces at random offsets |
//!
//! A random offset can be inside of a row. To detect that, the first cells of all rows must have
//! LENGTH bytes.

use std::io::{self, Read, Seek};
use std::path::Path;
use std::str;

use anyhow::{Context, Result};
use fastrand::Rng;
use fs_err::File;
use fs_err::os::unix::fs::FileExt;
use rustix::process::nice;

use super::kill;
use super::rows::Rows;
use crate::sys;

/// The number of rounds and of rows after which STOP.PATTERN is created.
const ENOUGH: u64 = 5;

pub fn read(path: &str, pattern: &str, stop: &str, cpu: &str) -> Result<()> {
    sys::run_on([cpu.parse().context("CPU")?]).context("CPU affinity")?;
    // A reader never sleeps; it must not slow down the others.
    nice(19)?;
    let random = Rng::with_seed(std::process::id().into());
    let mut reader = Reader { path, rows: Rows::default(), random };
    let (mut rounds, mut done, ready) = (0, false, format!("{stop}.{pattern}"));
    while !Path::new(stop).exists() {
        reader.round(pattern)?;
        rounds += 1;
        if !done && rounds >= ENOUGH && reader.rows.count >= ENOUGH {
            File::create(&ready)?;
            done = true;
        }
    }
    println!("{rounds}\t{}", reader.rows.count);
    reader.rows.print();
    Ok(())
}

struct Reader<'a> {
    path: &'a str,
    rows: Rows,
    random: Rng,
}

impl Reader<'_> {
    /// Reads the table once.
    fn round(&mut self, pattern: &str) -> Result<()> {
        if pattern == "killed" {
            let bytes = self.random.usize(..1500);
            return self.rows.add_whole_lines(&kill::read_until_killed(self.path, bytes)?);
        }
        let mut file = File::open(self.path)?;
        let random = &mut self.random;
        let text = match pattern {
            "whole" => sequence(&mut file, || 1 << 16, usize::MAX),
            "bytes" => sequence(&mut file, || 1, usize::MAX),
            "page" => sequence(&mut file, || 4096, 1),
            "pieces" => sequence(&mut file, || 1 + random.usize(..300), usize::MAX),
            "rewind" => {
                let pieces = 1 + random.usize(..20);
                let text = sequence(&mut file, || 1 + random.usize(..100), pieces)?;
                self.rows.add_whole_lines(str::from_utf8(&text)?)?;
                file.rewind()?;
                sequence(&mut file, || 1 + random.usize(..1000), usize::MAX)
            }
            other => {
                let length = other.strip_prefix("random:").with_context(|| format!("unknown pattern: {pattern}"))?;
                return self.random_offsets(&file, length.parse()?);
            }
        };
        self.rows.add_whole_lines(str::from_utf8(&text?)?)
    }

    /// `pread` at random offsets.
    fn random_offsets(&mut self, file: &File, key_length: usize) -> Result<()> {
        let mut end = 0;
        for _ in 0..8 {
            let mut at = self.random.usize(..4000) as u64;
            if at == end {
                // This would continue the last row of the piece before.
                at += 1;
            }
            let mut bytes = vec![0; 1 + self.random.usize(..2000)];
            let length = file.read_at(&mut bytes, at)?;
            bytes.truncate(length);
            end = at + length as u64;
            self.rows.add_whole_lines(from_first_row(str::from_utf8(&bytes)?, key_length))?;
        }
        Ok(())
    }
}

/// Reads at most `pieces` pieces from the file's position on, with the lengths that `size` returns.
pub fn sequence(mut file: impl Read, mut size: impl FnMut() -> usize, pieces: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for _ in 0..pieces {
        let before = bytes.len();
        bytes.resize(before + size(), 0);
        let length = file.read(&mut bytes[before..])?;
        bytes.truncate(before + length);
        if length == 0 {
            break;
        }
    }
    Ok(bytes)
}

/// The text from the first complete row on. By chance the text can begin with one.
fn from_first_row(text: &str, key_length: usize) -> &str {
    let key = text.split('\t').next().unwrap_or("");
    // A part of the header can have this length too.
    let row = key.len() == key_length && key.starts_with(|first: char| first.is_ascii_digit());
    if row || key == "*" {
        return text;
    }
    text.split_once('\n').map_or("", |(_, rest)| rest)
}
