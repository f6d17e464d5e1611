// SPDX-License-Identifier: GPL-2.0

//! Rows in the order in which their keys were first seen, and a hash index to find them.
//!
//! The index is a linear hash table (<https://en.wikipedia.org/wiki/Linear_hashing>) with at least
//! four buckets per row. When a new row needs more buckets, the next four buckets in order are
//! split. So the index is never rehashed as a whole, and it grows page by page with the number of
//! rows.

use super::{
    counters::Counters,
    hash::Seed,
    key::{hash_of, Key},
    row::{Find, Row},
    slots::{Memory, Slots},
};
use crate::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};
use core::marker::PhantomData;

/// Buckets per row. With four, nearly every row is the first one in its bucket. The CPU predicts
/// that and executes the next packet while the row is fetched from memory. With fewer buckets the
/// chains are longer, and the CPU cannot predict where a chain ends.
const BUCKETS: u32 = 4;

/// A reference to a row or to the end of a chain: 0, or the row's number plus one.
type Link = AtomicU32;

/// The rows of one CPU, for any keys.
pub struct Hashed<K, const PAIRS: usize, M: Memory> {
    seed: Seed,
    /// The number of rows. Rows with lower numbers are complete.
    length: AtomicU32,
    /// The number of buckets, at least one. A page of buckets is allocated with its first row.
    buckets: AtomicU32,
    /// The [`mask`] for `buckets`.
    mask: AtomicU32,
    rows: M::Slots<Row<PAIRS>>,
    /// The first row of each bucket.
    heads: M::Slots<Link>,
    /// For each row, the next row in the same bucket.
    nexts: M::Slots<Link>,
    _keys: PhantomData<fn(K) -> K>,
}

impl<K: Key, const PAIRS: usize, M: Memory> Hashed<K, PAIRS, M> {
    /// Makes no row yet, and at most `rows` later. Starts with `buckets` buckets, at least one,
    /// which take no memory yet.
    ///
    /// # Errors
    ///
    /// Returns the error of `memory` if it cannot provide the arrays.
    pub fn new(seed: Seed, rows: u32, buckets: u32, memory: &M) -> Result<Self, M::Error> {
        let buckets = buckets.max(1);
        Ok(Self {
            seed,
            length: AtomicU32::new(0),
            buckets: AtomicU32::new(buckets),
            mask: AtomicU32::new(mask(buckets)),
            rows: memory.slots(rows)?,
            heads: memory.slots(rows.saturating_mul(BUCKETS).max(buckets))?,
            nexts: memory.slots(rows)?,
            _keys: PhantomData,
        })
    }

    /// Makes a row for a key that has none. `None` if there is no room.
    pub fn insert(&self, key: K) -> Option<&Counters<PAIRS>> {
        let number = self.length.load(Relaxed);
        let (row, next) = (self.rows.make(number)?, self.nexts.make(number)?);
        if number >= self.buckets.load(Relaxed) / BUCKETS {
            // Without memory for more buckets, the chains get longer.
            let _ = (0..BUCKETS).try_for_each(|_| self.split());
        }
        let head = self.heads.make(self.bucket(self.hash(key)))?;
        let [low, high] = key.to_words();
        row.key[0].store(low, Relaxed);
        row.key[1].store(high, Relaxed);
        next.store(head.load(Relaxed), Relaxed);
        head.store(number.wrapping_add(1), Relaxed);
        // Pairs with the Acquire in rows(): a reader that sees the new length sees the key.
        self.length.store(number.wrapping_add(1), Release);
        Some(&row.counters)
    }

    /// Adds a bucket and moves to it the rows that belong there. `None` if there is no memory.
    fn split(&self) -> Option<()> {
        let new = self.buckets.load(Relaxed);
        let new_head = self.heads.make(new)?;
        // The bucket that has the rows of the new one until now.
        let old = self.bucket(new);
        let buckets = new.wrapping_add(1);
        self.buckets.store(buckets, Relaxed);
        self.mask.store(mask(buckets), Relaxed);
        let Some(old_head) = self.heads.get(old) else {
            return Some(());
        };
        let mut link = old_head.load(Relaxed);
        let (mut keep, mut give) = (0, 0);
        while let Some(number) = link.checked_sub(1) {
            let (Some(row), Some(next)) = (self.rows.get(number), self.nexts.get(number)) else {
                break;
            };
            let after = next.load(Relaxed);
            let hash = self.hash(K::from_words(row.words()));
            let side = if self.bucket(hash) == new {
                &mut give
            } else {
                &mut keep
            };
            next.store(*side, Relaxed);
            *side = link;
            link = after;
        }
        old_head.store(keep, Relaxed);
        new_head.store(give, Relaxed);
        Some(())
    }

    #[inline]
    fn hash(&self, key: K) -> u32 {
        hash_of(self.seed, key).index()
    }

    #[inline]
    fn bucket(&self, hash: u32) -> u32 {
        bucket(hash, self.buckets.load(Relaxed), self.mask.load(Relaxed))
    }

    /// The number of rows.
    pub fn rows(&self) -> u32 {
        self.length.load(Acquire)
    }

    /// The upper bound of the row numbers, exclusive. Every number below it has a row.
    pub fn end(&self) -> u32 {
        self.rows()
    }

    /// The key of row `number`. `None` if there is no such row.
    pub fn key(&self, number: u32) -> Option<K> {
        Some(K::from_words(self.rows.get(number)?.words()))
    }

    /// The counters in row `number`. `None` if there is no such row.
    pub fn counters(&self, number: u32) -> Option<&Counters<PAIRS>> {
        Some(&self.rows.get(number)?.counters)
    }

    /// The bytes of memory that the rows and the index take.
    pub fn memory(&self) -> usize {
        self.rows.memory() + self.heads.memory() + self.nexts.memory()
    }
}

impl<K: Key, const PAIRS: usize, M: Memory> Find<K, PAIRS> for Hashed<K, PAIRS, M> {
    // Always inlined: with a call, a packet takes up to twice as long when its rows are not cached.
    #[inline(always)]
    fn find(&self, key: K) -> Option<&Counters<PAIRS>> {
        let words = key.to_words();
        let mut link = self.heads.get(self.bucket(self.hash(key)))?.load(Relaxed);
        loop {
            let number = link.checked_sub(1)?;
            let row = self.rows.get(number)?;
            if row.words() == words {
                return Some(&row.counters);
            }
            link = self.nexts.get(number)?.load(Relaxed);
        }
    }
}

impl<const PAIRS: usize> Row<PAIRS> {
    #[inline]
    fn words(&self) -> [u64; 2] {
        [self.key[0].load(Relaxed), self.key[1].load(Relaxed)]
    }
}

/// The bits of a hash that distinguish `buckets` buckets. `buckets` is at least 1.
fn mask(buckets: u32) -> u32 {
    u32::MAX
        .checked_shr(buckets.saturating_sub(1).leading_zeros())
        .unwrap_or(0)
}

/// The bucket of `hash` among `buckets`, whose [`mask`] is `mask`.
///
/// Let 2^n < `buckets` <= 2^(n+1). Buckets that are split already, and the buckets that they were
/// split into, are selected by n+1 bits of the hash. The others are selected by n bits.
#[inline]
fn bucket(hash: u32, buckets: u32, mask: u32) -> u32 {
    let wide = hash & mask;
    if wide < buckets {
        wide
    } else {
        wide & (mask >> 1)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::host::Heap;
    use std::vec::Vec;

    fn hashed(rows: u32, buckets: u32) -> Hashed<u32, 3, Heap> {
        let Ok(hashed) = Hashed::new(
            Seed::new(0x0123_4567_89ab_cdef),
            rows,
            buckets,
            &Heap::ENDLESS,
        );
        hashed
    }

    fn insert(hashed: &Hashed<u32, 3, Heap>, addresses: u32) {
        (0..addresses).for_each(|n| assert!(hashed.insert(0x0a00_0000 | n).is_some()));
    }

    /// The number of rows in each bucket.
    fn chains(hashed: &Hashed<u32, 3, Heap>) -> Vec<u32> {
        let length = |bucket| {
            let mut link = hashed
                .heads
                .get(bucket)
                .map_or(0, |head| head.load(Relaxed));
            let mut length = 0;
            while let Some(number) = link.checked_sub(1) {
                link = hashed.nexts.get(number).unwrap().load(Relaxed);
                length += 1;
            }
            length
        };
        (0..hashed.buckets.load(Relaxed)).map(length).collect()
    }

    #[test]
    fn every_hash_has_a_bucket() {
        for buckets in [1, 2, 3, 4, 5, 255, 256, 257, u32::MAX] {
            let mask = mask(buckets);
            assert!(
                mask >= buckets - 1 && (buckets == 1 || mask / 2 < buckets - 1),
                "{buckets}: {mask:x}"
            );
            for hash in
                (0..1000).chain([u32::MAX, u32::MAX / 2, buckets - 1, buckets.wrapping_add(1)])
            {
                assert!(bucket(hash, buckets, mask) < buckets);
            }
        }
    }

    #[test]
    fn chains_stay_short() {
        const ROWS: u32 = 1 << 16;
        for buckets in [1, 1000, 1 << 16, 1 << 20] {
            let hashed = hashed(ROWS, buckets);
            insert(&hashed, ROWS);
            let chains = chains(&hashed);
            assert_eq!(chains.iter().sum::<u32>(), ROWS);
            let longest = chains.iter().max();
            assert!(longest < Some(&8), "{longest:?}");
            // More than 7/8 of the rows are the first in their bucket.
            let first = chains.iter().filter(|length| **length > 0).count();
            assert!(first > ROWS as usize / 8 * 7, "{first}");
        }
    }

    #[test]
    fn buckets_take_no_memory_before_they_have_rows() {
        let hashed = hashed(1 << 20, 1 << 24);
        assert_eq!(hashed.memory(), 0);
        insert(&hashed, 1);
        assert!(hashed.memory() < 16 << 10, "{}", hashed.memory());
    }

    #[test]
    fn rows_are_found_without_memory_for_more_buckets() {
        let mut hashed = hashed(1000, 1);
        // The index may not grow beyond its first page.
        let Ok(heads) = Heap { most: 64 }.slots(1000);
        hashed.heads = heads;
        insert(&hashed, 1000);
        assert_eq!((hashed.rows(), hashed.buckets.load(Relaxed)), (1000, 64));
        (0..1000).for_each(|n| assert!(hashed.find(0x0a00_0000 | n).is_some()));
    }
}
