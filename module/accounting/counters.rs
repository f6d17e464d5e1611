// SPDX-License-Identifier: GPL-2.0

//! The counters of a row.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The protocols that have a column pair of their own in the traffic file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Protocol 6.
    Tcp,
    /// Protocol 17.
    Udp,
    /// Everything else, ICMP included.
    Other,
}

impl Protocol {
    /// How many there are.
    pub const COUNT: usize = 3;

    /// The column of an IP protocol number.
    #[inline]
    pub const fn from_number(number: u8) -> Self {
        match number {
            6 => Self::Tcp,
            17 => Self::Udp,
            _ => Self::Other,
        }
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

/// Bytes out and in, per protocol.
///
/// One context writes at a time: the CPU that owns the row, with bottom halves off. So adding is
/// a load and a store, not an atomic read-modify-write, and costs what a plain addition costs.
/// Readers on other CPUs see each counter whole, never torn.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; Protocol::COUNT * 2]);

impl Counters {
    /// Adds `bytes` of one packet. Counters wrap around at 2^64.
    #[inline]
    pub fn add(&self, protocol: Protocol, direction: Direction, bytes: u64) {
        let cell = &self.0[protocol as usize * 2 + direction as usize];
        cell.store(cell.load(Relaxed).wrapping_add(bytes), Relaxed);
    }

    /// The counters as they are now.
    pub fn read(&self) -> Totals {
        Totals(core::array::from_fn(|i| self.0[i].load(Relaxed)))
    }
}

/// The sum of the counters that several CPUs keep for one address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals([u64; Protocol::COUNT * 2]);

impl Totals {
    /// Takes in the counters of another CPU.
    pub fn merge(&mut self, other: Self) {
        for (sum, value) in self.0.iter_mut().zip(other.0) {
            *sum = sum.wrapping_add(value);
        }
    }

    /// Is there nothing to report?
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|value| *value == 0)
    }

    /// The pairs (out, in) in the order of the columns, without TOTAL.
    pub fn pairs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.chunks_exact(2).map(|pair| (pair[0], pair[1]))
    }

    /// The pair TOTAL, the sum of the others.
    pub fn total(&self) -> (u64, u64) {
        self.pairs().fold((0, 0), |sum, pair| (sum.0.wrapping_add(pair.0), sum.1.wrapping_add(pair.1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cell_is_its_own() {
        let counters = Counters::default();
        counters.add(Protocol::Tcp, Direction::Out, 1);
        counters.add(Protocol::Tcp, Direction::In, 2);
        counters.add(Protocol::Udp, Direction::Out, 4);
        counters.add(Protocol::Udp, Direction::In, 8);
        counters.add(Protocol::Other, Direction::Out, 16);
        counters.add(Protocol::Other, Direction::In, 32);
        let mut totals = counters.read();
        assert!(totals.pairs().eq([(1, 2), (4, 8), (16, 32)]));
        assert_eq!(totals.total(), (21, 42));
        totals.merge(counters.read());
        assert!(totals.pairs().eq([(2, 4), (8, 16), (32, 64)]));
        assert!(!totals.is_zero());
        assert!(Counters::default().read().is_zero());
    }
}
