// SPDX-License-Identifier: GPL-2.0

//! Rows that keys find by their lowest bits, for a small network: neither a hash nor an index.
//!
//! A row has the number of its address within the network, and pages of rows come with the first
//! address in them.

use super::{
    counters::Counters,
    key::Key,
    row::{Find, Row},
    slots::{Memory, Slots},
};
use crate::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};
use core::marker::PhantomData;

/// The rows of one CPU for keys that are alike but for their lowest bits.
pub struct Direct<K, const PAIRS: usize, M: Memory> {
    /// What the keys have in common; the other bits are 0.
    prefix: [u64; 2],
    /// The bits in which they differ.
    mask: u32,
    /// How many rows are in use.
    length: AtomicU32,
    rows: M::Slots<Row<PAIRS>>,
    _keys: PhantomData<fn(K) -> K>,
}

impl<K: Key, const PAIRS: usize, M: Memory> Direct<K, PAIRS, M> {
    /// No rows yet. There are as many keys with `prefix` as `rows` says, a power of two.
    pub fn new(prefix: [u64; 2], rows: u32, memory: &M) -> Result<Self, M::Error> {
        let mask = rows.max(1) - 1;
        Ok(Self {
            prefix,
            mask,
            length: AtomicU32::new(0),
            rows: memory.slots(mask + 1)?,
            _keys: PhantomData,
        })
    }

    /// Makes the row of a key that has none, and takes it into use, or says that there is no memory.
    pub fn insert(&self, key: K) -> Option<&Counters<PAIRS>> {
        self.rows.make(self.number(key))?;
        self.take(key)
    }

    /// Takes the row of a key that has none into use, if it is there.
    pub fn take(&self, key: K) -> Option<&Counters<PAIRS>> {
        let row = self.rows.get(self.number(key))?;
        row.key[0].store(USED, Release);
        self.length
            .store(self.length.load(Relaxed).wrapping_add(1), Relaxed);
        Some(&row.counters)
    }

    #[inline]
    fn number(&self, key: K) -> u32 {
        key.to_words()[0] as u32 & self.mask
    }

    /// How many rows are in use.
    pub fn rows(&self) -> u32 {
        self.length.load(Relaxed)
    }

    /// The numbers that rows can have are below that.
    pub fn end(&self) -> u32 {
        self.mask + 1
    }

    /// The key of row `number`, if it is in use.
    pub fn key(&self, number: u32) -> Option<K> {
        let [low, high] = self.prefix;
        self.rows
            .get(number)?
            .is_used()
            .then(|| K::from_words([low | u64::from(number), high]))
    }

    /// The counters in row `number`.
    pub fn counters(&self, number: u32) -> Option<&Counters<PAIRS>> {
        Some(&self.rows.get(number)?.counters)
    }

    /// Bytes of memory that the rows take.
    pub fn memory(&self) -> usize {
        self.rows.memory()
    }
}

impl<K: Key, const PAIRS: usize, M: Memory> Find<K, PAIRS> for Direct<K, PAIRS, M> {
    #[inline(always)]
    fn find(&self, key: K) -> Option<&Counters<PAIRS>> {
        let row = self.rows.get(self.number(key))?;
        row.is_used().then_some(&row.counters)
    }
}

/// What is in the place of the key, which the row's number says: a row that nothing was counted in has zeros.
const USED: u64 = 1;

impl<const PAIRS: usize> Row<PAIRS> {
    #[inline]
    fn is_used(&self) -> bool {
        self.key[0].load(Acquire) == USED
    }
}
