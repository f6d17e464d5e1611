// SPDX-License-Identifier: GPL-2.0

//! The counters of a row.

use crate::atomic::{AtomicU64, Ordering::Relaxed};

/// The protocols that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Protocol 6.
    Tcp,
    /// Protocol 17.
    Udp,
    /// Protocol 1 in IPv4, 58 in IPv6.
    Icmp,
    /// Everything else.
    Other,
}

/// Column pairs of a file of bytes: TCP, UDP, OTHER.
pub const BYTE_COLUMNS: usize = 3;
/// Column pairs of a file of connections: TCP, UDP, ICMP, OTHER.
pub const CONNECTION_COLUMNS: usize = 4;

impl Protocol {
    /// Its pair among the connections.
    #[inline]
    pub const fn connection_column(self) -> usize {
        self as usize
    }
}

/// The pair of a protocol number among the bytes, in both families. ICMP is OTHER there.
///
/// Two choices rather than a `match`, which would become jumps that nobody foresees.
#[inline]
pub const fn byte_column(number: u8) -> usize {
    let other = if number == 17 { 1 } else { 2 };
    if number == 6 {
        0
    } else {
        other
    }
}

/// A packet's direction, as seen from the address whose row it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The address sent it.
    Out,
    /// The address is to receive it.
    In,
}

/// Pairs of what went out and in.
///
/// One context writes at a time: the CPU that owns the row, with bottom halves off, or a reader
/// who holds the lock of what readers were given. So adding is a load and a store, not an atomic read-modify-write, and costs what a plain addition costs.
/// Readers on other CPUs see each counter whole, never torn. Counters wrap around at 2^64.
#[derive(Debug)]
pub struct Counters<const PAIRS: usize>([[AtomicU64; 2]; PAIRS]);

impl<const PAIRS: usize> Default for Counters<PAIRS> {
    fn default() -> Self {
        Self(core::array::from_fn(|_| Default::default()))
    }
}

impl<const PAIRS: usize> Counters<PAIRS> {
    /// Adds to one counter. The last column, OTHER, is also for those that are not there: no packet is to make this
    /// panic, wherever the column comes from.
    #[inline]
    pub fn add(&self, column: usize, direction: Direction, amount: u64) {
        debug_assert!(column < PAIRS);
        add_to(&self.0[column.min(PAIRS - 1)][direction as usize], amount);
    }

    /// Adds to all counters.
    pub fn add_all(&self, totals: &Totals<PAIRS>) {
        self.each(totals, add_to);
    }

    /// Takes away what was added before.
    pub fn subtract_all(&self, totals: &Totals<PAIRS>) {
        self.each(totals, |cell, amount| add_to(cell, amount.wrapping_neg()));
    }

    /// The counters as they are now.
    pub fn read(&self) -> Totals<PAIRS> {
        Totals(core::array::from_fn(|i| {
            [self.0[i][0].load(Relaxed), self.0[i][1].load(Relaxed)]
        }))
    }

    fn each(&self, totals: &Totals<PAIRS>, change: impl Fn(&AtomicU64, u64)) {
        for (cell, amount) in self.0.iter().flatten().zip(totals.0.iter().flatten()) {
            change(cell, *amount);
        }
    }
}

/// Adds to a counter that only one context at a time writes.
#[inline]
pub(super) fn add_to(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
}

/// The sum of counters that are kept in several places for one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals<const PAIRS: usize>([[u64; 2]; PAIRS]);

impl<const PAIRS: usize> Default for Totals<PAIRS> {
    fn default() -> Self {
        Self([[0; 2]; PAIRS])
    }
}

impl<const PAIRS: usize> Totals<PAIRS> {
    /// Takes in counters of another place.
    pub fn merge(&mut self, other: Self) {
        self.each(other, u64::wrapping_add);
    }

    /// What is left of these after what has been taken already: nothing, where more was taken than
    /// is known here.
    #[must_use]
    pub fn without(mut self, taken: Self) -> Self {
        self.each(taken, |value, taken| match value.wrapping_sub(taken) {
            // Counters wrap around, so that is how "less than" looks.
            left if left > u64::MAX / 2 => 0,
            left => left,
        });
        self
    }

    /// Is there nothing to report?
    pub fn is_zero(&self) -> bool {
        self.0.iter().flatten().all(|value| *value == 0)
    }

    /// The pairs (out, in) in the order of the columns, without TOTAL.
    pub fn pairs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|[sent, received]| (*sent, *received))
    }

    /// The pair TOTAL, the sum of the others.
    pub fn total(&self) -> (u64, u64) {
        self.pairs().fold((0, 0), |sum, pair| {
            (sum.0.wrapping_add(pair.0), sum.1.wrapping_add(pair.1))
        })
    }

    fn each(&mut self, other: Self, combine: fn(u64, u64) -> u64) {
        for (value, other) in self.0.iter_mut().flatten().zip(other.0.iter().flatten()) {
            *value = combine(*value, *other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cell_is_its_own() {
        let counters = Counters::<4>::default();
        let protocols = [
            Protocol::Tcp,
            Protocol::Udp,
            Protocol::Icmp,
            Protocol::Other,
        ];
        for (n, protocol) in protocols.into_iter().enumerate() {
            counters.add(protocol.connection_column(), Direction::Out, 1 << (2 * n));
            counters.add(protocol.connection_column(), Direction::In, 2 << (2 * n));
        }
        let mut totals = counters.read();
        assert!(totals.pairs().eq([(1, 2), (4, 8), (16, 32), (64, 128)]));
        assert_eq!(totals.total(), (85, 170));
        totals.merge(counters.read());
        assert!(totals.pairs().eq([(2, 4), (8, 16), (32, 64), (128, 256)]));
        assert!(!totals.is_zero());
        assert!(Counters::<3>::default().read().is_zero());
    }

    #[test]
    fn icmp_is_other_among_the_bytes() {
        for number in 0..=255 {
            let expected = [6, 17]
                .iter()
                .position(|known| *known == number)
                .unwrap_or(BYTE_COLUMNS - 1);
            assert_eq!(byte_column(number), expected, "{number}");
        }
        assert_ne!(
            Protocol::Icmp.connection_column(),
            Protocol::Other.connection_column()
        );
        assert!(Protocol::Other.connection_column() < CONNECTION_COLUMNS);
    }

    #[test]
    fn what_is_taken_can_be_given_back() {
        let (counters, taken) = (Counters::<3>::default(), Counters::<3>::default());
        counters.add(1, Direction::In, 7);
        taken.add_all(&counters.read());
        assert!(counters.read().without(taken.read()).is_zero());
        counters.add(1, Direction::In, 3);
        assert_eq!(counters.read().without(taken.read()).total(), (0, 3));
        let mut seven = Totals::default();
        seven.merge(taken.read());
        assert!(
            Totals::default().without(seven).is_zero(),
            "never less than nothing"
        );
        taken.subtract_all(&seven);
        assert_eq!(counters.read().without(taken.read()).total(), (0, 10));
    }
}
