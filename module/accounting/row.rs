// SPDX-License-Identifier: GPL-2.0

//! One row, and the interface to look one up. [`super::direct`] and [`super::hashed`] implement it.

use super::counters::Counters;
use crate::atomic::AtomicU64;

/// A key and its counters, aligned to cache lines: one line for bytes, two for connections.
///
/// The key is written before the row is published and never changes after that.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Row<const PAIRS: usize> {
    pub(super) key: [AtomicU64; 2],
    pub(super) counters: Counters<PAIRS>,
}

/// A lookup of rows by key.
pub trait Find<K, const PAIRS: usize> {
    /// The counters of `key`. `None` if it has no row.
    fn find(&self, key: K) -> Option<&Counters<PAIRS>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_whole_cache_lines() {
        assert_eq!([size_of::<Row<3>>(), size_of::<Row<4>>()], [64, 128]);
    }
}
