// SPDX-License-Identifier: GPL-2.0

//! The rows of one CPU.
//!
//! Every CPU has its own rows and its own index to find them, so counting needs no lock and writes
//! no cache line that another CPU writes. A reader sums up the rows that the CPUs have for a key.

use super::{
    counters::{add_to, Counters, Direction, Totals},
    direct::Direct,
    hash::Seed,
    hashed::Hashed,
    key::{Key, Owner},
    network::Ends,
    row::Find,
    slots::{Backoff, Memory},
};
use crate::atomic::{AtomicU64, Ordering::Relaxed};

/// How keys find their rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// By a hash with a secret seed.
    Hashed,
    /// By their lowest bits. There is a row for every value of these bits, so the number of rows
    /// is a power of two.
    Direct {
        /// The words of the first key. The other keys differ from it in the lowest bits only.
        prefix: [u64; 2],
    },
}

/// The limits of a table, and how it looks up its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The largest number of rows.
    pub rows: u32,
    /// The initial number of hash buckets. A bucket takes no memory before it has a row. At least
    /// one bucket is used, even for 0. [`Lookup::Direct`] uses none.
    pub buckets: u32,
    /// How keys find their rows.
    pub lookup: Lookup,
}

impl Size {
    /// The size of a table that looks up its rows by hash.
    pub const fn hashed(rows: u32, buckets: u32) -> Self {
        Self {
            rows,
            buckets,
            lookup: Lookup::Hashed,
        }
    }
}

/// The rows of one CPU. Keys are of type `K`. A row has `PAIRS` pairs of counters.
pub struct Table<K, const PAIRS: usize, M: Memory> {
    rows: Rows<K, PAIRS, M>,
    /// The counters of all keys without a row.
    others: Counters<PAIRS>,
    /// How often something was added to `others`.
    overflows: AtomicU64,
    backoff: Backoff,
}

enum Rows<K, const PAIRS: usize, M: Memory> {
    Hashed(Hashed<K, PAIRS, M>),
    Direct(Direct<K, PAIRS, M>),
}

/// Evaluates an expression with the rows of a table, whether they are hashed or direct.
macro_rules! with_rows {
    ($table:expr, $rows:ident => $do:expr) => {
        match &$table.rows {
            Rows::Hashed($rows) => $do,
            Rows::Direct($rows) => $do,
        }
    };
}

impl<K: Key, const PAIRS: usize, M: Memory> Table<K, PAIRS, M> {
    /// An empty table.
    ///
    /// # Errors
    ///
    /// Returns the error of `memory` if it cannot provide the arrays.
    pub fn new(seed: Seed, size: Size, memory: &M) -> Result<Self, M::Error> {
        let rows = match size.lookup {
            Lookup::Hashed => Rows::Hashed(Hashed::new(seed, size.rows, size.buckets, memory)?),
            Lookup::Direct { prefix } => Rows::Direct(Direct::new(prefix, size.rows, memory)?),
        };
        let backoff = Backoff::new(memory.backoff());
        Ok(Self {
            rows,
            others: Counters::default(),
            overflows: AtomicU64::new(0),
            backoff,
        })
    }

    /// Adds `amount` to a counter in the row of `key`. A missing row is made. If there is no room
    /// for it, the amount is counted in the row of the others.
    ///
    /// Must not be called by two contexts at the same time.
    pub fn add(&self, key: K, column: usize, direction: Direction, amount: u64) {
        let counters = self
            .counters(Owner::One(key))
            .unwrap_or_else(|| self.overflow());
        counters.add(column, direction, amount);
    }

    /// Adds `amount` to the rows of those ends of a packet that are counted: outgoing for the
    /// source, incoming for the destination.
    ///
    /// Must not be called by two contexts at the same time.
    #[inline(always)]
    pub fn add_at(&self, ends: Ends, source: K, destination: K, column: usize, amount: u64) {
        match &self.rows {
            Rows::Direct(rows) => self.add_found(rows, ends, source, destination, column, amount),
            Rows::Hashed(_) => self.add_hashed(ends, source, destination, column, amount),
        }
    }

    /// Not inlined, so that the path of direct rows need not save the registers used here.
    #[inline(never)]
    fn add_hashed(&self, ends: Ends, source: K, destination: K, column: usize, amount: u64) {
        if let Rows::Hashed(rows) = &self.rows {
            self.add_found(rows, ends, source, destination, column, amount);
        }
    }

    /// On a mirror port the CPU cannot predict which end is counted, so the end is selected with
    /// conditional moves. Whether both ends are counted varies less, so that is a branch.
    #[inline(always)]
    fn add_found(
        &self,
        rows: &impl Find<K, PAIRS>,
        ends: Ends,
        source: K,
        destination: K,
        column: usize,
        amount: u64,
    ) {
        let (one, direction) = if ends.source() {
            (source, Direction::Out)
        } else {
            (destination, Direction::In)
        };
        let Some(counters) = rows.find(one) else {
            return self.add_slow(ends, source, destination, column, amount);
        };
        // Add now: the CPU executes the code below while the row is still being fetched.
        counters.add(column, direction, amount);
        if ends.both() {
            match rows.find(destination) {
                Some(counters) => counters.add(column, Direction::In, amount),
                None => self.add_slow(Ends::DESTINATION_ONLY, source, destination, column, amount),
            }
        }
    }

    /// Adds to the rows of both ends and makes those that are missing.
    #[cold]
    #[inline(never)]
    fn add_slow(&self, ends: Ends, source: K, destination: K, column: usize, amount: u64) {
        if ends.source() {
            self.add(source, column, Direction::Out, amount);
        }
        if ends.destination() {
            self.add(destination, column, Direction::In, amount);
        }
    }

    /// The counters of `owner`. A missing row is made. `None` if there is no room for it.
    ///
    /// Must not be called by two contexts at the same time.
    pub fn counters(&self, owner: Owner<K>) -> Option<&Counters<PAIRS>> {
        match owner {
            Owner::One(key) => self.find(key).or_else(|| self.insert(key)),
            Owner::Others => Some(&self.others),
        }
    }

    /// The counts of `owner`: zero if it has no row.
    ///
    /// Must not be called while another context makes a row.
    pub fn totals_of(&self, owner: Owner<K>) -> Totals<PAIRS> {
        match owner {
            Owner::One(key) => self.find(key).map_or_else(Totals::default, Counters::read),
            Owner::Others => self.others.read(),
        }
    }

    /// The number of rows.
    pub fn rows(&self) -> u32 {
        with_rows!(self, rows => rows.rows())
    }

    /// The upper bound of the row numbers, exclusive. Numbers below it may have no row.
    pub fn end(&self) -> u32 {
        with_rows!(self, rows => rows.end())
    }

    /// The key of row `number`. `None` if there is no such row.
    pub fn key(&self, number: u32) -> Option<K> {
        with_rows!(self, rows => rows.key(number))
    }

    /// The counts in row `number`: zero if there is no such row.
    pub fn totals(&self, number: u32) -> Totals<PAIRS> {
        with_rows!(self, rows => rows.counters(number)).map_or_else(Totals::default, Counters::read)
    }

    /// The counts of all keys without a row.
    pub fn others(&self) -> Totals<PAIRS> {
        self.others.read()
    }

    /// How often something was counted for keys without a row.
    pub fn overflows(&self) -> u64 {
        self.overflows.load(Relaxed)
    }

    /// The bytes of memory that the rows and their index take.
    pub fn memory(&self) -> usize {
        with_rows!(self, rows => rows.memory())
    }

    fn find(&self, key: K) -> Option<&Counters<PAIRS>> {
        with_rows!(self, rows => rows.find(key))
    }

    /// Makes a row for a key that has none. `None` if there is no room.
    fn insert(&self, key: K) -> Option<&Counters<PAIRS>> {
        let wait = &self.backoff;
        match &self.rows {
            Rows::Hashed(rows) => wait.attempt(|| rows.insert(key)),
            // A row whose page is allocated already does not depend on the back-off.
            Rows::Direct(rows) => rows.take(key).or_else(|| wait.attempt(|| rows.insert(key))),
        }
    }

    fn overflow(&self) -> &Counters<PAIRS> {
        add_to(&self.overflows, 1);
        &self.others
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
        sized(Size::hashed(rows, 1))
    }

    fn sized(size: Size) -> Table<u32, 3, Heap> {
        let Ok(table) = Table::new(Seed::new(0x0123_4567_89ab_cdef), size, &Heap::ENDLESS);
        table
    }

    /// The size of a table for the 2^8 addresses from 10.0.0.0 on.
    const DIRECT: Size = Size {
        rows: 1 << 8,
        buckets: 1 << 8,
        lookup: Lookup::Direct {
            prefix: [0x0a00_0000, 0],
        },
    };

    fn count(table: &Table<u32, 3, Heap>, address: u32, bytes: u64) {
        table.add(address, COLUMN, Direction::Out, bytes);
    }

    fn contents(table: &Table<u32, 3, Heap>) -> BTreeMap<u32, u64> {
        let row = |number| Some((table.key(number)?, table.totals(number).total().0));
        (0..table.end()).filter_map(row).collect()
    }

    #[test]
    fn an_address_has_one_row() {
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
    fn direct_rows_are_found_by_the_lowest_bits() {
        let table = sized(DIRECT);
        assert_eq!((table.rows(), table.memory()), (0, 0));
        for address in [0x0a00_00ff, 0x0a00_0000, 0x0a00_00ff] {
            count(&table, address, 7);
        }
        assert_eq!(
            contents(&table),
            BTreeMap::from([(0x0a00_0000, 7), (0x0a00_00ff, 14)])
        );
        assert_eq!(table.rows(), 2);
        assert_eq!(table.totals_of(Owner::One(0x0a00_00ff)).total(), (14, 0));
        assert!(table.totals_of(Owner::One(0x0a00_0001)).is_zero());
    }

    #[test]
    fn the_back_off_does_not_delay_direct_rows_in_allocated_pages() {
        // There is memory for one page of rows.
        let memory = Heap { most: 64 };
        let Ok(table) = Table::<u32, 3, _>::new(Seed::new(1), DIRECT, &memory);
        count(&table, 0x0a00_0010, 1);
        count(&table, 0x0a00_0080, 2);
        assert!(table.backoff.is_active());
        count(&table, 0x0a00_0011, 4);
        assert_eq!(
            contents(&table),
            BTreeMap::from([(0x0a00_0010, 1), (0x0a00_0011, 4)])
        );
        assert_eq!(table.others().total(), (2, 0));
    }

    #[test]
    fn hashed_rows_hold_many_addresses_in_any_order() {
        for buckets in [1, 2, 3, 256, 1000, 1 << 15] {
            let table = sized(Size::hashed(20_000, buckets));
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
    fn a_full_table_counts_new_addresses_in_the_others() {
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
    fn a_table_retries_an_allocation_after_the_back_off() {
        let table = table(4);
        (0..4).for_each(|address| count(&table, address, 1));
        assert!(!table.backoff.is_active());
        count(&table, 4, 1);
        assert!(table.backoff.is_active());
        let wait = Heap::ENDLESS.backoff();
        (0..wait).for_each(|_| count(&table, 4, 1));
        assert!(!table.backoff.is_active());
        count(&table, 4, 1);
        assert!(table.backoff.is_active());
        assert_eq!(table.others().total(), (u64::from(wait) + 2, 0));
        // Addresses that have a row are counted all the time.
        count(&table, 3, 1);
        assert_eq!(contents(&table)[&3], 2);
    }
}
