// SPDX-License-Identifier: GPL-2.0

//! The rows of all CPUs, in ascending order of their keys.
//!
//! A listing has the counts of all rows, each CPU's buckets as they were at one moment. So the sum
//! over a listing is exact, although rows are recycled while it is made and while it is read.

use super::{
    counters::Totals,
    key::Key,
    platform::Platform,
    row::{Collect, Counted},
    sort::{self, PAUSE},
};
use core::{marker::PhantomData, ops::Range};

/// A key, and the number of its row in the listing. Entries sort by key, then by CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry<K> {
    key: K,
    row: u32,
}

/// A sorted list of rows, with an `R` for each of them.
pub struct Listing<P: Platform, K, R> {
    order: P::List<Entry<K>>,
    rows: P::List<R>,
}

/// The bytes that a listing takes for a row, with its entry.
pub const fn bytes_per_row<K, R>() -> usize {
    size_of::<Entry<K>>() + size_of::<R>()
}

/// A row of a listing.
pub trait ListedRow<const PAIRS: usize> {
    /// The row that a CPU had.
    fn new<K>(cpu: u32, row: Counted<K, PAIRS>) -> Self;
}

/// The counts alone.
impl<const PAIRS: usize> ListedRow<PAIRS> for Totals<PAIRS> {
    fn new<K>(_: u32, row: Counted<K, PAIRS>) -> Self {
        row.totals
    }
}

impl<P: Platform, K: Key, R> Listing<P, K, R> {
    /// A listing without rows, with room for `capacity` of them.
    ///
    /// # Errors
    ///
    /// Fails if there is no memory.
    pub fn new(capacity: usize) -> Result<Self, P::Error> {
        Ok(Self {
            order: P::list(capacity)?,
            rows: P::list(capacity)?,
        })
    }

    /// A collector for the rows of a CPU.
    pub fn of_cpu<const PAIRS: usize>(&mut self, cpu: u32) -> OfCpu<'_, P, K, R, PAIRS> {
        OfCpu {
            listing: self,
            cpu,
            unpaused: 0,
            _pairs: PhantomData,
        }
    }

    /// Sorts the rows. Must be called once, when all rows are there.
    ///
    /// # Errors
    ///
    /// Fails if there is no memory, or if the reader has been killed.
    pub fn sort(&mut self) -> Result<(), P::Error> {
        sort::sort::<P, _>(&mut self.order)
    }

    /// The first key after `last`, and the positions of its rows: at least one. The first key of
    /// all if `last` is `None`. `None` if there is no such key.
    pub fn after(&self, last: Option<K>) -> Option<(K, Range<usize>)> {
        let start = last.map_or(0, |last| {
            self.order.partition_point(|entry| entry.key <= last)
        });
        let key = self.order.get(start)?.key;
        Some((key, self.from(start, key)))
    }

    /// The positions of the rows of `key`.
    pub fn of_key(&self, key: K) -> Range<usize> {
        self.from(self.order.partition_point(|entry| entry.key < key), key)
    }

    /// The positions from `start` on of the rows of `key`.
    fn from(&self, start: usize, key: K) -> Range<usize> {
        let rest = self.order.iter().skip(start);
        start..start + rest.take_while(|entry| entry.key == key).count()
    }

    /// The key at a position, and the number of its row.
    pub fn entry(&self, position: usize) -> Option<(K, usize)> {
        let entry = self.order.get(position)?;
        Some((entry.key, entry.row as usize))
    }

    /// The keys and the numbers of their rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = (K, usize)> + '_ {
        let entries = self.order.iter();
        entries.map(|entry| (entry.key, entry.row as usize))
    }

    /// Row `number`.
    pub fn row(&self, number: usize) -> Option<&R> {
        self.rows.get(number)
    }

    /// Row `number`, to change it.
    pub fn row_mut(&mut self, number: usize) -> Option<&mut R> {
        self.rows.get_mut(number)
    }

    /// The bytes of memory that the rows take.
    pub fn memory(&self) -> usize {
        size_of_val::<[R]>(&self.rows) + size_of_val::<[Entry<K>]>(&self.order)
    }
}

impl<P: Platform, K: Key, const PAIRS: usize> Listing<P, K, Totals<PAIRS>> {
    /// The first key after `last`, and the sum of its rows. See [`after`](Self::after).
    pub fn sum_after(&self, last: Option<K>) -> Option<(K, Totals<PAIRS>)> {
        let (key, positions) = self.after(last)?;
        let rows = positions.filter_map(|position| self.row(self.entry(position)?.1));
        let mut sum = Totals::default();
        rows.for_each(|totals| sum.merge(*totals));
        Some((key, sum))
    }
}

/// Collects the rows of a CPU.
pub struct OfCpu<'a, P: Platform, K, R, const PAIRS: usize> {
    listing: &'a mut Listing<P, K, R>,
    cpu: u32,
    /// The number of rows since the last pause.
    unpaused: usize,
    _pairs: PhantomData<[(); PAIRS]>,
}

impl<P: Platform, K: Key, R: ListedRow<PAIRS>, const PAIRS: usize> Collect<K, PAIRS>
    for OfCpu<'_, P, K, R, PAIRS>
{
    type Error = P::Error;

    fn count(&self) -> usize {
        self.listing.rows.len()
    }

    fn push(&mut self, row: Counted<K, PAIRS>) -> Result<(), P::Error> {
        self.unpaused += 1;
        let entry = Entry {
            key: row.key,
            row: self.count() as u32,
        };
        P::push(&mut self.listing.order, entry)?;
        P::push(&mut self.listing.rows, R::new(self.cpu, row))
    }

    fn truncate(&mut self, count: usize) {
        P::truncate(&mut self.listing.order, count);
        P::truncate(&mut self.listing.rows, count);
    }

    fn pause(&mut self) -> Result<(), P::Error> {
        if self.unpaused < PAUSE {
            return Ok(());
        }
        self.unpaused = 0;
        P::pause()
    }
}
