// SPDX-License-Identifier: GPL-2.0

//! Rows that are found by the lowest bits of their keys. Small networks use them.
//!
//! The number of a row is the host part of its address, so there is neither a hash nor an index. A
//! page of rows is allocated when the first of its addresses is counted.

use super::{
    counters::Counters,
    key::Key,
    row::{Collect, Counted, Find, Row},
    slots::{Memory, Slots},
};
use crate::atomic::{AtomicU32, Ordering::Relaxed};
use core::marker::PhantomData;

/// The rows of one CPU for keys that differ in their lowest bits only.
pub struct Direct<K, const PAIRS: usize, M: Memory> {
    /// The words of the key of row 0: the bits of `mask` are 0.
    prefix: [u64; 2],
    /// The bits in which the keys differ. They are the number of a row.
    mask: u32,
    /// The number of rows in use.
    length: AtomicU32,
    rows: M::Slots<Row<PAIRS>>,
    _keys: PhantomData<fn(K) -> K>,
}

impl<K: Key, const PAIRS: usize, M: Memory> Direct<K, PAIRS, M> {
    /// Makes no row yet. `rows` is the number of keys, a power of two, and `prefix` has the words
    /// of the first of them.
    ///
    /// # Errors
    ///
    /// Returns the error of `memory` if it cannot provide the array.
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

    /// Allocates the row of a key that has none and marks it as used. `None` if there is no memory.
    pub fn insert(&self, key: K) -> Option<&Counters<PAIRS>> {
        self.rows.make(self.number(key))?;
        self.take(key)
    }

    /// Marks the unused row of a key as used. `None` if it is not allocated.
    pub fn take(&self, key: K) -> Option<&Counters<PAIRS>> {
        let row = self.rows.get(self.number(key))?;
        row.set_key([USED, 0]);
        self.length
            .store(self.length.load(Relaxed).wrapping_add(1), Relaxed);
        Some(&row.counters)
    }

    #[inline]
    fn number(&self, key: K) -> u32 {
        key.to_words()[0] as u32 & self.mask
    }

    /// The number of rows in use.
    pub fn rows(&self) -> u32 {
        self.length.load(Relaxed)
    }

    /// Adds all rows to `list`. Any context may call this at any time.
    ///
    /// # Errors
    ///
    /// Returns the error of `list`.
    pub fn read<C: Collect<K, PAIRS>>(&self, list: &mut C) -> Result<(), C::Error> {
        for number in 0..=self.mask {
            if number % 64 == 0 {
                list.pause()?;
            }
            if let Some(row) = self.rows.get(number).filter(|row| row.is_used()) {
                let [low, high] = self.prefix;
                list.push(Counted {
                    key: K::from_words([low | u64::from(number), high]),
                    born: 0,
                    totals: row.counters.read(),
                })?;
            }
        }
        Ok(())
    }

    /// The bytes of memory that the rows take.
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

    #[inline(always)]
    fn find_both(&self, [one, other]: [K; 2]) -> Option<[&Counters<PAIRS>; 2]> {
        Some([self.find(one)?, self.find(other)?])
    }
}

/// The lowest word of the key of a row in use. The number of a direct row implies its key, so the
/// word only tells whether the row is in use: it is 0 until something is counted in the row.
const USED: u64 = 1;

impl<const PAIRS: usize> Row<PAIRS> {
    #[inline]
    fn is_used(&self) -> bool {
        self.low_word() == USED
    }
}
