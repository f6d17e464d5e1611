// SPDX-License-Identifier: GPL-2.0

//! A hash index. It tells which rows may have a key, by the hash of the key.
//!
//! A bucket has four links to rows. A packet follows the most likely of them
//! ([`Index::likely`]). The CPU cannot predict which one that is, so it is selected with
//! conditional moves. A row that finds no free link in its bucket is in the chain that begins with
//! the last link. There are at least two links per row, so these rows are few.
//!
//! When there are too many rows, the number of buckets is doubled. The index is not rehashed as a
//! whole: a bucket of the upper half gets its rows from the bucket in the lower half when it is
//! first used.

use super::slots::{Memory, Slots};
use crate::atomic::{AtomicU32, Ordering::Relaxed};

const LINKS: usize = 4;
/// The largest average number of rows per bucket.
const ROWS_PER_BUCKET: u32 = 2;

/// The largest number of rows. The number that stands for no row is far above it, so that arrays
/// do not have this slot, even if they have whole pages.
pub const MOST_ROWS: u32 = Link::NO_ROW - 1024;

/// A reference to a row: the row's number, and the lowest bits of the hash of its key. They tell
/// nearly always whether a row is the right one, so another row is rarely fetched from memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Link(u32);

impl Link {
    /// The number of bits of the hash. The bits above are the number of the row.
    const HASH_BITS: u32 = u8::BITS;
    /// The number in a link that refers to no row.
    const NO_ROW: u32 = u32::MAX >> Self::HASH_BITS;
    /// The end of a chain.
    const END: Self = Self::new(Self::NO_ROW, 0);
    /// The first link of a bucket that does not have its rows yet.
    const NOT_FILLED: Self = Self::new(Self::NO_ROW, 1);

    const fn new(row: u32, hash: u32) -> Self {
        Self(row << Self::HASH_BITS | hash as u8 as u32)
    }

    /// The number of the row. Above [`MOST_ROWS`] if there is none.
    #[inline]
    pub fn row(self) -> u32 {
        self.0 >> Self::HASH_BITS
    }

    /// Returns whether the row may have a key with this hash.
    #[inline]
    fn may_have(self, hash: u32) -> bool {
        self.0 as u8 == hash as u8
    }
}

/// A link that only one context at a time writes.
struct Cell(AtomicU32);

impl Cell {
    #[inline]
    fn get(&self) -> Link {
        Link(self.0.load(Relaxed))
    }

    fn set(&self, link: Link) {
        self.0.store(link.0, Relaxed);
    }
}

impl Default for Cell {
    fn default() -> Self {
        Self(AtomicU32::new(Link::NOT_FILLED.0))
    }
}

#[derive(Default)]
#[repr(C, align(16))]
struct Bucket([Cell; LINKS]);

impl Bucket {
    fn is_filled(&self) -> bool {
        self.0[0].get() != Link::NOT_FILLED
    }

    fn clear(&self) {
        self.0.iter().for_each(|cell| cell.set(Link::END));
    }

    /// A free link of the bucket.
    fn free(&self) -> Option<&Cell> {
        self.0.iter().find(|cell| cell.get() == Link::END)
    }

    fn last(&self) -> &Cell {
        &self.0[LINKS - 1]
    }
}

/// The index of the rows of one CPU. Only one context at a time may use it.
pub struct Index<M: Memory> {
    /// The number of buckets minus one. The number is a power of two.
    mask: AtomicU32,
    buckets: M::Slots<Bucket>,
    /// For each row, the next one in its chain.
    nexts: M::Slots<Cell>,
    /// All buckets with lower numbers are allocated.
    allocated: AtomicU32,
}

impl<M: Memory> Index<M> {
    /// An index for at most `rows` rows. It has none yet.
    ///
    /// # Errors
    ///
    /// Returns the error of `memory` if it cannot provide the arrays.
    pub fn new(rows: u32, memory: &M) -> Result<Self, M::Error> {
        let buckets = rows.div_ceil(ROWS_PER_BUCKET).next_power_of_two();
        Ok(Self {
            mask: AtomicU32::new(0),
            buckets: memory.slots(buckets)?,
            nexts: memory.slots(rows)?,
            allocated: AtomicU32::new(0),
        })
    }

    /// The link to the row that most likely has the key with this hash, if any row has it.
    #[inline(always)]
    pub fn likely(&self, hash: u32) -> Option<Link> {
        let bucket = self.buckets.get(self.number(hash))?;
        let mut likely = bucket.last().get();
        for cell in &bucket.0[..LINKS - 1] {
            let link = cell.get();
            likely = if link.may_have(hash) { link } else { likely };
        }
        Some(likely)
    }

    /// The next link in a chain after `link` to a row that may have the key with this hash.
    #[inline(always)]
    pub fn next(&self, mut link: Link, hash: u32) -> Option<Link> {
        loop {
            link = self.nexts.get(link.row())?.get();
            if link.may_have(hash) {
                return Some(link);
            }
        }
    }

    /// The row with the key of this hash. `is_it` tells for a row whether it has the key, and
    /// `hash_of` tells the hash of the key of a row.
    pub fn find(
        &self,
        hash: u32,
        is_it: impl Fn(u32) -> bool,
        hash_of: impl Fn(u32) -> u32,
    ) -> Option<u32> {
        let mut cells = self.bucket(hash, hash_of)?.0.iter();
        let matches = |link: Link| link.may_have(hash) && is_it(link.row());
        cells
            .find_map(|cell| self.chain(cell).map(Cell::get).find(|link| matches(*link)))
            .map(Link::row)
    }

    /// Allocates everything that row `row` needs. `None` if there is no memory.
    ///
    /// Buckets are allocated before their number is doubled, so that a lookup allocates nothing.
    pub fn make(&self, row: u32) -> Option<()> {
        /// A page has this number of buckets, or a multiple.
        const STEP: u32 = 256;
        let (allocated, most) = (self.allocated.load(Relaxed), self.most_rows());
        let mask = self.mask.load(Relaxed);
        let needed = if row > most / 4 * 3 {
            mask << 1 | 1
        } else {
            mask
        };
        if allocated <= needed && self.buckets.make(allocated).is_some() {
            self.allocated.store(allocated.wrapping_add(STEP), Relaxed);
        }
        self.buckets.get(0)?;
        self.nexts.make(row).map(|_| ())
    }

    /// Adds row `row`, for which [`Self::make`] was called before. `hash` is that of its key. Rows
    /// are added in the order of their numbers.
    pub fn add(&self, row: u32, hash: u32, hash_of: impl Fn(u32) -> u32) {
        let doubled = self.mask.load(Relaxed) << 1 | 1;
        // Without memory for more buckets, the chains get longer.
        if row >= self.most_rows() && self.allocated.load(Relaxed) > doubled {
            self.mask.store(doubled, Relaxed);
        }
        self.insert(row, hash, hash_of);
    }

    /// Enters a row into its bucket. `hash` is that of its key.
    pub fn insert(&self, row: u32, hash: u32, hash_of: impl Fn(u32) -> u32) {
        if let Some(bucket) = self.bucket(hash, hash_of) {
            self.put(bucket, Link::new(row, hash));
        }
    }

    /// Removes a row from its bucket. `hash` is that of its key.
    pub fn remove(&self, row: u32, hash: u32, hash_of: impl Fn(u32) -> u32) {
        let bucket = self.bucket(hash, hash_of);
        let mut cells = bucket.iter().flat_map(|bucket| &bucket.0);
        let place = cells.find_map(|cell| self.chain(cell).find(|cell| cell.get().row() == row));
        if let (Some(place), Some(next)) = (place, self.nexts.get(row)) {
            place.set(next.get());
        }
    }

    /// The bytes of memory that the index takes.
    pub fn memory(&self) -> usize {
        self.buckets.memory() + self.nexts.memory()
    }

    /// The number of the bucket for a hash.
    #[inline(always)]
    fn number(&self, hash: u32) -> u32 {
        bucket_bits(hash) & self.mask.load(Relaxed)
    }

    /// The largest number of rows for this number of buckets.
    fn most_rows(&self) -> u32 {
        self.mask
            .load(Relaxed)
            .wrapping_add(1)
            .wrapping_mul(ROWS_PER_BUCKET)
    }

    /// The links of the chain that begins with `first`, without the last, which refers to no row.
    fn chain<'a>(&'a self, first: &'a Cell) -> impl Iterator<Item = &'a Cell> {
        let mut place = Some(first);
        core::iter::from_fn(move || {
            let cell = place?;
            place = Some(self.nexts.get(cell.get().row())?);
            Some(cell)
        })
    }

    fn put(&self, bucket: &Bucket, link: Link) {
        let Some(next) = self.nexts.get(link.row()) else {
            return;
        };
        let place = bucket.free().unwrap_or_else(|| bucket.last());
        next.set(place.get());
        place.set(link);
    }

    /// The bucket for a hash, which gets its rows now if need be. `None` if not even the first
    /// bucket is allocated.
    fn bucket(&self, hash: u32, hash_of: impl Fn(u32) -> u32) -> Option<&Bucket> {
        let mut number = self.number(hash);
        // As long as a bucket is not allocated, its rows stay in the one that it gets them from.
        let bucket = loop {
            match self.buckets.get(number) {
                Some(bucket) => break bucket,
                None => number = parent(number)?,
            }
        };
        if !bucket.is_filled() {
            self.fill(bucket, number, hash_of);
        }
        Some(bucket)
    }

    /// Gives bucket `number` its rows. They are in the nearest of its parents that has rows.
    fn fill(&self, bucket: &Bucket, number: u32, hash_of: impl Fn(u32) -> u32) {
        bucket.clear();
        let filled = |number| self.buckets.get(number).filter(|old| old.is_filled());
        let mut parents = core::iter::successors(parent(number), |number| parent(*number));
        let Some(old) = parents.find_map(filled) else {
            return;
        };
        let links = core::array::from_fn::<_, LINKS, _>(|n| old.0[n].get());
        old.clear();
        for mut link in links {
            while let Some(next) = self.nexts.get(link.row()).map(Cell::get) {
                let belongs = belongs_to(bucket_bits(hash_of(link.row())), number);
                self.put(if belongs { bucket } else { old }, link);
                link = next;
            }
        }
    }
}

/// The bits of a hash that select the bucket. Those of a [`Link`] are others, so they tell apart
/// the rows of one bucket.
#[inline(always)]
fn bucket_bits(hash: u32) -> u32 {
    hash >> Link::HASH_BITS
}

/// The bucket that a bucket gets its rows from: its number without the highest bit. `None` for the
/// first bucket.
fn parent(bucket: u32) -> Option<u32> {
    Some(bucket ^ 1 << bucket.checked_ilog2()?)
}

/// Returns whether `bucket` is for these `bits` of a hash, as soon as there are so many buckets.
fn belongs_to(bits: u32, bucket: u32) -> bool {
    let mask = u32::MAX.checked_shr(bucket.leading_zeros()).unwrap_or(0);
    bits & mask == bucket
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::{accounting::hash::Seed, host::Heap};
    use std::vec::Vec;

    /// An index and the hashes of the keys of its rows.
    struct Rows {
        index: Index<Heap>,
        hashes: Vec<u32>,
    }

    fn hash(key: u32) -> u32 {
        Seed::new(7).hash().word(u64::from(key)).index()
    }

    impl Rows {
        fn new(most: u32) -> Self {
            let Ok(index) = Index::new(most, &Heap::ENDLESS);
            let hashes = Vec::new();
            Self { index, hashes }
        }

        /// Adds rows with the keys `keys`.
        fn add(&mut self, keys: impl IntoIterator<Item = u32>) {
            for key in keys {
                let row = self.hashes.len() as u32;
                assert!(self.index.make(row).is_some());
                self.hashes.push(hash(key));
                self.index.add(row, hash(key), |row| self.hash_of(row));
            }
        }

        /// Gives row `row` to the key `key`.
        fn recycle(&mut self, row: u32, key: u32) {
            let old = self.hash_of(row);
            self.index.remove(row, old, |row| self.hash_of(row));
            self.hashes[row as usize] = hash(key);
            self.index.insert(row, hash(key), |row| self.hash_of(row));
        }

        fn hash_of(&self, row: u32) -> u32 {
            self.hashes[row as usize]
        }

        fn finds(&self, row: u32) -> bool {
            let hash = self.hash_of(row);
            let found = self
                .index
                .find(hash, |other| other == row, |row| self.hash_of(row));
            found == Some(row)
        }

        fn numbers(&self) -> core::ops::Range<u32> {
            0..self.hashes.len() as u32
        }

        /// The number of rows of each bucket that has its rows.
        fn lengths(&self) -> Vec<usize> {
            let buckets = 0..=self.index.mask.load(Relaxed);
            let buckets = buckets.filter_map(|number| self.index.buckets.get(number));
            let filled = buckets.filter(|bucket| bucket.is_filled());
            let rows = |cell| self.index.chain(cell).count();
            filled
                .map(|bucket| bucket.0.iter().map(rows).sum())
                .collect()
        }
    }

    #[test]
    fn every_row_is_found_with_any_number_of_rows() {
        let mut rows = Rows::new(1 << 12);
        for key in 0..1 << 12 {
            rows.add([key]);
            assert!(rows.finds(key) && rows.finds(key / 2), "{key}");
        }
        assert!(rows.numbers().all(|row| rows.finds(row)));
        assert_eq!(rows.lengths().iter().sum::<usize>(), 1 << 12);
    }

    #[test]
    fn a_row_is_found_by_its_new_key_only() {
        let mut rows = Rows::new(1 << 10);
        rows.add(0..1 << 10);
        for n in 0..10_000 {
            let (row, old) = (n * 7 % (1 << 10), rows.hash_of(n * 7 % (1 << 10)));
            rows.recycle(row, n + (1 << 10));
            assert!(rows.finds(row));
            assert_eq!(
                rows.index
                    .find(old, |other| other == row, |row| rows.hash_of(row)),
                None
            );
        }
        assert!(rows.numbers().all(|row| rows.finds(row)));
    }

    #[test]
    fn rows_with_the_same_hash_are_found() {
        let mut rows = Rows::new(100);
        rows.add([5; 50]);
        rows.add(0..50);
        assert!(rows.numbers().all(|row| rows.finds(row)));
        (0..50)
            .step_by(3)
            .for_each(|row| rows.recycle(row, 1000 + row));
        assert!(rows.numbers().all(|row| rows.finds(row)));
    }

    #[test]
    fn nearly_all_rows_are_the_likely_ones() {
        let mut rows = Rows::new(1 << 16);
        for (number, least) in [(1 << 8, 0.95), (1 << 15, 0.94), (1 << 16, 0.94)] {
            rows.add(rows.numbers().end..number);
            // The buckets get their rows.
            assert!(rows.numbers().all(|row| rows.finds(row)));
            let likely = |row: &u32| {
                let link = rows.index.likely(rows.hash_of(*row));
                link.is_some_and(|link| link.row() == *row)
            };
            let likely = rows.numbers().filter(likely).count() as f64 / f64::from(number);
            assert!(likely > least && likely < 1.0, "{number} rows: {likely}");
        }
    }

    #[test]
    fn the_chain_of_the_last_link_has_the_rows_without_a_free_link() {
        let mut rows = Rows::new(100);
        rows.add([5; 20]);
        let bucket = rows.index.buckets.get(rows.index.number(hash(5))).unwrap();
        let from = |cell: &Cell| {
            let next = |link: &Link| rows.index.next(*link, hash(5));
            core::iter::successors(Some(cell.get()), next).count()
        };
        let lengths: Vec<usize> = bucket.0.iter().map(from).collect();
        assert_eq!(lengths, [1, 1, 1, 17]);
    }

    #[test]
    fn buckets_are_allocated_before_they_are_used() {
        let mut rows = Rows::new(1 << 14);
        for key in 0..1 << 14 {
            rows.add([key]);
            let last = rows.index.mask.load(Relaxed);
            assert!(rows.index.buckets.get(last).is_some(), "{key} rows, {last}");
            assert!((last + 1) * ROWS_PER_BUCKET > key, "{key} rows, {last}");
        }
    }

    #[test]
    fn rows_are_found_without_memory_for_more_buckets() {
        let mut rows = Rows::new(5000);
        // The index does not grow beyond its first page.
        let Ok(buckets) = Heap { most: 256 }.slots(1 << 13);
        rows.index.buckets = buckets;
        rows.add(0..5000);
        assert!(rows.numbers().all(|row| rows.finds(row)));
        assert_eq!(rows.lengths().len(), 256);
        assert_eq!(rows.lengths().iter().sum::<usize>(), 5000);
    }

    #[test]
    fn a_bucket_gets_its_rows_from_the_one_without_its_highest_bit() {
        let parents = [0, 1, 2, 3, 4, 6, 7, 1 << 31].map(parent);
        let some = [0, 0, 1, 0, 2, 3, 0].map(Some);
        assert_eq!((parents[0], &parents[1..]), (None, &some[..]));
        for bucket in 0..64 {
            assert!(belongs_to(bucket, bucket) && belongs_to(bucket | 64, bucket));
            assert!(parent(bucket).is_none_or(|parent| !belongs_to(parent, bucket)));
        }
    }
}
