// SPDX-License-Identifier: GPL-2.0-only
//! The frames of a replay with their times, and what is not replayed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Options, Pace, Receiver};
use crate::guest::MAX_FRAME;
use traffic_model::capture::{Capture, Timeline, Unsendable};

/// The longest frame in bytes that a veth pair accepts: an MTU of 65,535 and the Ethernet header.
const MAX_INNER_FRAME: usize = 65_535 + 14;

/// How many frames are named for each reason, and how many reasons for each capture.
const NAMED: usize = 5;
const REASONS: usize = 10;

/// The frames of all captures.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The frames, and when they are sent, since the first one.
    pub frames: Vec<(Duration, Vec<u8>)>,
    /// Lines for standard error.
    pub notes: Vec<String>,
}

impl Plan {
    /// Reads the captures.
    ///
    /// # Errors
    /// When one cannot be read, or has frames of which none can be sent.
    pub fn new(options: &Options) -> Result<Self> {
        let (mut plan, mut timeline) = (Self::default(), Timeline::default());
        for path in &options.captures {
            timeline.begin_capture();
            plan.add(&path.display(), Capture::open(path)?, options, &mut timeline)?;
        }
        match options.pace {
            Pace::Captured => plan.notes.extend(timeline.notes().into_iter().map(|note| format!("note: {note}"))),
            Pace::Fast => {
                plan.frames.iter_mut().for_each(|(time, _)| *time = Duration::ZERO);
                plan.notes.push(FAST.to_owned());
            }
        }
        Ok(plan)
    }

    fn add(
        &mut self,
        name: &impl std::fmt::Display,
        capture: Capture,
        options: &Options,
        timeline: &mut Timeline,
    ) -> Result<()> {
        let longest = if options.pace == Pace::Fast { MAX_FRAME } else { MAX_INNER_FRAME };
        let (mut skipped, mut cut) = (Skipped::default(), 0);
        let records = capture.into_records();
        let count = records.len();
        let before = self.frames.len();
        for (number, record) in (1..).zip(records) {
            let time = timeline.next(record.timestamp);
            match record.frame {
                Ok(frame) if frame.len() <= longest => {
                    cut += usize::from(record.is_cut);
                    self.frames.push((time, frame));
                }
                frame => skipped.add(frame.err().unwrap_or(Unsendable::TooLong(longest)), number),
            }
        }
        let sendable = self.frames.len() - before;
        let mut lines = skipped.lines(count);
        ensure!(count == 0 || sendable > 0, "{name}: no frame can be replayed\n{}", lines.join("\n"));
        lines.extend((cut > 0).then(|| note_on_cut(cut, options.receiver)));
        self.notes.extend(lines.into_iter().map(|line| format!("warning: {name}: {line}")));
        self.notes.push(format!("{name}: {sendable} frames"));
        Ok(())
    }

    /// The frames, in order.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.frames.iter().map(|(_, frame)| frame.as_slice())
    }

    /// The memory of a guest that holds all frames and sends them to itself, in MiB. Powers of two:
    /// the state of a booted guest is kept for each size.
    ///
    /// # Errors
    /// When it would be too much.
    pub fn memory_mib(&self) -> Result<u32> {
        /// Enough for the frames, the sockets, and the message that carries a part of them.
        const TIMES: usize = 8;
        const LEAST: usize = 512;
        const MOST: usize = 4096;
        let mib = self.frames().map(|frame| frame.len() + 64).sum::<usize>() >> 20;
        let memory = (mib * TIMES).next_power_of_two().max(LEAST);
        ensure!(
            memory <= MOST,
            "the frames have {mib} MiB, but at most {} can be sent at their own times: use --fast",
            MOST / TIMES
        );
        Ok(memory as u32)
    }
}

/// What `--fast` does to connections.
const FAST: &str = "note: --fast sends all frames at once. No timeout passes (30 s for UDP, 120 s for a repeated \
                    SYN, 600 s for other protocols), so there can be fewer connections than at the capture's own times.";

fn note_on_cut(cut: usize, receiver: Receiver) -> String {
    let effect = match receiver {
        Receiver::Mirror { sliced: false } => {
            "they are not counted if the end of the packet is missing; --sliced counts the length in their header"
        }
        Receiver::Mirror { sliced: true } => "the length in their header is counted",
        Receiver::Plain => {
            "they are not counted if the end of the packet is missing; a mirror device with --sliced \
                            counts the length in their header"
        }
    };
    format!("{cut} frames were cut by the capture program: {effect}")
}

/// The frames that cannot be sent, by reason.
#[derive(Debug, Default)]
struct Skipped(BTreeMap<Unsendable, Vec<usize>>);

impl Skipped {
    fn add(&mut self, reason: Unsendable, number: usize) {
        self.0.entry(reason).or_default().push(number);
    }

    /// The sum and the reasons, those of the most frames first; nothing without frames. `all` is
    /// the number of frames in the capture.
    fn lines(&self, all: usize) -> Vec<String> {
        let sum: usize = self.0.values().map(Vec::len).sum();
        if sum == 0 {
            return vec![];
        }
        let mut reasons: Vec<_> = self.0.iter().collect();
        reasons.sort_by_key(|(_, numbers)| std::cmp::Reverse(numbers.len()));
        let mut lines = vec![format!("{sum} of {all} frames are skipped")];
        lines.extend(reasons.iter().take(REASONS).map(|(reason, numbers)| format!("{}: {reason}", named(numbers))));
        let others = reasons.iter().skip(REASONS).map(|(_, numbers)| numbers.len());
        let (kinds, frames) = (others.len(), others.sum::<usize>());
        lines.extend((kinds > 0).then(|| format!("{frames} more frames for {kinds} other reasons")));
        lines
    }
}

/// The first numbers of a list of frames, and how many more there are.
fn named(numbers: &[usize]) -> String {
    let (first, rest) = numbers.split_at(numbers.len().min(NAMED));
    let first: Vec<_> = first.iter().map(usize::to_string).collect();
    match (numbers.len(), rest.len()) {
        (1, _) => format!("frame {}", first[0]),
        (_, 0) => format!("frames {}", first.join(", ")),
        (_, more) => format!("frames {} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_frames_are_named_by_reason() {
        assert_eq!(Skipped::default().lines(7), Vec::<String>::new());
        let mut skipped = Skipped::default();
        skipped.add(Unsendable::Protocol(4), 3);
        (10..32).for_each(|number| skipped.add(Unsendable::LinkType(105), number));
        [50, 60].into_iter().for_each(|number| skipped.add(Unsendable::TooLong(1000), number));
        let want = [
            "25 of 99 frames are skipped",
            "frames 10, 11, 12, 13, 14 and 17 more: link type 105 is not supported",
            "frames 50, 60: the frame is longer than 1000 bytes",
            "frame 3: the protocol 0x0004 is not an EtherType",
        ];
        assert_eq!(skipped.lines(99), want);
    }

    #[test]
    fn many_reasons_are_summed() {
        let mut skipped = Skipped::default();
        (1..=15).for_each(|number| skipped.add(Unsendable::Protocol(number), number.into()));
        let lines = skipped.lines(15);
        assert_eq!(lines.len(), 1 + REASONS + 1);
        assert_eq!(lines[REASONS + 1], "5 more frames for 5 other reasons");
    }

    #[test]
    fn memory_grows_with_the_frames() {
        let plan = |mib: usize| Plan { frames: vec![(Duration::ZERO, vec![0; 1 << 20]); mib], ..Plan::default() };
        assert_eq!(plan(0).memory_mib().unwrap(), 512);
        assert_eq!(plan(64).memory_mib().unwrap(), 512);
        assert_eq!(plan(65).memory_mib().unwrap(), 1024);
        assert!(plan(513).memory_mib().unwrap_err().to_string().contains("use --fast"));
    }
}
