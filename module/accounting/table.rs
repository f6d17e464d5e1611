// SPDX-License-Identifier: GPL-2.0

//! The rows that one CPU keeps.
//!
//! Every CPU has its own rows and its own way to find them, so counting needs no lock and
//! writes no cache line that another CPU writes. Whoever reads the counts sums up the rows that
//! the CPUs have for a key.

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
    /// By a hash that nobody can predict.
    Hashed,
    /// By their lowest bits, of which there is every combination: there are as many rows, a power of two.
    Direct {
        /// The words of a key, without these bits. All keys have it in common.
        prefix: [u64; 2],
    },
}

/// How large a table may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Rows at most.
    pub rows: u32,
    /// Buckets of a hash that are there from the start, though without memory: at least one.
    pub buckets: u32,
    /// How keys find their rows.
    pub lookup: Lookup,
}

impl Size {
    /// The size of a table for any keys.
    pub const fn hashed(rows: u32, buckets: u32) -> Self {
        Self {
            rows,
            buckets,
            lookup: Lookup::Hashed,
        }
    }
}

/// The rows of one CPU. Keys are of type `K`, rows have `PAIRS` pairs of counters.
pub struct Table<K, const PAIRS: usize, M: Memory> {
    rows: Rows<K, PAIRS, M>,
    /// For keys that could not get a row.
    others: Counters<PAIRS>,
    /// How often something was counted there.
    overflows: AtomicU64,
    backoff: Backoff,
}

enum Rows<K, const PAIRS: usize, M: Memory> {
    Hashed(Hashed<K, PAIRS, M>),
    Direct(Direct<K, PAIRS, M>),
}

/// Has whichever it is do something.
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

    /// Adds to the row of `key`.
    ///
    /// One context at a time calls this. A key for which there is no memory is counted among the
    /// others.
    pub fn add(&self, key: K, column: usize, direction: Direction, amount: u64) {
        let counters = self
            .counters(Owner::One(key))
            .unwrap_or_else(|| self.overflow());
        counters.add(column, direction, amount);
    }

    /// Adds to the rows of those ends of a packet that are counted, of which there is one at least: the source
    /// has sent, the destination received it.
    #[inline(always)]
    pub fn add_at(&self, ends: Ends, source: K, destination: K, column: usize, amount: u64) {
        match &self.rows {
            Rows::Direct(rows) => self.add_found(rows, ends, source, destination, column, amount),
            Rows::Hashed(_) => self.add_hashed(ends, source, destination, column, amount),
        }
    }

    /// Not inlined: direct rows need not pay for the registers that this takes.
    #[inline(never)]
    fn add_hashed(&self, ends: Ends, source: K, destination: K, column: usize, amount: u64) {
        if let Rows::Hashed(rows) = &self.rows {
            self.add_found(rows, ends, source, destination, column, amount);
        }
    }

    /// On a mirror port nobody foresees which end is the one that is counted: so it is chosen, not jumped to. Whether
    /// both are counted changes less.
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
        // At once: a CPU goes on to what comes next while the row is still on its way.
        counters.add(column, direction, amount);
        if ends.both() {
            match rows.find(destination) {
                Some(counters) => counters.add(column, Direction::In, amount),
                None => self.add_slow(Ends::RECEIVER, source, destination, column, amount),
            }
        }
    }

    /// The same where a row may be missing.
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

    /// The counters of an owner, made if there are none. `None` if there is no room for a row.
    ///
    /// One context at a time calls this.
    pub fn counters(&self, owner: Owner<K>) -> Option<&Counters<PAIRS>> {
        match owner {
            Owner::One(key) => self.find(key).or_else(|| self.insert(key)),
            Owner::Others => Some(&self.others),
        }
    }

    /// What was counted for an owner, zero if it has no row.
    ///
    /// No row may come into being at the same time.
    pub fn totals_of(&self, owner: Owner<K>) -> Totals<PAIRS> {
        match owner {
            Owner::One(key) => self.find(key).map_or_else(Totals::default, Counters::read),
            Owner::Others => self.others.read(),
        }
    }

    /// How many rows there are.
    pub fn rows(&self) -> u32 {
        with_rows!(self, rows => rows.rows())
    }

    /// The numbers of the rows are below that. Not every number need have a row.
    pub fn end(&self) -> u32 {
        with_rows!(self, rows => rows.end())
    }

    /// The key of row `number`, if there is such a row.
    pub fn key(&self, number: u32) -> Option<K> {
        with_rows!(self, rows => rows.key(number))
    }

    /// The counters in row `number`, zero if there is no such row.
    pub fn totals(&self, number: u32) -> Totals<PAIRS> {
        with_rows!(self, rows => rows.counters(number)).map_or_else(Totals::default, Counters::read)
    }

    /// What was counted for keys without a row.
    pub fn others(&self) -> Totals<PAIRS> {
        self.others.read()
    }

    /// How often something was counted for a key without a row.
    pub fn overflows(&self) -> u64 {
        self.overflows.load(Relaxed)
    }

    /// Bytes of memory that the rows take, and what finds them.
    pub fn memory(&self) -> usize {
        with_rows!(self, rows => rows.memory())
    }

    fn find(&self, key: K) -> Option<&Counters<PAIRS>> {
        with_rows!(self, rows => rows.find(key))
    }

    /// Makes a row for a key that has none, or says that there is no room.
    fn insert(&self, key: K) -> Option<&Counters<PAIRS>> {
        let wait = &self.backoff;
        match &self.rows {
            Rows::Hashed(rows) => wait.attempt(|| rows.insert(key)),
            // One that has memory waits for none.
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

    /// A table for the 2^8 addresses from 10.0.0.0 on.
    fn direct() -> Table<u32, 3, Heap> {
        sized(Size {
            rows: 1 << 8,
            buckets: 1 << 8,
            lookup: Lookup::Direct {
                prefix: [0x0a00_0000, 0],
            },
        })
    }

    fn count(table: &Table<u32, 3, Heap>, address: u32, bytes: u64) {
        table.add(address, COLUMN, Direction::Out, bytes);
    }

    fn contents(table: &Table<u32, 3, Heap>) -> BTreeMap<u32, u64> {
        let row = |number| Some((table.key(number)?, table.totals(number).total().0));
        (0..table.end()).filter_map(row).collect()
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
    fn each_address_of_a_small_network_has_a_place() {
        let table = direct();
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
    fn a_row_with_memory_waits_for_none() {
        // One page of rows.
        let memory = Heap { most: 64 };
        let size = Size {
            rows: 1 << 8,
            buckets: 1 << 8,
            lookup: Lookup::Direct {
                prefix: [0x0a00_0000, 0],
            },
        };
        let Ok(table) = Table::<u32, 3, _>::new(Seed::new(1), size, &memory);
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
    fn many_addresses_in_any_order() {
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
        assert!(!table.backoff.is_active());
        count(&table, 4, 1);
        assert!(table.backoff.is_active());
        let wait = Heap::ENDLESS.backoff();
        (0..wait).for_each(|_| count(&table, 4, 1));
        assert!(!table.backoff.is_active());
        count(&table, 4, 1);
        assert!(table.backoff.is_active());
        assert_eq!(table.others().total(), (u64::from(wait) + 2, 0));
        // Known addresses don't wait.
        count(&table, 3, 1);
        assert_eq!(contents(&table)[&3], 2);
    }
}
