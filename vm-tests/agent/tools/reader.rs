// SPDX-License-Identifier: GPL-2.0
//! `read PATH HABIT STOP CPU`: reads a table again and again, in a peculiar way, until the file STOP is there. Makes the
//! file STOP.HABIT when it has been given some rows. Prints how often it has read, how many complete rows it was
//! given, and their sums.
//!
//! A row counts as given when its bytes came in sequence, from its first to its newline. A habit that jumps can
//! begin in the middle of a row, and has to tell whether it did: so the first cells of all rows must be of one length,
//! the one of HABIT in `odd:LENGTH`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::kill;
use super::rows::Rows;
use crate::{failed, sys};

/// Rounds and rows after which a reader has done its part.
const ENOUGH: u64 = 5;

pub fn read(path: &str, habit: &str, stop: &str, cpu: &str) -> Result<(), String> {
    let cpu: u64 = failed("CPU", cpu.parse())?;
    failed("CPU affinity", sys::run_on(1 << cpu))?;
    // A reader never rests, and others have to say when it is enough.
    sys::stand_back();
    let random = Random(u64::from(std::process::id()));
    let mut reader = Reader { path, rows: Rows::default(), random };
    let (mut rounds, mut done, ready) = (0, false, format!("{stop}.{habit}"));
    while !Path::new(stop).exists() {
        reader.round(habit)?;
        rounds += 1;
        if !done && rounds >= ENOUGH && reader.rows.count >= ENOUGH {
            failed(&ready, File::create(&ready))?;
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
    /// Reads once.
    fn round(&mut self, habit: &str) -> Result<(), String> {
        if habit == "killed" {
            let bytes = self.random.below(1500);
            return self.rows.add_whole_lines(&kill::read_and_die(self.path, bytes)?);
        }
        let file = failed(self.path, File::open(self.path))?;
        let random = &mut self.random;
        let text = match habit {
            "whole" => sequence(&file, || 1 << 16, usize::MAX),
            "bytes" => sequence(&file, || 1, usize::MAX),
            "page" => sequence(&file, || 4096, 1),
            "pieces" => sequence(&file, || 1 + random.below(300), usize::MAX),
            "rewind" => {
                let pieces = 1 + random.below(20);
                let text = failed(self.path, sequence(&file, || 1 + random.below(100), pieces))?;
                self.rows.add_whole_lines(&text)?;
                failed(self.path, (&file).seek(SeekFrom::Start(0)))?;
                sequence(&file, || 1 + random.below(1000), usize::MAX)
            }
            other => {
                let length = other.strip_prefix("odd:").ok_or_else(|| format!("no such habit: {habit}"))?;
                return self.odd(&file, failed(habit, length.parse())?);
            }
        };
        self.rows.add_whole_lines(&failed(self.path, text)?)
    }

    /// `pread` in places that have nothing to do with each other.
    fn odd(&mut self, file: &File, key_length: usize) -> Result<(), String> {
        let mut end = 0;
        for _ in 0..8 {
            let mut at = self.random.below(4000) as u64;
            if at == end {
                // This would go on with the row that the last piece began.
                at += 1;
            }
            let mut bytes = vec![0; 1 + self.random.below(2000)];
            let length = failed(self.path, file.read_at(&mut bytes, at))?;
            bytes.truncate(length);
            end = at + length as u64;
            let text = failed(self.path, String::from_utf8(bytes))?;
            self.rows.add_whole_lines(from_first_row(&text, key_length))?;
        }
        Ok(())
    }
}

/// Reads on from the file's position: pieces of the sizes that `size` gives, at most so many, until the end.
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

/// What begins in the middle of a line, from the first row in it on: that can be the first line, by chance.
fn from_first_row(text: &str, key_length: usize) -> &str {
    let key = text.split('\t').next().unwrap_or("");
    // A part of the header can have the length too.
    let row = key.len() == key_length && key.starts_with(|first: char| first.is_ascii_digit());
    if row || key == "*" {
        return text;
    }
    text.split_once('\n').map_or("", |(_, rest)| rest)
}

/// Numbers without a pattern (SplitMix64).
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
