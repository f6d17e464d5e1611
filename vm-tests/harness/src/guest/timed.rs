// SPDX-License-Identifier: GPL-2.0-only
//! Frames that arrive at the inner port at given times of the guest's clock.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use vm_agent::proto::{read_message, write_message};

use super::Guest;
use super::inner_port::FEED;
use crate::command::COMMAND_TIMEOUT;

/// The script is written in parts of about this length in bytes: each is one message to the agent,
/// which holds it in memory.
const PART: usize = 16 << 20;
const SCRIPT: &str = "/tmp/.send-at";
/// What a frame may take in the guest.
const FRAME_TIMEOUT: Duration = Duration::from_millis(10);

/// When frames have arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrivals {
    /// The times since the first frame, rounded to the kernel's ticks: the module does not know
    /// them better.
    pub times: Vec<Duration>,
    /// How much later than it should the latest frame was sent, to a tick.
    pub delay: Duration,
}

impl Guest {
    /// Sends frames to an inner port, each at its time since the first one. Times must not
    /// decrease. When the guest is busy, frames are late.
    ///
    /// # Errors
    /// When a frame cannot be sent or is lost, or the guest has ended.
    pub fn send_at(&mut self, frames: &[(Duration, impl AsRef<[u8]>)]) -> Result<Arrivals> {
        let mut parts = Vec::new();
        let mut part = Vec::new();
        for (time, frame) in frames {
            let time = time.as_nanos().to_string();
            write_message(&mut part, &[time.as_bytes(), frame.as_ref()])?;
            if part.len() >= PART {
                parts.push(self.write_part(parts.len(), &part)?);
                part.clear();
            }
        }
        parts.push(self.write_part(parts.len(), &part)?);
        let line = format!("/init send-at {FEED} {} >{SCRIPT}.times", parts.join(" "));
        let last = frames.last().map_or(Duration::ZERO, |(time, _)| *time);
        let work = FRAME_TIMEOUT * u32::try_from(frames.len())?;
        self.run_for(&line, COMMAND_TIMEOUT + last + work)?.success(&line)?;
        self.check_backlogs()?;
        let times = read_message(&mut self.read(&format!("{SCRIPT}.times"))?.as_slice())?;
        let [times] = times.as_slice() else { bail!("the times of the frames have another format") };
        let arrivals =
            Arrivals::parse(times, frames.iter().map(|(time, _)| *time)).context("the times of the frames")?;
        ensure!(arrivals.times.len() == frames.len(), "{} of {} frames were sent", arrivals.times.len(), frames.len());
        Ok(arrivals)
    }

    fn write_part(&mut self, number: usize, part: &[u8]) -> Result<String> {
        let path = format!("{SCRIPT}.{number}");
        self.write(&path, part)?;
        Ok(path)
    }
}

impl Arrivals {
    /// Parses the output of the agent's tool `send-at`. `wanted` are the times in the script.
    fn parse(bytes: &[u8], wanted: impl Iterator<Item = Duration>) -> Result<Self> {
        let numbers = bytes.chunks(8).map(|bytes| Ok(u64::from_le_bytes(bytes.try_into()?)));
        let numbers = numbers.collect::<Result<Vec<_>>>()?;
        let [start, arrived @ ..] = numbers.as_slice() else { bail!("there are none") };
        let first = arrived.first().copied().unwrap_or_default();
        let ticks = arrived.iter().map(|time| time.saturating_sub(first));
        let late = arrived
            .iter()
            .zip(wanted)
            .map(|(time, wanted)| Duration::from_nanos(time.saturating_sub(*start)).saturating_sub(wanted));
        Ok(Self { times: ticks.map(Duration::from_nanos).collect(), delay: late.max().unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_in_ticks_since_the_first() {
        const MS: u64 = 1_000_000;
        let numbers = [7 * MS, 4 * MS, 8 * MS, 28 * MS];
        let bytes = numbers.map(u64::to_le_bytes);
        let wanted = [0, 0, 19].map(Duration::from_millis);
        let arrivals = Arrivals::parse(bytes.as_flattened(), wanted.into_iter()).unwrap();
        assert_eq!(arrivals.times, [0, 4, 24].map(Duration::from_millis));
        assert_eq!(arrivals.delay, Duration::from_millis(2));
        assert!(Arrivals::parse(&[0; 20], wanted.into_iter()).is_err());
    }
}
