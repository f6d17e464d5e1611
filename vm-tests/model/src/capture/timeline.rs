// SPDX-License-Identifier: GPL-2.0-only
//! The times at which the frames of captures are sent.

use std::time::Duration;

/// Longer pauses between two frames are shortened to this. No timeout of the module is longer than
/// ten minutes, so the counts stay the same.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(660);

/// A timestamp that is more than this before an earlier one means that the clock was set back.
/// Programs write frames of several queues or interfaces in a slightly wrong order.
const DISORDER: Duration = Duration::from_secs(60);

/// Computes times from timestamps. They never decrease: frames are sent in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    now: Duration,
    /// The latest timestamp of the capture in nanoseconds.
    latest: Option<i128>,
    shortened: usize,
    set_back: usize,
}

impl Timeline {
    /// Begins another capture. Its first frame is sent at the time of the last one before.
    pub fn begin_capture(&mut self) {
        self.latest = None;
    }

    /// The time of the next frame since the first one. `timestamp` is in nanoseconds; a frame
    /// without one is sent with the one before it.
    pub fn next(&mut self, timestamp: Option<i128>) -> Duration {
        let Some(timestamp) = timestamp else { return self.now };
        let passed = timestamp - self.latest.unwrap_or(timestamp);
        if passed >= 0 {
            let passed = u64::try_from(passed).map_or(Duration::MAX, Duration::from_nanos);
            self.shortened += usize::from(passed > LONGEST_PAUSE);
            self.now += passed.min(LONGEST_PAUSE);
            self.latest = Some(timestamp);
        } else if passed.unsigned_abs() > DISORDER.as_nanos() {
            self.set_back += 1;
            self.latest = Some(timestamp);
        }
        self.now
    }

    /// What differs from the times in the captures.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.shortened > 0 {
            let count = self.shortened;
            notes.push(format!(
                "{count} pauses of more than 11 minutes are shortened to 11 minutes: no timeout is longer"
            ));
        }
        if self.set_back > 0 {
            let count = self.set_back;
            notes
                .push(format!("the clock of the captures was set back {count} times: frames stay in the file's order"));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i128 = 1_000_000_000;

    fn times(timeline: &mut Timeline, timestamps: &[i128]) -> Vec<f64> {
        timestamps.iter().map(|stamp| timeline.next(Some(stamp * SECOND / 10)).as_secs_f64()).collect()
    }

    #[test]
    fn times_begin_at_zero_and_never_decrease() {
        let mut timeline = Timeline::default();
        assert_eq!(times(&mut timeline, &[100, 105, 101, 104, 106, 106]), [0.0, 0.5, 0.5, 0.5, 0.6, 0.6]);
        assert_eq!(timeline.next(None).as_secs_f64(), 0.6);
        assert!(timeline.notes().is_empty());
    }

    #[test]
    fn captures_follow_each_other() {
        let mut timeline = Timeline::default();
        times(&mut timeline, &[100, 120]);
        timeline.begin_capture();
        assert_eq!(times(&mut timeline, &[50, 60]), [2.0, 3.0]);
        assert!(timeline.notes().is_empty());
    }

    #[test]
    fn a_clock_that_is_set_goes_on() {
        let mut timeline = Timeline::default();
        let year = 10 * 365 * 86_400;
        assert_eq!(times(&mut timeline, &[0, year, year + 10, 20, 30]), [0.0, 660.0, 661.0, 661.0, 662.0]);
        assert_eq!(times(&mut timeline, &[i128::from(u64::MAX), 30]), [1322.0, 1322.0]);
        let notes = timeline.notes().join("\n");
        assert!(notes.contains("2 pauses") && notes.contains("set back 2 times"), "{notes}");
    }
}
