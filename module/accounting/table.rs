// SPDX-License-Identifier: GPL-2.0

//! The rows that one CPU keeps.
//!
//! Every CPU has its own rows and its own index to find them, so counting needs no lock and
//! writes no cache line that another CPU writes. A row is one cache line. Whoever reads the
//! counts sums up the rows that the CPUs have for an address.
//!
//! The index is a linear hash table: it starts with one bucket and gets another with every new
//! row, by splitting the bucket whose turn it is. So there is no moment at which everything
//! moves, and memory follows the number of addresses, page by page.

use super::counters::{Counters, Direction, Protocol, Totals};
use super::slots::Slots;
use core::ops::BitAnd;
use core::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// An address that can be counted for.
pub trait Address: Copy + Ord + BitAnd<Output = Self> {
    /// Bits in an address.
    const BITS: u32;
    /// Length of the run of ones at the most significant end.
    fn leading_ones(self) -> u32;
    /// How many ones there are.
    fn count_ones(self) -> u32;
    /// The address in a row's key.
    fn to_key(self) -> [u64; 2];
    /// The inverse of `to_key`.
    fn from_key(key: [u64; 2]) -> Self;
}

impl Address for u32 {
    const BITS: u32 = u32::BITS;

    fn leading_ones(self) -> u32 {
        u32::leading_ones(self)
    }

    fn count_ones(self) -> u32 {
        u32::count_ones(self)
    }

    #[inline]
    fn to_key(self) -> [u64; 2] {
        [u64::from(self), 0]
    }

    #[inline]
    fn from_key([low, _]: [u64; 2]) -> Self {
        low as u32
    }
}

/// One address and its counters: a cache line.
///
/// The key is written before the row is published and never changes after that.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Row {
    key: [AtomicU64; 2],
    counters: Counters,
}

const _: () = assert!(size_of::<Row>() == 64);

impl Row {
    #[inline]
    fn is_for(&self, key: [u64; 2]) -> bool {
        self.key[0].load(Relaxed) == key[0] && self.key[1].load(Relaxed) == key[1]
    }

    fn address<A: Address>(&self) -> A {
        A::from_key([self.key[0].load(Relaxed), self.key[1].load(Relaxed)])
    }
}

/// A reference to a row or to the end of a chain: 0, or the row's number plus one.
pub type Link = AtomicU32;

/// The memory of one CPU's table, of which `make` is called in the packet path.
pub trait Memory {
    /// The rows, in the order in which their addresses came.
    type Rows: Slots<Row>;
    /// Links between them.
    type Links: Slots<Link>;
}

/// The rows of one CPU.
pub struct Table<M: Memory> {
    /// Makes the hash unpredictable for those who choose the addresses.
    seed: u64,
    /// How many rows are there. Rows below this number are complete.
    length: AtomicU32,
    /// How many buckets are there, at least one. The first row brings the memory of the first.
    buckets: AtomicU32,
    rows: M::Rows,
    /// The first row in a bucket.
    heads: M::Links,
    /// The next row in the bucket of a row.
    nexts: M::Links,
    /// For addresses that could not get a row.
    others: Counters,
    /// How many new addresses go without a row before memory is asked for again.
    waiting: AtomicU32,
}

/// How many new addresses don't ask for memory after it was short. A flood of them would else make
/// every packet pay for an allocation that fails.
const WAIT: u32 = 1024;

impl<M: Memory> Table<M> {
    /// An empty table. The memory is its alone and has no slots yet.
    pub fn new(seed: u64, rows: M::Rows, heads: M::Links, nexts: M::Links) -> Self {
        Self {
            seed,
            length: AtomicU32::new(0),
            buckets: AtomicU32::new(1),
            rows,
            heads,
            nexts,
            others: Counters::default(),
            waiting: AtomicU32::new(0),
        }
    }

    /// Adds the bytes of a packet to the row of `address`.
    ///
    /// One context at a time calls this. An address for which there is no memory is counted
    /// among the [`others`](Self::others).
    #[inline]
    pub fn add<A: Address>(&self, address: A, protocol: Protocol, direction: Direction, bytes: u64) {
        let key = address.to_key();
        let hash = self.hash(key);
        let counters = match self.find(key, hash) {
            Some(row) => &row.counters,
            None => self.insert(key, hash).map_or(&self.others, |row| &row.counters),
        };
        counters.add(protocol, direction, bytes);
    }

    /// How many rows there are; they have the numbers below that.
    pub fn rows(&self) -> u32 {
        self.length.load(Acquire)
    }

    /// The address in row `number`.
    pub fn address<A: Address>(&self, number: u32) -> Option<A> {
        Some(self.rows.get(number)?.address())
    }

    /// The counters in row `number`, zero if there is no such row.
    pub fn totals(&self, number: u32) -> Totals {
        self.rows.get(number).map_or_else(Totals::default, |row| row.counters.read())
    }

    /// What was counted for addresses without a row.
    pub fn others(&self) -> Totals {
        self.others.read()
    }

    /// Multiplies the key with the seed and folds the product: each bit of the result depends on
    /// all of the key.
    #[inline]
    fn hash(&self, [low, high]: [u64; 2]) -> u32 {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let fold = |a: u64, b: u64| {
            let product = u128::from(a) * u128::from(b);
            product as u64 ^ (product >> 64) as u64
        };
        fold(fold(low ^ self.seed, ODD) ^ high, self.seed | 1) as u32
    }

    /// The bucket of `hash` among `buckets`, of which there is at least one.
    ///
    /// With 2^n <= buckets < 2^(n+1), the buckets that have been split in this round, and those
    /// that they were split into, are told apart by n+1 bits of the hash, the others by n.
    #[inline]
    fn bucket(hash: u32, buckets: u32) -> u32 {
        let half = 1u32 << (31 - (buckets | 1).leading_zeros());
        let wide = hash & (half << 1).wrapping_sub(1);
        if wide < buckets {
            wide
        } else {
            wide - half
        }
    }

    #[inline]
    fn find(&self, key: [u64; 2], hash: u32) -> Option<&Row> {
        let bucket = Self::bucket(hash, self.buckets.load(Relaxed));
        let mut link = self.heads.get(bucket)?.load(Relaxed);
        loop {
            let number = link.checked_sub(1)?;
            let row = self.rows.get(number)?;
            if row.is_for(key) {
                return Some(row);
            }
            link = self.nexts.get(number)?.load(Relaxed);
        }
    }

    /// Makes a row for a key that has none, or says that there is no room.
    #[cold]
    #[inline(never)]
    fn insert(&self, key: [u64; 2], hash: u32) -> Option<&Row> {
        if let Some(left) = self.waiting.load(Relaxed).checked_sub(1) {
            self.waiting.store(left, Relaxed);
            return None;
        }
        let number = self.length.load(Relaxed);
        let Some((row, next)) = self.make_row(number) else {
            self.waiting.store(WAIT, Relaxed);
            return None;
        };
        let bucket = Self::bucket(hash, self.buckets.load(Relaxed));
        let head = self.heads.get(bucket)?;
        row.key[0].store(key[0], Relaxed);
        row.key[1].store(key[1], Relaxed);
        next.store(head.load(Relaxed), Relaxed);
        head.store(number + 1, Relaxed);
        // Readers that see the new length see the key.
        self.length.store(number + 1, Release);
        Some(row)
    }

    /// The memory of row `number`, the next one, and a bucket more to find it in.
    fn make_row(&self, number: u32) -> Option<(&Row, &Link)> {
        let slots = (self.rows.make(number)?, self.nexts.make(number)?);
        match number {
            0 => {
                self.heads.make(0)?;
            }
            _ => self.split(),
        }
        Some(slots)
    }

    /// Adds a bucket and moves to it what belongs there. Without memory for it the chains just
    /// get longer.
    fn split(&self) {
        let new = self.buckets.load(Relaxed);
        let Some(new_head) = self.heads.make(new) else {
            return;
        };
        self.buckets.store(new + 1, Relaxed);
        // The bucket where the hashes of the new one were till now.
        let Some(old_head) = self.heads.get(Self::bucket(new, new)) else {
            return;
        };
        let mut link = old_head.load(Relaxed);
        let (mut keep, mut give) = (0, 0);
        while let Some(number) = link.checked_sub(1) {
            let (Some(row), Some(next)) = (self.rows.get(number), self.nexts.get(number)) else {
                break;
            };
            let after = next.load(Relaxed);
            let key = [row.key[0].load(Relaxed), row.key[1].load(Relaxed)];
            let side = if Self::bucket(self.hash(key), new + 1) == new { &mut give } else { &mut keep };
            next.store(*side, Relaxed);
            *side = link;
            link = after;
        }
        old_head.store(keep, Relaxed);
        new_head.store(give, Relaxed);
    }
}

#[cfg(test)]
pub mod tests {
    extern crate std;

    use super::super::slots::host::HeapSlots;
    use super::*;
    use std::collections::BTreeMap;

    /// Memory on the heap.
    pub struct Heap;

    impl Memory for Heap {
        type Rows = HeapSlots<Row>;
        type Links = HeapSlots<Link>;
    }

    /// A table with room for `rows` addresses.
    pub fn table(rows: u32) -> Table<Heap> {
        let links = || HeapSlots::new(rows);
        Table::new(0x0123_4567_89ab_cdef, HeapSlots::new(rows), links(), links())
    }

    fn count(table: &Table<Heap>, address: u32, bytes: u64) {
        table.add(address, Protocol::Tcp, Direction::Out, bytes);
    }

    fn contents(table: &Table<Heap>) -> BTreeMap<u32, u64> {
        let row = |n| (table.address(n).unwrap(), table.totals(n).total().0);
        (0..table.rows()).map(row).collect()
    }

    #[test]
    fn an_address_keeps_its_row() {
        let table = table(10);
        assert_eq!(table.rows(), 0);
        for _ in 0..3 {
            count(&table, 7, 100);
            count(&table, 0, 1);
        }
        assert_eq!(contents(&table), BTreeMap::from([(0, 3), (7, 300)]));
    }

    #[test]
    fn many_addresses_in_any_order() {
        let table = table(20_000);
        let mut expected = BTreeMap::new();
        let mut state = 1u64;
        for _ in 0..60_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            let address = (state >> 40) as u32 % 15_000 * 0x0001_0001;
            *expected.entry(address).or_default() += state >> 50;
            count(&table, address, state >> 50);
        }
        assert_eq!(contents(&table), expected);
        assert!(table.others().is_zero());
    }

    #[test]
    fn chains_stay_short() {
        let table = table(1 << 16);
        (0..1 << 16).for_each(|n| count(&table, 0x0a00_0000 | n, 1));
        let longest = (0..1 << 16)
            .map(|bucket| {
                let mut link = table.heads.get(bucket).unwrap().load(Relaxed);
                let mut length = 0;
                while let Some(number) = link.checked_sub(1) {
                    link = table.nexts.get(number).unwrap().load(Relaxed);
                    length += 1;
                }
                length
            })
            .max();
        assert!(longest < Some(12), "{longest:?}");
    }

    #[test]
    fn no_byte_is_lost_when_the_table_is_full() {
        let table = table(64);
        (0..1000).for_each(|address| count(&table, address, 10));
        (0..1000).for_each(|address| count(&table, address, 10));
        assert_eq!(table.rows(), 64);
        assert!(contents(&table).values().all(|bytes| *bytes == 20));
        assert_eq!(table.others().total(), (20 * (1000 - 64), 0));
    }

    #[test]
    fn a_table_asks_for_memory_again_after_a_while() {
        let table = table(4);
        (0..4).for_each(|address| count(&table, address, 1));
        assert_eq!(table.waiting.load(Relaxed), 0);
        count(&table, 4, 1);
        assert_eq!(table.waiting.load(Relaxed), WAIT);
        (0..WAIT).for_each(|_| count(&table, 4, 1));
        assert_eq!(table.waiting.load(Relaxed), 0);
        count(&table, 4, 1);
        assert_eq!(table.waiting.load(Relaxed), WAIT);
        assert_eq!(table.others().total(), (u64::from(WAIT) + 2, 0));
        // Known addresses don't wait.
        count(&table, 3, 1);
        assert_eq!(contents(&table)[&3], 2);
    }

    #[test]
    fn a_table_without_index_memory_still_counts() {
        let table = Table::<Heap>::new(1, HeapSlots::new(100), HeapSlots::new(1), HeapSlots::new(100));
        (0..100).for_each(|address| count(&table, address, 1));
        assert_eq!(table.rows(), 100);
        assert_eq!(contents(&table).values().sum::<u64>(), 100);
    }
}
