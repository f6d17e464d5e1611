// SPDX-License-Identifier: GPL-2.0

//! One row, and the interfaces to look one up and to list all of them. [`super::direct`] and
//! [`super::hashed`] implement them.

use super::{
    counters::{Counters, Totals},
    key::Key,
};
use crate::atomic::{AtomicU64, Ordering::Relaxed};

/// A key and its counters, aligned to cache lines: one line for bytes, two for connections.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Row<const PAIRS: usize> {
    key: [AtomicU64; 2],
    pub(super) counters: Counters<PAIRS>,
}

impl<const PAIRS: usize> Row<PAIRS> {
    #[inline]
    pub(super) fn key(&self) -> [u64; 2] {
        [self.key[0].load(Relaxed), self.key[1].load(Relaxed)]
    }

    /// Returns whether the row is that of `key`. One load tells, if the key has one word only.
    #[inline]
    pub(super) fn has_key<K: Key>(&self, key: K) -> bool {
        let [low, high] = key.to_words();
        self.key[0].load(Relaxed) == low && (!K::TWO_WORDS || self.key[1].load(Relaxed) == high)
    }

    /// The lowest word of the key.
    #[inline]
    pub(super) fn low_word(&self) -> u64 {
        self.key[0].load(Relaxed)
    }

    pub(super) fn set_key(&self, [low, high]: [u64; 2]) {
        self.key[0].store(low, Relaxed);
        self.key[1].store(high, Relaxed);
    }
}

/// A lookup of rows by key.
pub trait Find<K, const PAIRS: usize> {
    /// The counters of `key`. `None` if it has no row.
    fn find(&self, key: K) -> Option<&Counters<PAIRS>>;

    /// The counters of two keys. `None` if one of them has no row.
    fn find_both(&self, keys: [K; 2]) -> Option<[&Counters<PAIRS>; 2]>;
}

/// A row as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted<K, const PAIRS: usize> {
    /// The key.
    pub key: K,
    /// What tells the row from an earlier row with the same key on the same CPU.
    pub born: u32,
    /// The counts.
    pub totals: Totals<PAIRS>,
}

/// Collects the rows of a table.
pub trait Collect<K, const PAIRS: usize> {
    /// Why rows cannot be collected.
    type Error;

    /// The number of rows that have been collected.
    fn count(&self) -> usize;

    /// Adds a row.
    ///
    /// # Errors
    ///
    /// Fails if there is no memory for it.
    fn push(&mut self, row: Counted<K, PAIRS>) -> Result<(), Self::Error>;

    /// Removes all rows but the first `count`.
    fn truncate(&mut self, count: usize);

    /// Lets other tasks run. Long loops call it often.
    ///
    /// # Errors
    ///
    /// Fails if the reader has been killed.
    fn pause(&mut self) -> Result<(), Self::Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_whole_cache_lines() {
        assert_eq!([size_of::<Row<3>>(), size_of::<Row<4>>()], [64, 128]);
    }
}
