// SPDX-License-Identifier: GPL-2.0-only
//! `read PATH PATTERN STOP CPU`: reads a table repeatedly with a read pattern until the file STOP
//! exists. Creates the file STOP.PATTERN when it has read some rows. Prints how often it has read
//! the table, how many complete rows it got, and their sums.
//!
//! A row is complete when its bytes were read in order, from the first one to the newline.
//! `random:LENGTH` reads at random offsets, which can be inside of a row. To detect that, the first
//! cells of all rows must have LENGTH bytes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::kill;
use super::rows::Rows;
use crate::{context, sys};

/// The number of rounds and of rows after which STOP.PATTERN is created.
const ENOUGH: u64 = 5;

pub fn read(path: &str, pattern: &str, stop: &str, cpu: &str) -> Result<(), String> {
    let cpu: u64 = context("CPU", cpu.parse())?;
    context("CPU affinity", sys::run_on(1 << cpu))?;
    // A reader never sleeps; it must not slow down the others.
    sys::lower_priority();
    let random = Random(u64::from(std::process::id()));
    let mut reader = Reader { path, rows: Rows::default(), random };
    let (mut rounds, mut done, ready) = (0, false, format!("{stop}.{pattern}"));
    while !Path::new(stop).exists() {
        reader.round(pattern)?;
        rounds += 1;
        if !done && rounds >= ENOUGH && reader.rows.count >= ENOUGH {
            context(&ready, File::create(&ready))?;
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
    random: Random,
}

impl Reader<'_> {
    /// Reads the table once.
    fn round(&mut self, pattern: &str) -> Result<(), String> {
        if pattern == "killed" {
            let bytes = self.random.below(1500);
            return self.rows.add_whole_lines(&kill::read_and_die(self.path, bytes)?);
        }
        let file = context(self.path, File::open(self.path))?;
        let random = &mut self.random;
        let text = match pattern {
            "whole" => sequence(&file, || 1 << 16, usize::MAX),
            "bytes" => sequence(&file, || 1, usize::MAX),
            "page" => sequence(&file, || 4096, 1),
            "pieces" => sequence(&file, || 1 + random.below(300), usize::MAX),
            "rewind" => {
                let pieces = 1 + random.below(20);
                let text = context(self.path, sequence(&file, || 1 + random.below(100), pieces))?;
                self.rows.add_whole_lines(&text)?;
                context(self.path, (&file).seek(SeekFrom::Start(0)))?;
                sequence(&file, || 1 + random.below(1000), usize::MAX)
            }
            other => {
                let length = other.strip_prefix("random:").ok_or_else(|| format!("unknown pattern: {pattern}"))?;
                return self.random_offsets(&file, context(pattern, length.parse())?);
            }
        };
        self.rows.add_whole_lines(&context(self.path, text)?)
    }

    /// `pread` at random offsets.
    fn random_offsets(&mut self, file: &File, key_length: usize) -> Result<(), String> {
        let mut end = 0;
        for _ in 0..8 {
            let mut at = self.random.below(4000) as u64;
            if at == end {
                // This would continue the last row of the piece before.
                at += 1;
            }
            let mut bytes = vec![0; 1 + self.random.below(2000)];
            let length = context(self.path, file.read_at(&mut bytes, at))?;
            bytes.truncate(length);
            end = at + length as u64;
            let text = context(self.path, String::from_utf8(bytes))?;
            self.rows.add_whole_lines(from_first_row(&text, key_length))?;
        }
        Ok(())
    }
}

/// Reads at most `pieces` pieces from the file's position on, with the lengths that `size` returns.
fn sequence(mut file: &File, mut size: impl FnMut() -> usize, pieces: usize) -> io::Result<String> {
    let mut text = Vec::new();
    for _ in 0..pieces {
        let before = text.len();
        text.resize(before + size(), 0);
        let length = file.read(&mut text[before..])?;
        text.truncate(before + length);
        if length == 0 {
            break;
        }
    }
    String::from_utf8(text).map_err(io::Error::other)
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

/// Pseudo-random numbers (SplitMix64, <https://prng.di.unimi.it/splitmix64.c>).
struct Random(u64);

impl Random {
    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed >> 33) as usize) % end
    }
}
