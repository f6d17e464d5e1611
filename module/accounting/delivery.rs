// SPDX-License-Identifier: GPL-2.0

//! The delivery of lines to readers, whose buffers may have any size.
//!
//! A file that is cleared by reading must know which lines were delivered. So making a line claims
//! its counts, and the claim becomes final when the last byte of the line was copied to the reader.
//! If the reader closes the file or seeks before that, the claim is given back.

use super::report::LONGEST_LINE;
use core::fmt;

/// A text whose lines are made while it is read.
pub trait Lines: Sized {
    /// What a reader keeps from the start to the end of the text: the list of lines.
    type Snapshot;
    /// The position of a line. The default is the first line.
    type Position: Copy + Default;
    /// The counts that a line has taken out of the file.
    type Claim;
    /// The error if the text cannot be read.
    type Error: From<ReadError>;

    /// Makes a snapshot. Called when a reader starts at the beginning of the text.
    ///
    /// # Errors
    ///
    /// Fails if the snapshot cannot be made, for example for lack of memory.
    fn snapshot(&self) -> Result<Self::Snapshot, Self::Error>;

    /// Writes the line at `position` to `out`: at most [`LONGEST_LINE`] bytes, or none. `None` at
    /// the end of the text.
    ///
    /// # Errors
    ///
    /// Fails if the line cannot be made. Nothing is claimed then.
    fn line(
        &self,
        snapshot: &Self::Snapshot,
        position: Self::Position,
        out: &mut Line,
    ) -> Result<NextLine<Self>, Self::Error>;

    /// Takes back the claim of a line that was not delivered.
    fn give_back(&self, claim: Self::Claim);
}

/// The line that was made for an `L`. `None` at the end of the text.
pub type NextLine<L> = Option<Step<<L as Lines>::Position, <L as Lines>::Claim>>;

/// A line that has been made.
#[derive(Debug)]
pub struct Step<P, C> {
    /// The position of the next line.
    pub next: P,
    /// What the line has claimed, if anything.
    pub claim: Option<C>,
}

/// The errors of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The reader's buffer is not accessible.
    Fault,
    /// A line is longer than [`LONGEST_LINE`].
    LongLine,
}

/// The buffer of a read.
pub trait Sink {
    /// The number of bytes that still fit.
    fn space(&self) -> usize;

    /// Copies as many of `bytes` as fit and returns their number. It is lower only if the buffer is
    /// not accessible.
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

/// After this many bytes, a read starts no other line. It bounds the time of a read into a huge
/// buffer.
const MAX_READ: usize = 1 << 16;

/// The state of an open file.
pub struct Reader<L: Lines> {
    snapshot: Option<L::Snapshot>,
    /// The position of the line after `line`.
    next: L::Position,
    line: Line,
    /// The number of bytes of `line` that were delivered.
    sent: usize,
    /// What `line` has claimed. `None` once the whole line is delivered.
    claim: Option<L::Claim>,
    /// The offset of the next byte in the text.
    offset: u64,
}

/// The kernel's mutex lends only such values mutably. None of the fields is ever pinned.
impl<L: Lines> Unpin for Reader<L> {}

impl<L: Lines> Default for Reader<L> {
    fn default() -> Self {
        Self {
            snapshot: None,
            next: L::Position::default(),
            line: Line::new(),
            sent: 0,
            claim: None,
            offset: 0,
        }
    }
}

impl<L: Lines> Reader<L> {
    /// Copies the bytes from `offset` on to `sink` and returns their number: 0 at the end of the
    /// text.
    ///
    /// A read at offset 0 makes a new snapshot, and so does a read that does not continue the one
    /// before. Such a read skips the lines before `offset`. The skipped lines, and the line that
    /// contains `offset`, are not cleared.
    ///
    /// # Errors
    ///
    /// Returns [`ReadError::Fault`] if no byte can be copied, or the error of `lines` if there is
    /// no byte to copy. After an error, a read at the same offset continues the text.
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
        while sink.space() > 0 && done < MAX_READ {
            match self.fill(lines) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
            let taken = self.deliver(sink);
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

    /// Closes the file: gives back the line that is not delivered as a whole.
    pub fn close(&mut self, lines: &L) {
        self.abandon(lines);
        self.snapshot = None;
    }

    /// Makes a new snapshot and skips the bytes before `offset`.
    fn seek(&mut self, lines: &L, offset: u64) -> Result<(), L::Error> {
        self.close(lines);
        (self.next, self.offset) = (L::Position::default(), 0);
        self.snapshot = Some(lines.snapshot()?);
        while self.offset < offset && self.fill(lines)? {
            // The reader does not get all of this line.
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
        // An offset beyond the end of the text is the same as the end.
        self.offset = offset;
        Ok(())
    }

    /// Makes the next lines until there is a byte to deliver. Returns `false` at the end of the
    /// text.
    fn fill(&mut self, lines: &L) -> Result<bool, L::Error> {
        let Some(snapshot) = &self.snapshot else {
            return Ok(false);
        };
        while self.sent == self.line.length {
            (self.sent, self.line.length) = (0, 0);
            let made = lines.line(snapshot, self.next, &mut self.line);
            let Ok(Some(step)) = made else {
                // Discard what was written of a line that could not be completed.
                self.line.length = 0;
                return made.map(|_| false);
            };
            (self.next, self.claim) = (step.next, step.claim);
        }
        Ok(true)
    }

    fn deliver(&mut self, sink: &mut impl Sink) -> usize {
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

    /// A file with a header and a line for each number. Reading clears the numbers.
    struct Numbers {
        numbers: RefCell<Vec<u64>>,
        /// The position of a line that fails.
        broken: Cell<Option<usize>>,
    }

    impl Lines for Numbers {
        type Snapshot = usize;
        type Position = usize;
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
        ) -> Result<Option<Step<usize, Self::Claim>>, ReadError> {
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

    /// A buffer for `space` bytes. It is accessible for `fails_after` bytes.
    struct Buffer {
        text: Vec<u8>,
        space: usize,
        fails_after: usize,
    }

    impl Sink for Buffer {
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
        let mut buffer = Buffer {
            text: vec![],
            space,
            fails_after: usize::MAX,
        };
        let count = reader.read(file, offset, &mut buffer).unwrap();
        assert_eq!(count, buffer.text.len());
        String::from_utf8(buffer.text).unwrap()
    }

    /// Reads from `offset` to the end of the text.
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
    fn reads_of_any_size_return_the_same_text_and_clear_it() {
        for space in 1..40 {
            let (file, mut reader) = (file(&[10, 0, 30, 40]), Reader::default());
            assert_eq!(read_all(&mut reader, &file, 0, space), WHOLE);
            assert_eq!(*file.numbers.borrow(), [0; 4]);
            assert_eq!(read_all(&mut reader, &file, 0, space), "HEADER\n");
        }
    }

    #[test]
    fn a_line_that_is_not_delivered_is_not_cleared() {
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
    fn a_line_is_delivered_to_one_reader_only() {
        let (file, mut slow, mut quick) = (file(&[10, 20]), Reader::default(), Reader::default());
        assert_eq!(read_at(&mut slow, &file, 0, 8), "HEADER\n1");
        assert_eq!(read_all(&mut quick, &file, 0, 100), "HEADER\n2 20\n");
        file.numbers.borrow_mut()[0] += 5;
        assert_eq!(read_all(&mut slow, &file, 8, 100), " 10\n");
        assert_eq!(*file.numbers.borrow(), [5, 0]);
    }

    #[test]
    fn reading_again_from_the_start_gives_the_claim_back() {
        let (file, mut reader) = (file(&[10, 20]), Reader::default());
        assert_eq!(read_at(&mut reader, &file, 0, 9), "HEADER\n1 ");
        assert_eq!(read_all(&mut reader, &file, 0, 3), "HEADER\n1 10\n2 20\n");
    }

    #[test]
    fn a_read_at_any_offset_clears_whole_lines_only() {
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
    fn a_fault_loses_no_byte() {
        for fails_after in 0..WHOLE.len() {
            let (file, mut reader) = (file(&[10, 0, 30, 40]), Reader::default());
            let mut buffer = Buffer {
                text: vec![],
                space: 100,
                fails_after,
            };
            let result = reader.read(&file, 0, &mut buffer);
            assert_eq!(
                result,
                if fails_after == 0 {
                    Err(ReadError::Fault)
                } else {
                    Ok(fails_after)
                }
            );
            let rest = read_all(&mut reader, &file, fails_after as u64, 100);
            assert_eq!(String::from_utf8(buffer.text).unwrap() + &rest, WHOLE);
        }
    }

    #[test]
    fn a_line_that_fails_ends_the_read() {
        let (file, mut reader) = (file(&[10, 20]), Reader::default());
        file.broken.set(Some(2));
        assert_eq!(read_at(&mut reader, &file, 0, 100), "HEADER\n1 10\n");
        let mut buffer = Buffer {
            text: vec![],
            space: 100,
            fails_after: 100,
        };
        assert_eq!(
            reader.read(&file, 12, &mut buffer),
            Err(ReadError::LongLine)
        );
        file.broken.set(None);
        assert_eq!(read_all(&mut reader, &file, 12, 100), "2 20\n");
    }

    #[test]
    fn the_length_of_a_read_is_bounded() {
        let (file, mut reader) = (file(&vec![1_000_000_000; 10_000]), Reader::default());
        let first = read_at(&mut reader, &file, 0, usize::MAX).len();
        assert!(
            (MAX_READ..MAX_READ + LONGEST_LINE).contains(&first),
            "{first}"
        );
    }

    #[test]
    fn the_length_of_a_line_is_bounded() {
        let mut line = Line::new();
        assert!(line.write_str(&"x".repeat(LONGEST_LINE)).is_ok());
        assert!(line.write_str("x").is_err());
        assert_eq!(line.as_bytes().len(), LONGEST_LINE);
    }
}
