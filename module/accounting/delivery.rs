// SPDX-License-Identifier: GPL-2.0

//! Handing lines to a reader, who takes as many bytes at a time as it likes.
//!
//! A file that is cleared by reading must know which lines have arrived. So each line is claimed from
//! the file when its first byte is handed out, and it is the reader's when its last byte has been. A reader
//! that goes away before, or elsewhere in the file, gives the line back.

use super::report::LONGEST_LINE;
use core::fmt;

/// A text that is made line by line while it is read.
pub trait Lines {
    /// What a reader keeps from the beginning to the end: which lines there are.
    type Snapshot;
    /// What a line has taken out of the file.
    type Claim;
    /// Why it can't be read.
    type Error: From<ReadError>;

    /// Called when reading begins.
    fn snapshot(&self) -> Result<Self::Snapshot, Self::Error>;

    /// Makes the line at `position`, of at most [`LONGEST_LINE`] bytes and perhaps empty. `None` at the end.
    fn line(
        &self,
        snapshot: &Self::Snapshot,
        position: usize,
        out: &mut Line,
    ) -> Result<Option<Step<Self::Claim>>, Self::Error>;

    /// Takes back a line that was not delivered.
    fn give_back(&self, claim: Self::Claim);
}

/// A line that has been made.
#[derive(Debug)]
pub struct Step<C> {
    /// The position of the line after it.
    pub next: usize,
    /// What it took.
    pub claim: Option<C>,
}

/// Why a read fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The reader's buffer cannot be written to.
    Fault,
    /// A line is longer than [`LONGEST_LINE`].
    LongLine,
    /// An allocation failed.
    NoMemory,
}

/// Where the reader wants to have the bytes.
pub trait Sink {
    /// How many more it takes.
    fn space(&self) -> usize;

    /// Takes some of the bytes, and says how many: fewer than there are and there is space for only if it
    /// fails.
    fn put(&mut self, bytes: &[u8]) -> usize;
}

/// The text of a line.
#[derive(Debug)]
pub struct Line {
    bytes: [u8; LONGEST_LINE],
    length: usize,
}

impl Line {
    const fn new() -> Self {
        Self {
            bytes: [0; LONGEST_LINE],
            length: 0,
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes
            .get_mut(self.length..end)
            .ok_or(fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

impl From<fmt::Error> for ReadError {
    fn from(_: fmt::Error) -> Self {
        Self::LongLine
    }
}

/// Bytes that one call hands out at most: an end for those who want a gigabyte at once.
const MOST: usize = 1 << 16;

/// One open file.
pub struct Reader<L: Lines> {
    snapshot: Option<L::Snapshot>,
    /// The position of the line after `line`.
    next: usize,
    line: Line,
    /// How many bytes of `line` have been handed out.
    sent: usize,
    /// What `line` has taken out of the file, until it is delivered.
    claim: Option<L::Claim>,
    /// Where the next byte is in the text.
    offset: u64,
}

impl<L: Lines> Default for Reader<L> {
    fn default() -> Self {
        Self {
            snapshot: None,
            next: 0,
            line: Line::new(),
            sent: 0,
            claim: None,
            offset: 0,
        }
    }
}

impl<L: Lines> Reader<L> {
    /// Hands out bytes from `offset` on, and says how many; none at the end of the text.
    ///
    /// The text begins anew with each read at 0. A read that does not follow the one before skips lines, which
    /// stay in the file, as does the line in the middle of which it begins.
    pub fn read(
        &mut self,
        lines: &L,
        offset: u64,
        sink: &mut impl Sink,
    ) -> Result<usize, L::Error> {
        if sink.space() == 0 {
            return Ok(0);
        }
        if offset == 0 || offset != self.offset || self.snapshot.is_none() {
            self.seek(lines, offset)?;
        }
        let mut done = 0;
        while sink.space() > 0 && done < MOST {
            match self.fill(lines) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
            let taken = self.hand_out(sink);
            if taken == 0 {
                return if done > 0 {
                    Ok(done)
                } else {
                    Err(ReadError::Fault.into())
                };
            }
            done += taken;
        }
        Ok(done)
    }

    /// The reader goes away.
    pub fn close(&mut self, lines: &L) {
        self.abandon(lines);
        self.snapshot = None;
    }

    /// Begins anew and skips what is before `offset`.
    fn seek(&mut self, lines: &L, offset: u64) -> Result<(), L::Error> {
        self.close(lines);
        (self.next, self.offset) = (0, 0);
        self.snapshot = Some(lines.snapshot()?);
        while self.offset < offset && self.fill(lines)? {
            // It would not be delivered as a whole.
            if let Some(claim) = self.claim.take() {
                lines.give_back(claim);
            }
            let skipped = self
                .line
                .length
                .min(usize::try_from(offset - self.offset).unwrap_or(usize::MAX));
            self.sent = skipped;
            self.offset += skipped as u64;
        }
        // Behind the end there is nothing, wherever that is.
        self.offset = offset;
        Ok(())
    }

    /// Sees to it that there is something in the line that has not been handed out. `false` at the end.
    fn fill(&mut self, lines: &L) -> Result<bool, L::Error> {
        let Some(snapshot) = &self.snapshot else {
            return Ok(false);
        };
        while self.sent == self.line.length {
            (self.sent, self.line.length) = (0, 0);
            let made = lines.line(snapshot, self.next, &mut self.line);
            let Ok(Some(step)) = made else {
                // Nothing of a line that could not be made is handed out.
                self.line.length = 0;
                return made.map(|_| false);
            };
            (self.next, self.claim) = (step.next, step.claim);
        }
        Ok(true)
    }

    fn hand_out(&mut self, sink: &mut impl Sink) -> usize {
        let taken = sink.put(&self.line.as_bytes()[self.sent..]);
        self.sent += taken;
        self.offset += taken as u64;
        if self.sent == self.line.length {
            self.claim = None;
        }
        taken
    }

    fn abandon(&mut self, lines: &L) {
        if let Some(claim) = self.claim.take() {
            lines.give_back(claim);
        }
        (self.sent, self.line.length) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::{
        cell::{Cell, RefCell},
        fmt::Write as _,
        string::String,
        vec,
        vec::Vec,
    };

    /// A file of numbers that are cleared by reading, with a header.
    struct Numbers {
        numbers: RefCell<Vec<u64>>,
        /// Fails at this position.
        broken: Cell<Option<usize>>,
    }

    impl Lines for Numbers {
        type Snapshot = usize;
        type Claim = (usize, u64);
        type Error = ReadError;

        fn snapshot(&self) -> Result<usize, ReadError> {
            Ok(self.numbers.borrow().len())
        }

        fn line(
            &self,
            rows: &usize,
            position: usize,
            out: &mut Line,
        ) -> Result<Option<Step<Self::Claim>>, ReadError> {
            let next = position + 1;
            if position == 0 {
                out.write_str("HEADER\n")?;
                return Ok(Some(Step { next, claim: None }));
            }
            if position > *rows {
                return Ok(None);
            }
            let number = core::mem::take(&mut self.numbers.borrow_mut()[position - 1]);
            if number == 0 {
                return Ok(Some(Step { next, claim: None }));
            }
            writeln!(out, "{position} {number}")?;
            if self.broken.get() == Some(position) {
                self.give_back((position - 1, number));
                return Err(ReadError::LongLine);
            }
            Ok(Some(Step {
                next,
                claim: Some((position - 1, number)),
            }))
        }

        fn give_back(&self, (row, number): Self::Claim) {
            self.numbers.borrow_mut()[row] += number;
        }
    }

    fn file(numbers: &[u64]) -> Numbers {
        Numbers {
            numbers: RefCell::new(numbers.to_vec()),
            broken: Cell::new(None),
        }
    }

    /// Takes up to `space` bytes, and then fails.
    struct Taker {
        text: Vec<u8>,
        space: usize,
        fails_after: usize,
    }

    impl Sink for Taker {
        fn space(&self) -> usize {
            self.space
        }

        fn put(&mut self, bytes: &[u8]) -> usize {
            let taken = bytes.len().min(self.space).min(self.fails_after);
            self.text.extend(&bytes[..taken]);
            self.space -= taken;
            self.fails_after -= taken;
            taken
        }
    }

    fn read_at(reader: &mut Reader<Numbers>, file: &Numbers, offset: u64, space: usize) -> String {
        let mut taker = Taker {
            text: vec![],
            space,
            fails_after: usize::MAX,
        };
        let count = reader.read(file, offset, &mut taker).unwrap();
        assert_eq!(count, taker.text.len());
        String::from_utf8(taker.text).unwrap()
    }

    /// Reads on until there is no more.
    fn read_all(reader: &mut Reader<Numbers>, file: &Numbers, offset: u64, space: usize) -> String {
        let mut text = String::new();
        loop {
            let part = read_at(reader, file, offset + text.len() as u64, space);
            if part.is_empty() {
                return text;
            }
            text += &part;
        }
    }

    const WHOLE: &str = "HEADER\n1 10\n3 30\n4 40\n";

    #[test]
    fn any_step_reads_the_same_text_and_clears_it() {
        for space in 1..40 {
            let (file, mut reader) = (file(&[10, 0, 30, 40]), Reader::default());
            assert_eq!(read_all(&mut reader, &file, 0, space), WHOLE);
            assert_eq!(*file.numbers.borrow(), [0; 4]);
            assert_eq!(read_all(&mut reader, &file, 0, space), "HEADER\n");
        }
    }

    #[test]
    fn what_was_not_delivered_stays() {
        for length in 0..WHOLE.len() {
            let (file, mut reader) = (file(&[10, 0, 30, 40]), Reader::default());
            let text = read_at(&mut reader, &file, 0, length);
            assert_eq!(text, WHOLE[..length]);
            reader.close(&file);
            let delivered = |line: &str| text.contains(line);
            let left = |line: &str, number: u64| if delivered(line) { 0 } else { number };
            assert_eq!(
                *file.numbers.borrow(),
                [
                    left("1 10\n", 10),
                    0,
                    left("3 30\n", 30),
                    left("4 40\n", 40)
                ]
            );
        }
    }

    #[test]
    fn nobody_else_gets_a_line_that_is_on_its_way() {
        let (file, mut slow, mut quick) = (file(&[10, 20]), Reader::default(), Reader::default());
        assert_eq!(read_at(&mut slow, &file, 0, 8), "HEADER\n1");
        assert_eq!(read_all(&mut quick, &file, 0, 100), "HEADER\n2 20\n");
        file.numbers.borrow_mut()[0] += 5;
        assert_eq!(read_all(&mut slow, &file, 8, 100), " 10\n");
        assert_eq!(*file.numbers.borrow(), [5, 0]);
    }

    #[test]
    fn beginning_anew_gives_back() {
        let (file, mut reader) = (file(&[10, 20]), Reader::default());
        assert_eq!(read_at(&mut reader, &file, 0, 9), "HEADER\n1 ");
        assert_eq!(read_all(&mut reader, &file, 0, 3), "HEADER\n1 10\n2 20\n");
    }

    #[test]
    fn reading_anywhere_gives_the_same_bytes_and_clears_whole_lines_only() {
        for offset in 0..WHOLE.len() + 5 {
            let (file, mut reader) = (file(&[10, 0, 30, 40]), Reader::default());
            let rest = WHOLE.get(offset..).unwrap_or_default();
            assert_eq!(read_all(&mut reader, &file, offset as u64, 4), rest);
            reader.close(&file);
            for (row, line) in [(0, "1 10\n"), (2, "3 30\n"), (3, "4 40\n")] {
                assert_eq!(
                    file.numbers.borrow()[row] == 0,
                    rest.contains(line),
                    "{offset}: {line}"
                );
            }
        }
    }

    #[test]
    fn a_fault_loses_nothing() {
        for fails_after in 0..WHOLE.len() {
            let (file, mut reader) = (file(&[10, 0, 30, 40]), Reader::default());
            let mut taker = Taker {
                text: vec![],
                space: 100,
                fails_after,
            };
            let result = reader.read(&file, 0, &mut taker);
            assert_eq!(
                result,
                if fails_after == 0 {
                    Err(ReadError::Fault)
                } else {
                    Ok(fails_after)
                }
            );
            let rest = read_all(&mut reader, &file, fails_after as u64, 100);
            assert_eq!(String::from_utf8(taker.text).unwrap() + &rest, WHOLE);
        }
    }

    #[test]
    fn a_line_that_cannot_be_made_ends_the_read() {
        let (file, mut reader) = (file(&[10, 20]), Reader::default());
        file.broken.set(Some(2));
        assert_eq!(read_at(&mut reader, &file, 0, 100), "HEADER\n1 10\n");
        let mut taker = Taker {
            text: vec![],
            space: 100,
            fails_after: 100,
        };
        assert_eq!(reader.read(&file, 12, &mut taker), Err(ReadError::LongLine));
        file.broken.set(None);
        assert_eq!(read_all(&mut reader, &file, 12, 100), "2 20\n");
    }

    #[test]
    fn one_call_has_an_end() {
        let (file, mut reader) = (file(&vec![1_000_000_000; 10_000]), Reader::default());
        let first = read_at(&mut reader, &file, 0, usize::MAX).len();
        assert!((MOST..MOST + LONGEST_LINE).contains(&first), "{first}");
    }

    #[test]
    fn a_line_has_an_end() {
        let mut line = Line::new();
        assert!(line.write_str(&"x".repeat(LONGEST_LINE)).is_ok());
        assert!(line.write_str("x").is_err());
        assert_eq!(line.as_bytes().len(), LONGEST_LINE);
    }
}
