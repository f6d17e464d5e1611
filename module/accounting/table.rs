// SPDX-License-Identifier: GPL-2.0

//! The rows that one CPU keeps.
//!
//! Every CPU has its own rows and its own index to find them, so counting needs no lock and
//! writes no cache line that another CPU writes. Whoever reads the counts sums up the rows that
//! the CPUs have for a key.
//!
//! The index is a linear hash table: when there are as many rows as buckets, each new row brings
//! another bucket, by splitting the bucket whose turn it is. So there is no moment at which
//! everything moves, and memory follows the number of rows, page by page.

use super::{
    counters::{Counters, Direction, Totals},
    hash::Seed,
    key::{hash_of, Key, Owner},
    slots::{Memory, Slots, Wait},
};
use core::{
    marker::PhantomData,
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

/// A key and its counters, in cache lines of their own: one for bytes, two for connections.
///
/// The key is written before the row is published and never changes after that.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Row<const PAIRS: usize> {
    key: [AtomicU64; 2],
    counters: Counters<PAIRS>,
}

impl<const PAIRS: usize> Row<PAIRS> {
    #[inline]
    fn words(&self) -> [u64; 2] {
        [self.key[0].load(Relaxed), self.key[1].load(Relaxed)]
    }
}

/// A reference to a row or to the end of a chain: 0, or the row's number plus one.
pub type Link = AtomicU32;

/// How large a table may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Rows at most.
    pub rows: u32,
    /// Buckets that are there from the start, though without memory: at least one.
    pub buckets: u32,
}

/// The rows of one CPU. Keys are of type `K`, rows have `PAIRS` pairs of counters.
pub struct Table<K, const PAIRS: usize, M: Memory> {
    seed: Seed,
    /// How many rows are there. Rows below this number are complete.
    length: AtomicU32,
    /// How many buckets are there, at least one. Their memory comes with the first row in them.
    buckets: AtomicU32,
    rows: M::Slots<Row<PAIRS>>,
    /// The first row in a bucket.
    heads: M::Slots<Link>,
    /// The next row in the bucket of a row.
    nexts: M::Slots<Link>,
    /// For keys that could not get a row.
    others: Counters<PAIRS>,
    /// How often something was counted there.
    overflows: AtomicU64,
    memory_wait: Wait,
    _keys: PhantomData<fn(K) -> K>,
}

impl<K: Key, const PAIRS: usize, M: Memory> Table<K, PAIRS, M> {
    /// An empty table.
    pub fn new(seed: Seed, size: Size, memory: &M) -> Result<Self, M::Error> {
        let buckets = size.buckets.max(1);
        Ok(Self {
            seed,
            length: AtomicU32::new(0),
            buckets: AtomicU32::new(buckets),
            rows: memory.slots(size.rows)?,
            heads: memory.slots(size.rows.max(buckets))?,
            nexts: memory.slots(size.rows)?,
            others: Counters::default(),
            overflows: AtomicU64::new(0),
            memory_wait: Wait::new(memory.wait()),
            _keys: PhantomData,
        })
    }

    /// Adds to the row of `key`.
    ///
    /// One context at a time calls this. A key for which there is no memory is counted among the
    /// others.
    #[inline]
    pub fn add(&self, key: K, column: usize, direction: Direction, amount: u64) {
        let counters = self.row(key).unwrap_or_else(|| self.overflow());
        counters.add(column, direction, amount);
    }

    /// The counters of an owner, made if there are none. `None` if there is no room for a row.
    ///
    /// One context at a time calls this.
    pub fn counters(&self, owner: Owner<K>) -> Option<&Counters<PAIRS>> {
        match owner {
            Owner::One(key) => self.row(key),
            Owner::Others => Some(&self.others),
        }
    }

    /// What was counted for an owner, zero if it has no row.
    ///
    /// No row may come into being at the same time.
    pub fn totals_of(&self, owner: Owner<K>) -> Totals<PAIRS> {
        match owner {
            Owner::One(key) => self.find(key.to_words(), self.hash(key)).map_or_else(Totals::default, Counters::read),
            Owner::Others => self.others.read(),
        }
    }

    /// How many rows there are; they have the numbers below that.
    pub fn rows(&self) -> u32 {
        self.length.load(Acquire)
    }

    /// The key of row `number`.
    pub fn key(&self, number: u32) -> Option<K> {
        Some(K::from_words(self.rows.get(number)?.words()))
    }

    /// The counters in row `number`, zero if there is no such row.
    pub fn totals(&self, number: u32) -> Totals<PAIRS> {
        self.rows.get(number).map_or_else(Totals::default, |row| row.counters.read())
    }

    /// What was counted for keys without a row.
    pub fn others(&self) -> Totals<PAIRS> {
        self.others.read()
    }

    /// How often something was counted for a key without a row.
    pub fn overflows(&self) -> u64 {
        self.overflows.load(Relaxed)
    }

    /// Bytes of memory that the rows and the index take.
    pub fn memory(&self) -> usize {
        self.rows.memory() + self.heads.memory() + self.nexts.memory()
    }

    #[inline]
    fn row(&self, key: K) -> Option<&Counters<PAIRS>> {
        let (words, hash) = (key.to_words(), self.hash(key));
        match self.find(words, hash) {
            None => self.insert(words, hash),
            found => found,
        }
    }

    #[cold]
    fn overflow(&self) -> &Counters<PAIRS> {
        self.overflows.store(self.overflows.load(Relaxed) + 1, Relaxed);
        &self.others
    }

    #[inline]
    fn hash(&self, key: K) -> u32 {
        hash_of(self.seed, key) as u32
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
    fn find(&self, key: [u64; 2], hash: u32) -> Option<&Counters<PAIRS>> {
        let bucket = Self::bucket(hash, self.buckets.load(Relaxed));
        let mut link = self.heads.get(bucket)?.load(Relaxed);
        loop {
            let number = link.checked_sub(1)?;
            let row = self.rows.get(number)?;
            if row.words() == key {
                return Some(&row.counters);
            }
            link = self.nexts.get(number)?.load(Relaxed);
        }
    }

    /// Makes a row for a key that has none, or says that there is no room.
    #[cold]
    #[inline(never)]
    fn insert(&self, key: [u64; 2], hash: u32) -> Option<&Counters<PAIRS>> {
        self.memory_wait.attempt(|| self.make_row(key, hash))
    }

    fn make_row(&self, key: [u64; 2], hash: u32) -> Option<&Counters<PAIRS>> {
        let number = self.length.load(Relaxed);
        let (row, next) = (self.rows.make(number)?, self.nexts.make(number)?);
        if number >= self.buckets.load(Relaxed) {
            self.split();
        }
        let head = self.heads.make(Self::bucket(hash, self.buckets.load(Relaxed)))?;
        row.key[0].store(key[0], Relaxed);
        row.key[1].store(key[1], Relaxed);
        next.store(head.load(Relaxed), Relaxed);
        head.store(number + 1, Relaxed);
        // Readers that see the new length see the key.
        self.length.store(number + 1, Release);
        Some(&row.counters)
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
            let hash = self.hash(K::from_words(row.words()));
            let side = if Self::bucket(hash, new + 1) == new { &mut give } else { &mut keep };
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

    use super::*;
    use crate::host::Heap;
    use std::collections::BTreeMap;

    const COLUMN: usize = 0;

    /// A table with room for `rows` addresses.
    pub fn table(rows: u32) -> Table<u32, 3, Heap> {
        sized(Size { rows, buckets: 1 })
    }

    fn sized(size: Size) -> Table<u32, 3, Heap> {
        let Ok(table) = Table::new(Seed::new(0x0123_4567_89ab_cdef), size, &Heap::ENDLESS);
        table
    }

    fn count(table: &Table<u32, 3, Heap>, address: u32, bytes: u64) {
        table.add(address, COLUMN, Direction::Out, bytes);
    }

    fn contents(table: &Table<u32, 3, Heap>) -> BTreeMap<u32, u64> {
        let row = |n| (table.key(n).unwrap(), table.totals(n).total().0);
        (0..table.rows()).map(row).collect()
    }

    fn longest_chain(table: &Table<u32, 3, Heap>) -> u32 {
        let length = |bucket| {
            let mut link = table.heads.get(bucket).map_or(0, |head| head.load(Relaxed));
            let mut length = 0;
            while let Some(number) = link.checked_sub(1) {
                link = table.nexts.get(number).unwrap().load(Relaxed);
                length += 1;
            }
            length
        };
        (0..table.buckets.load(Relaxed)).map(length).max().unwrap()
    }

    #[test]
    fn rows_are_whole_cache_lines() {
        assert_eq!([size_of::<Row<3>>(), size_of::<Row<4>>()], [64, 128]);
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
        assert_eq!(table.totals_of(Owner::One(7)).total(), (300, 0));
        assert!(table.totals_of(Owner::One(8)).is_zero());
        assert_eq!(table.rows(), 2);
    }

    #[test]
    fn many_addresses_in_any_order() {
        for buckets in [1, 2, 3, 256, 1000, 1 << 15] {
            let table = sized(Size { rows: 20_000, buckets });
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
            assert_eq!(table.overflows(), 0);
        }
    }

    #[test]
    fn chains_stay_short() {
        for buckets in [1, 1000, 1 << 16] {
            let table = sized(Size { rows: 1 << 16, buckets });
            (0..1 << 16).for_each(|n| count(&table, 0x0a00_0000 | n, 1));
            assert!(longest_chain(&table) < 12, "{}", longest_chain(&table));
        }
    }

    #[test]
    fn no_byte_is_lost_when_the_table_is_full() {
        let table = table(64);
        (0..1000).for_each(|address| count(&table, address, 10));
        (0..1000).for_each(|address| count(&table, address, 10));
        assert_eq!(table.rows(), 64);
        assert!(contents(&table).values().all(|bytes| *bytes == 20));
        assert_eq!(table.others().total(), (20 * (1000 - 64), 0));
        assert_eq!(table.overflows(), 2 * (1000 - 64));
        assert_eq!(table.totals_of(Owner::Others), table.others());
    }

    #[test]
    fn a_table_asks_for_memory_again_after_a_while() {
        let table = table(4);
        (0..4).for_each(|address| count(&table, address, 1));
        assert!(!table.memory_wait.is_waiting());
        count(&table, 4, 1);
        assert!(table.memory_wait.is_waiting());
        let wait = Heap::ENDLESS.wait();
        (0..wait).for_each(|_| count(&table, 4, 1));
        assert!(!table.memory_wait.is_waiting());
        count(&table, 4, 1);
        assert!(table.memory_wait.is_waiting());
        assert_eq!(table.others().total(), (u64::from(wait) + 2, 0));
        // Known addresses don't wait.
        count(&table, 3, 1);
        assert_eq!(contents(&table)[&3], 2);
    }

    #[test]
    fn buckets_take_no_memory_before_there_are_rows() {
        let table = sized(Size { rows: 1 << 20, buckets: 1 << 24 });
        assert_eq!(table.memory(), 0);
        count(&table, 1, 1);
        assert!(table.memory() < 16 << 10, "{}", table.memory());
    }

    #[test]
    fn a_table_without_index_memory_still_counts() {
        // The index may not grow beyond its first page.
        let memory = Heap { most: 64 };
        let Ok(mut table) = Table::<u32, 3, _>::new(Seed::new(1), Size { rows: 64, buckets: 1 }, &memory);
        let Ok(rows) = Heap::ENDLESS.slots(1000);
        let Ok(nexts) = Heap::ENDLESS.slots(1000);
        (table.rows, table.nexts) = (rows, nexts);
        (0..1000).for_each(|address| count(&table, address, 1));
        assert_eq!((table.rows(), table.buckets.load(Relaxed)), (1000, 64));
        assert_eq!(contents(&table).values().sum::<u64>(), 1000);
    }
}
