// SPDX-License-Identifier: GPL-2.0

//! How a row has been used, and which row is recycled for a new key.
//!
//! The policy resists scans as 2Q (<https://www.vldb.org/conf/1994/P439.PDF>) and S3-FIFO
//! (<https://doi.org/10.1145/3600006.3613147>) do. A new row is on probation. When the search for a
//! row to recycle comes to it, it is recycled if nothing was counted in it since its first packet.
//! Otherwise it becomes established. An established row is recycled only if few rows are on
//! probation, and only if nothing was counted in it for some time.
//!
//! Counting does not touch the age of a row. Whether something was counted since the last look is
//! seen from the counters.

/// The age of a row, as the table that it is in looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    /// The number of the row among all rows that the table has made. It wraps around.
    pub born: u32,
    /// A hash of the counters at the last look.
    mark: u16,
    /// The time of the last look, in periods. It has [`PERIOD_BITS`] bits and wraps around.
    period: u16,
    /// 0 for a row on probation. Otherwise the number of periods for which the row is kept when
    /// nothing is counted in it, at most [`MOST`].
    level: u8,
}

/// The level of a row in which something was counted in different periods.
const MOST: u8 = 15;
/// A row that is older than this, in periods, when its second packet is noticed, is not one of a
/// scan that sends two packets to each address.
const SCAN: u16 = 4;
const PERIOD_BITS: u32 = 12;
const PERIOD_MASK: u16 = (1 << PERIOD_BITS) - 1;

/// A period is between three and six eighths of a second.
#[derive(Clone, Copy, Debug)]
pub struct Periods {
    /// The binary logarithm of the ticks in a period.
    shift: u32,
}

impl Periods {
    /// Periods for a clock with this rate.
    pub fn new(ticks_per_second: u64) -> Self {
        Self {
            shift: (ticks_per_second * 3 / 8).next_power_of_two().ilog2(),
        }
    }

    /// The period of a time in ticks.
    pub fn at(self, ticks: u64) -> u16 {
        ticks.wrapping_shr(self.shift) as u16 & PERIOD_MASK
    }
}

/// What a look at a row found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The row can be recycled.
    Idle,
    /// The row is in use, or it is too early to tell. This is its new age.
    InUse(Age),
}

impl Age {
    /// The age of a row with its first packet, which is on probation.
    pub fn new(born: u32, sum: u64, period: u16) -> Self {
        Self {
            born,
            mark: mark(sum),
            period,
            level: 0,
        }
    }

    /// The time of the last look, in periods.
    pub fn period(self) -> u16 {
        self.period
    }

    /// Returns whether the row is on probation.
    pub fn is_on_probation(self) -> bool {
        self.level == 0
    }

    /// The age of the row when it goes on probation again, without a new look.
    #[must_use]
    pub fn on_probation(self) -> Self {
        Self { level: 0, ..self }
    }

    /// The age of a new row that is established at once.
    #[must_use]
    pub fn established(self) -> Self {
        Self { level: 1, ..self }
    }

    /// Looks at a row on probation. `sum` is the sum of its counters.
    pub fn look(self, sum: u64, period: u16) -> Look {
        if mark(sum) == self.mark {
            return Look::Idle;
        }
        let level = if self.idle(period) < SCAN { 1 } else { MOST };
        Look::InUse(self.at(sum, period, level))
    }

    /// Looks at an established row. `sum` is the sum of its counters.
    pub fn look_at_established(self, sum: u64, period: u16) -> Look {
        let idle = self.idle(period);
        if idle == 0 {
            return Look::InUse(self);
        }
        if mark(sum) != self.mark {
            return Look::InUse(self.at(sum, period, MOST));
        }
        match u16::from(self.level).checked_sub(idle) {
            Some(level @ 1..) => Look::InUse(self.at(sum, period, level as u8)),
            _ => Look::Idle,
        }
    }

    /// The number of periods since the last look.
    fn idle(self, period: u16) -> u16 {
        period.wrapping_sub(self.period) & PERIOD_MASK
    }

    fn at(self, sum: u64, period: u16, level: u8) -> Self {
        Self {
            mark: mark(sum),
            period,
            level,
            ..self
        }
    }

    /// The age as a row stores it.
    pub fn to_word(self) -> u64 {
        u64::from(self.born) << 32
            | u64::from(self.mark) << 16
            | u64::from(self.period) << 4
            | u64::from(self.level)
    }

    /// The inverse of [`to_word`](Self::to_word).
    pub fn from_word(word: u64) -> Self {
        Self {
            born: (word >> 32) as u32,
            mark: (word >> 16) as u16,
            period: (word >> 4) as u16 & PERIOD_MASK,
            level: word as u8 & 15,
        }
    }
}

/// A hash, because sums of packets of the same size have the same lowest bits.
fn mark(sum: u64) -> u16 {
    (sum.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_survives_the_conversion_to_a_word() {
        for age in [
            Age::new(0, 0, 0),
            Age::new(u32::MAX, 46, (1 << PERIOD_BITS) - 1),
            Age::new(7, 1, 5).at(99, 1, MOST),
        ] {
            assert_eq!(Age::from_word(age.to_word()), age);
        }
    }

    #[test]
    fn a_period_is_about_half_a_second() {
        for (hz, ticks) in [(1, 1), (100, 64), (250, 128), (300, 128), (1000, 512)] {
            let periods = Periods::new(hz);
            assert_eq!((periods.at(ticks - 1), periods.at(ticks)), (0, 1), "{hz}");
        }
        assert_eq!(Periods::new(1).at(u64::MAX), (1 << PERIOD_BITS) - 1);
    }

    #[test]
    fn a_row_that_was_counted_in_once_is_idle() {
        let age = Age::new(1, 46, 9);
        assert!(age.is_on_probation());
        assert_eq!(age.look(46, 9), Look::Idle);
        for (period, level) in [(9, 1), (9 + SCAN, MOST)] {
            let Look::InUse(established) = age.look(92, period) else {
                panic!("the second packet was not seen");
            };
            assert!(!established.is_on_probation());
            assert_eq!((established.born, established.level), (1, level));
        }
    }

    #[test]
    fn an_established_row_is_kept_for_the_periods_of_its_level() {
        let Look::InUse(established) = Age::new(1, 46, 9).look(92, 9) else {
            panic!("the second packet was not seen");
        };
        assert_eq!(
            established.look_at_established(92, 9),
            Look::InUse(established)
        );
        assert_eq!(established.look_at_established(92, 10), Look::Idle);
        let Look::InUse(busy) = established.look_at_established(138, 10) else {
            panic!("the third packet was not seen");
        };
        let Look::InUse(less) = busy.look_at_established(138, 10 + u16::from(MOST) - 1) else {
            panic!("the row was not kept");
        };
        assert_eq!(
            less.look_at_established(138, 10 + u16::from(MOST)),
            Look::Idle
        );
        assert_eq!(
            busy.look_at_established(138, 10 + u16::from(MOST)),
            Look::Idle
        );
    }

    #[test]
    fn sums_that_differ_in_few_bits_have_different_marks() {
        for bit in 0..60 {
            assert_ne!(mark(0), mark(1 << bit));
            assert_ne!(mark(46), mark(46 + (1 << bit)));
        }
    }
}
