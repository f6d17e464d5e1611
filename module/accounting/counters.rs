// SPDX-License-Identifier: GPL-2.0

//! The counters of a row.

use crate::atomic::{AtomicU64, Ordering::Relaxed};

/// The protocols that are counted separately.
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

/// Pairs of columns in a file of bytes: TCP, UDP, OTHER.
pub const BYTE_COLUMNS: usize = 3;
/// Pairs of columns in a file of connections: TCP, UDP, ICMP, OTHER.
pub const CONNECTION_COLUMNS: usize = 4;

impl Protocol {
    /// The pair of columns in a file of connections.
    #[inline]
    pub const fn connection_column(self) -> usize {
        self as usize
    }
}

/// The pair of columns in a file of bytes for an IP protocol number. The same in both families:
/// ICMP counts as OTHER there.
///
/// Two selections instead of a `match`: they compile to conditional moves, a `match` to branches
/// that the CPU cannot predict.
#[inline]
pub const fn byte_column(number: u8) -> usize {
    let other = if number == 17 { 1 } else { 2 };
    if number == 6 {
        0
    } else {
        other
    }
}

/// A packet's direction, as seen from the address that it is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The address sent it.
    Out,
    /// The packet is addressed to it.
    In,
}

/// The counters of a row: `PAIRS` pairs of (outgoing, incoming).
///
/// Only one context writes: the CPU that owns the row, with bottom halves disabled. So adding is a
/// load and a store, not an atomic read-modify-write, and costs as much as a plain addition.
/// Readers on other CPUs never see a torn counter. Counters wrap around at 2^64.
#[derive(Debug)]
pub struct Counters<const PAIRS: usize>([[AtomicU64; 2]; PAIRS]);

impl<const PAIRS: usize> Default for Counters<PAIRS> {
    fn default() -> Self {
        Self(core::array::from_fn(|_| Default::default()))
    }
}

impl<const PAIRS: usize> Counters<PAIRS> {
    /// Adds `amount` to one counter. A column out of range counts as the last one, OTHER, so that
    /// this cannot panic in the packet path.
    #[inline]
    pub fn add(&self, column: usize, direction: Direction, amount: u64) {
        debug_assert!(column < PAIRS);
        add_to(&self.0[column.min(PAIRS - 1)][direction as usize], amount);
    }

    /// Adds `totals` to the counters.
    pub fn add_all(&self, totals: &Totals<PAIRS>) {
        self.each(totals, add_to);
    }

    /// Sets the counters to `totals`.
    pub fn set_all(&self, totals: &Totals<PAIRS>) {
        self.each(totals, |cell, value| cell.store(value, Relaxed));
    }

    /// The current values of the counters.
    pub fn read(&self) -> Totals<PAIRS> {
        Totals(core::array::from_fn(|i| {
            [self.0[i][0].load(Relaxed), self.0[i][1].load(Relaxed)]
        }))
    }

    /// The sum of all counters, with wrap-around.
    pub fn sum(&self) -> u64 {
        let counters = self.0.iter().flatten();
        counters.fold(0, |sum, cell| sum.wrapping_add(cell.load(Relaxed)))
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

/// The values of the counters of a row, or their sum over several CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals<const PAIRS: usize>([[u64; 2]; PAIRS]);

impl<const PAIRS: usize> Default for Totals<PAIRS> {
    fn default() -> Self {
        Self([[0; 2]; PAIRS])
    }
}

impl<const PAIRS: usize> Totals<PAIRS> {
    /// Adds `other`, with wrap-around.
    pub fn merge(&mut self, other: Self) {
        self.each(other, u64::wrapping_add);
    }

    /// Subtracts `other`, with wrap-around.
    #[must_use]
    pub fn without(mut self, other: Self) -> Self {
        self.each(other, u64::wrapping_sub);
        self
    }

    /// A single value, and zeros. A column out of range is the last one, as in [`Counters::add`].
    pub fn one(column: usize, direction: Direction, amount: u64) -> Self {
        let mut totals = Self::default();
        if let Some(pair) = totals.0.get_mut(column.min(PAIRS - 1)) {
            pair[direction as usize] = amount;
        }
        totals
    }

    /// The sum of all values, with wrap-around.
    pub fn sum(&self) -> u64 {
        let (sent, received) = self.total();
        sent.wrapping_add(received)
    }

    /// Subtracts `other` from each value, as far as there is anything left. `other` keeps the rest.
    pub fn give_back(&mut self, other: &mut Self) {
        let values = self.0.iter_mut().flatten();
        for (value, other) in values.zip(other.0.iter_mut().flatten()) {
            let part = (*value).min(*other);
            *value = value.wrapping_sub(part);
            *other = other.wrapping_sub(part);
        }
    }

    /// Returns whether all values are zero.
    pub fn is_zero(&self) -> bool {
        self.0.iter().flatten().all(|value| *value == 0)
    }

    /// The pairs (outgoing, incoming) in the order of the columns, without TOTAL.
    pub fn pairs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|[sent, received]| (*sent, *received))
    }

    /// The pair TOTAL: the sum of all pairs.
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
    fn each_column_and_direction_has_its_own_counter() {
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
    fn bytes_of_icmp_count_as_other() {
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
    fn totals_are_added_and_subtracted_by_column() {
        let counters = Counters::<3>::default();
        counters.add(1, Direction::In, 7);
        let seven = counters.read();
        counters.add_all(&seven);
        counters.add(2, Direction::Out, 1);
        let difference = counters.read().without(seven);
        assert!(difference.pairs().eq([(0, 0), (0, 7), (1, 0)]));
        counters.set_all(&seven);
        assert_eq!(counters.read(), seven);
    }
}
