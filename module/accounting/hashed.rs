// SPDX-License-Identifier: GPL-2.0

//! Rows in the order in which they were made, and a hash [`Index`] to find them.
//!
//! A row never moves. When there is no room for another row, a new key takes the place of a row
//! that is idle (see [`super::age`]). Readers do not use the index. They read the rows block by
//! block, each [`Block`] as it was at one moment.

use super::{
    age::{Age, Periods},
    block::{self, Block},
    counters::{add_to, Counters, Totals},
    hash::{Hash, Seed},
    index::{Index, Link, MOST_ROWS},
    key::{hash_of, Key},
    recycler::Recycler,
    row::{Collect, Counted, Find, Row},
    slots::{Backoff, Memory, Slots},
};
use crate::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use core::marker::PhantomData;

/// The rows of one CPU, for any keys.
pub struct Hashed<K, const PAIRS: usize, M: Memory> {
    seed: Seed,
    index: Index<M>,
    rows: M::Slots<Row<PAIRS>>,
    cold: Cold<PAIRS, M>,
    _keys: PhantomData<fn(K) -> K>,
}

/// What only new rows and readers need.
#[repr(align(64))]
struct Cold<const PAIRS: usize, M: Memory> {
    /// The largest number of rows.
    limit: u32,
    /// The number of rows. Rows with lower numbers are complete.
    length: AtomicU32,
    blocks: M::Slots<Block<PAIRS>>,
    recycler: Recycler<M>,
    periods: Periods,
    /// The number of rows that were made so far, for [`Age::born`]. It wraps around.
    births: AtomicU32,
    /// How often a row was recycled.
    recycled: AtomicU64,
    /// Skips allocations after one has failed.
    backoff: Backoff,
}

impl<K: Key, const PAIRS: usize, M: Memory> Hashed<K, PAIRS, M> {
    /// Makes no row yet, and at most `rows` later, or [`MOST_ROWS`] if that is less.
    ///
    /// # Errors
    ///
    /// Returns the error of `memory` if it cannot provide the arrays.
    pub fn new(seed: Seed, rows: u32, periods: Periods, memory: &M) -> Result<Self, M::Error> {
        let rows = rows.min(MOST_ROWS);
        Ok(Self {
            seed,
            index: Index::new(rows, memory)?,
            rows: memory.slots(rows)?,
            cold: Cold {
                limit: rows,
                length: AtomicU32::new(0),
                blocks: memory.slots(rows.div_ceil(block::ROWS))?,
                recycler: Recycler::new(rows, memory)?,
                periods,
                births: AtomicU32::new(0),
                recycled: AtomicU64::new(0),
                backoff: Backoff::new(memory.backoff()),
            },
            _keys: PhantomData,
        })
    }

    /// Allocates what the first rows need, as far as there is memory.
    ///
    /// Must not be called while another context makes rows.
    #[cold]
    #[inline(never)]
    pub fn prepare(&self) {
        self.make(0);
    }

    /// The counters of a key that [`find`](Find::find) has not found. It may have a row
    /// nevertheless: `find` does not follow all links of a bucket, and does not fill a bucket.
    /// Otherwise a row with `totals` is made, at the time `now`, and the result is [`Slow::Made`].
    ///
    /// Must not be called by two contexts at the same time.
    pub fn find_or_insert(&self, key: K, totals: &Totals<PAIRS>, now: u64) -> Slow<'_, PAIRS> {
        let hash = self.hash(key);
        if let Some(row) = self.find_by(hash, key) {
            return Slow::Found(&row.counters);
        }
        let cold = &self.cold;
        let born = cold.births.load(Relaxed);
        let age = Age::new(born, totals.sum(), cold.periods.at(now));
        if !self.append(key, hash, totals, age) && !self.recycle(key, hash, totals, age, now) {
            return Slow::NoRoom;
        }
        cold.births.store(born.wrapping_add(1), Relaxed);
        Slow::Made
    }

    /// Adds a row. Returns `false` if there is no room. `hash` is that of `key`.
    fn append(&self, key: K, hash: Hash, totals: &Totals<PAIRS>, age: Age) -> bool {
        let cold = &self.cold;
        let number = cold.length.load(Relaxed);
        if number >= cold.limit {
            return false;
        }
        let Some(row) = cold.backoff.attempt(|| self.make(number)) else {
            return false;
        };
        row.set_key(key.to_words());
        row.counters.set_all(totals);
        cold.recycler.set_new(number, age);
        self.index
            .add(number, hash.index(), |row| self.hash_of(row));
        // Pairs with the Acquire in rows(): a reader that sees the new length sees the row.
        cold.length.store(number.wrapping_add(1), Release);
        true
    }

    /// Allocates everything that row `number` needs. `None` if there is no memory.
    ///
    /// Inlined although there are two callers: a packet with a new address pays for no call.
    #[inline(always)]
    fn make(&self, number: u32) -> Option<&Row<PAIRS>> {
        self.index.make(number)?;
        self.cold.blocks.make(number / block::ROWS)?;
        self.cold.recycler.make(number)?;
        self.rows.make(number)
    }

    /// Gives an idle row to a new key. Returns `false` if there is none. `hash` is that of `key`.
    fn recycle(&self, key: K, hash: Hash, totals: &Totals<PAIRS>, age: Age, now: u64) -> bool {
        let sum = |number| self.rows.get(number).map_or(0, |row| row.counters.sum());
        let recycler = &self.cold.recycler;
        let Some(number) = recycler.take_idle(self.rows(), now, age.period(), sum) else {
            return false;
        };
        let block = self.cold.blocks.get(number / block::ROWS);
        let (Some(row), Some(block)) = (self.rows.get(number), block) else {
            return false;
        };
        let hash_of = |row| self.hash_of(row);
        let old = self.hash(K::from_words(row.key()));
        self.index.remove(number, old.index(), hash_of);
        recycler.add_ghost(old);
        let age = if recycler.remove_ghost(hash) {
            age.established()
        } else {
            age
        };
        block.recycle(&row.counters, || {
            row.set_key(key.to_words());
            row.counters.set_all(totals);
            recycler.set_new(number, age);
        });
        self.index.insert(number, hash.index(), hash_of);
        add_to(&self.cold.recycled, 1);
        true
    }

    /// The row of `key`, whose hash is `hash`.
    fn find_by(&self, hash: Hash, key: K) -> Option<&Row<PAIRS>> {
        let is_it = |number| self.rows.get(number).is_some_and(|row| row.has_key(key));
        let number = self
            .index
            .find(hash.index(), is_it, |row| self.hash_of(row))?;
        self.rows.get(number)
    }

    /// The hash of the key of row `number`, for the index.
    fn hash_of(&self, number: u32) -> u32 {
        let row = self.rows.get(number);
        row.map_or(0, |row| self.hash(K::from_words(row.key())).index())
    }

    /// The row of `key` in the chain from `link` on.
    #[inline(always)]
    fn find_from(&self, mut link: Link, hash: u32, key: K) -> Option<&Row<PAIRS>> {
        loop {
            let row = self.rows.get(link.row())?;
            if row.has_key(key) {
                return Some(row);
            }
            link = self.index.next(link, hash)?;
        }
    }

    #[inline]
    fn hash(&self, key: K) -> Hash {
        hash_of(self.seed, key)
    }

    /// The number of rows.
    pub fn rows(&self) -> u32 {
        self.cold.length.load(Acquire)
    }

    /// How often a row was recycled.
    pub fn recycled(&self) -> u64 {
        self.cold.recycled.load(Relaxed)
    }

    /// Adds all rows to `list`, and returns the counts of recycled rows. What was counted before
    /// the call is in the result once. What is counted meanwhile is there once or not at all. A key
    /// can have two rows, if the first was recycled meanwhile.
    ///
    /// Any context may call this at any time.
    ///
    /// # Errors
    ///
    /// Returns the error of `list`.
    pub fn read<C: Collect<K, PAIRS>>(&self, list: &mut C) -> Result<Totals<PAIRS>, C::Error> {
        let mut recycled = Totals::default();
        let mut first = 0;
        while let Some(block) = self.cold.blocks.get(first / block::ROWS) {
            let (end, count) = (self.rows().min(first + block::ROWS), list.count());
            if first >= end {
                break;
            }
            list.pause()?;
            let counts = block.read(|| {
                (first..end).try_for_each(|number| match self.counted(number) {
                    Some(row) => list.push(row),
                    None => Ok(()),
                })
            })?;
            match counts {
                Some(counts) => {
                    recycled.merge(counts);
                    first += block::ROWS;
                }
                None => list.truncate(count),
            }
        }
        Ok(recycled)
    }

    fn counted(&self, number: u32) -> Option<Counted<K, PAIRS>> {
        let row = self.rows.get(number)?;
        Some(Counted {
            key: K::from_words(row.key()),
            born: self.cold.recycler.born(number),
            totals: row.counters.read(),
        })
    }

    /// The bytes of memory that the rows and everything about them take.
    pub fn memory(&self) -> usize {
        let cold = self.cold.blocks.memory() + self.cold.recycler.memory();
        self.rows.memory() + self.index.memory() + cold
    }
}

impl<K: Key, const PAIRS: usize, M: Memory> Find<K, PAIRS> for Hashed<K, PAIRS, M> {
    #[inline(always)]
    fn find(&self, key: K) -> Option<&Counters<PAIRS>> {
        let hash = self.hash(key).index();
        let row = self.find_from(self.index.likely(hash)?, hash, key)?;
        Some(&row.counters)
    }

    // Both rows are fetched before the first is needed.
    #[inline(always)]
    fn find_both(&self, [one, other]: [K; 2]) -> Option<[&Counters<PAIRS>; 2]> {
        let hashes = [one, other].map(|key| self.hash(key).index());
        let links = [self.index.likely(hashes[0])?, self.index.likely(hashes[1])?];
        let mut rows = [
            self.rows.get(links[0].row())?,
            self.rows.get(links[1].row())?,
        ];
        if !rows[0].has_key(one) || !rows[1].has_key(other) {
            rows = [
                self.find_from(links[0], hashes[0], one)?,
                self.find_from(links[1], hashes[1], other)?,
            ];
        }
        Some(rows.map(|row| &row.counters))
    }
}

/// The counters of a key that needs more than a lookup.
pub enum Slow<'a, const PAIRS: usize> {
    /// The key has a row.
    Found(&'a Counters<PAIRS>),
    /// The key has a new row.
    Made,
    /// There is no row for the key.
    NoRoom,
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::host::{Collected, Heap};
    use std::{collections::BTreeMap, vec::Vec};

    const HZ: u64 = 1000;
    const NOW: u64 = 1_000_000;

    fn hashed_in(rows: u32, memory: &Heap) -> Hashed<u32, 3, Heap> {
        let seed = Seed::new(0x0123_4567_89ab_cdef);
        let Ok(hashed) = Hashed::new(seed, rows, Periods::new(HZ), memory);
        hashed
    }

    fn hashed(rows: u32) -> Hashed<u32, 3, Heap> {
        hashed_in(rows, &Heap::ENDLESS)
    }

    fn one() -> Totals<3> {
        Totals::one(0, crate::accounting::counters::Direction::Out, 1)
    }

    /// Counts one for a key.
    fn count(hashed: &Hashed<u32, 3, Heap>, key: u32, now: u64) -> bool {
        if let Some(counters) = hashed.find(key) {
            counters.add_all(&one());
            return true;
        }
        match hashed.find_or_insert(key, &one(), now) {
            Slow::Found(counters) => counters.add_all(&one()),
            Slow::Made => {}
            Slow::NoRoom => return false,
        }
        true
    }

    fn has_row(hashed: &Hashed<u32, 3, Heap>, key: u32) -> bool {
        hashed.find_by(hashed.hash(key), key).is_some()
    }

    fn contents(hashed: &Hashed<u32, 3, Heap>) -> (BTreeMap<u32, u64>, u64) {
        let mut rows = Collected::default();
        let Ok(recycled) = hashed.read(&mut rows);
        let mut all = BTreeMap::new();
        for row in rows.0 {
            *all.entry(row.key).or_default() += row.totals.sum();
        }
        (all, recycled.sum())
    }

    #[test]
    fn every_key_has_one_row_in_any_number_of_buckets() {
        for keys in [1, 2, 63, 64, 65, 1000, 40_000] {
            let hashed = hashed(1 << 16);
            for _ in 0..2 {
                (0..keys).for_each(|key| assert!(count(&hashed, key, NOW)));
            }
            let (rows, recycled) = contents(&hashed);
            assert!(rows.into_iter().eq((0..keys).map(|key| (key, 2))));
            assert_eq!((hashed.rows(), recycled, hashed.recycled()), (keys, 0, 0));
        }
    }

    #[test]
    fn the_memory_grows_with_the_rows() {
        let hashed = hashed(1 << 20);
        assert_eq!(hashed.memory(), 0);
        count(&hashed, 1, NOW);
        assert!(hashed.memory() <= 5 << 12, "{}", hashed.memory());
        (0..1 << 18).for_each(|key| assert!(count(&hashed, key, NOW)));
        let bytes = hashed.memory() / (1 << 18);
        assert!((84..96).contains(&bytes), "{bytes} bytes per row");
    }

    /// The time of packet `n` of a scan with a million packets a second.
    fn scan(n: u32) -> u64 {
        NOW + u64::from(n) * HZ / 1_000_000
    }

    #[test]
    fn a_full_table_recycles_rows_with_one_packet_and_loses_no_count() {
        let hashed = hashed(1 << 10);
        (0..100_000).for_each(|key| assert!(count(&hashed, key, scan(key))));
        let (rows, recycled) = contents(&hashed);
        assert_eq!(rows.values().sum::<u64>() + recycled, 100_000);
        assert_eq!((rows.len(), hashed.rows()), (1 << 10, 1 << 10));
        assert_eq!(hashed.recycled(), 100_000 - (1 << 10));
        assert!(rows.keys().all(|key| *key >= 100_000 - (1 << 10)));
    }

    #[test]
    fn rows_with_more_packets_survive_a_scan() {
        let hashed = hashed(1 << 10);
        let hosts = 0..500;
        for host in hosts.clone().chain(hosts.clone()) {
            assert!(count(&hashed, host, NOW));
        }
        // The hosts are silent during the scan. Its first packets only find that they have rows.
        let missed = (1000..1_000_000).filter(|key| !count(&hashed, *key, scan(*key)));
        let missed = missed.count();
        assert!((1..20_000).contains(&missed), "{missed}");
        assert!(hosts.into_iter().all(|host| has_row(&hashed, host)));
    }

    #[test]
    fn hosts_that_talk_survive_a_scan_with_two_packets_per_address() {
        let hashed = hashed(1 << 10);
        let talk = |now| {
            (0..100).for_each(|host| assert!(count(&hashed, host, now), "{host}"));
        };
        (0..10).for_each(|second| talk(NOW + second * HZ));
        let rows = || contents(&hashed).0.range(0..100).count();
        let mut without_row = 0;
        // 10,000 addresses a second.
        for (n, key) in (100_000..400_000u64).enumerate() {
            let now = NOW + 10 * HZ + n as u64 * HZ / 10_000;
            for _ in 0..2 {
                without_row += u32::from(!count(&hashed, key as u32, now));
            }
            if n % 10_000 == 0 {
                assert_eq!(rows(), 100, "after {n} addresses");
                talk(now);
            }
        }
        assert!(without_row > 0, "the scan was too slow");
        // After it, new hosts get rows within a second.
        for n in 0..10 {
            (500..900).for_each(|host| {
                count(&hashed, host, NOW + 41 * HZ + n * HZ / 10);
            });
        }
        assert!((500..900).all(|host| has_row(&hashed, host)));
    }

    #[test]
    fn hosts_that_are_silent_for_long_make_room() {
        let hashed = hashed(1 << 10);
        for day in 0..20u32 {
            for second in 0..100 {
                let now = NOW + u64::from(day * 86_400 + second) * HZ;
                (0..500).for_each(|host| {
                    count(&hashed, day * 1000 + host, now);
                });
            }
            let hosts = (0..500).filter(|host| has_row(&hashed, day * 1000 + host));
            assert_eq!(hosts.count(), 500, "day {day}");
        }
        assert!(hashed.recycled() > 5000);
    }

    #[test]
    fn without_memory_for_more_buckets_rows_are_recycled() {
        let hashed = hashed_in(1 << 16, &Heap { most: 128 });
        (0..10_000).for_each(|key| assert!(count(&hashed, key, scan(key))));
        let (rows, recycled) = contents(&hashed);
        assert_eq!((rows.len(), hashed.rows()), (128, 128));
        assert_eq!(rows.values().sum::<u64>() + recycled, 10_000);
    }

    #[test]
    fn a_small_table_has_exactly_its_rows() {
        for rows in [1, 3, 8, 20, 63, 64] {
            let hashed = hashed(rows);
            (0..1000).for_each(|key| assert!(count(&hashed, key, scan(key))));
            assert_eq!(hashed.rows(), rows);
            let (all, recycled) = contents(&hashed);
            assert_eq!(all.values().sum::<u64>() + recycled, 1000);
        }
    }

    /// A reader on another CPU sees each count once or not at all, and never too late.
    #[test]
    fn a_reader_sees_every_count_while_rows_are_recycled() {
        const KEYS: u32 = 300_000;
        let (hashed, counted) = (hashed(1 << 10), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..KEYS {
                    // A few keys come back all the time.
                    count(&hashed, if n % 3 == 0 { n % 1000 } else { n }, scan(n));
                    counted.store(u64::from(n) + 1, Release);
                }
            });
            let mut last = 0;
            while last < u64::from(KEYS) {
                let before = counted.load(Acquire);
                let (rows, recycled) = contents(&hashed);
                last = rows.values().sum::<u64>() + recycled;
                let after = counted.load(Acquire);
                assert!(
                    (before..=after + 1).contains(&last),
                    "{before}..{after}: {last}"
                );
            }
        });
    }

    #[test]
    fn a_new_row_of_an_old_key_is_another_one() {
        let hashed = hashed(1);
        let born = || {
            let mut rows = Collected::default();
            let Ok(_) = hashed.read(&mut rows);
            rows.0
                .iter()
                .map(|row| (row.key, row.born))
                .collect::<Vec<_>>()
        };
        let mut all = [7, 8, 7].map(|key| {
            assert!(count(&hashed, key, NOW));
            born()
        });
        all.sort();
        assert_eq!(all.concat(), [(7, 0), (7, 2), (8, 1)]);
    }
}
