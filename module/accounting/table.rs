// SPDX-License-Identifier: GPL-2.0

//! The rows of one CPU.
//!
//! Every CPU has its own rows and its own index to find them, so counting needs no lock and writes
//! no cache line that another CPU writes. A reader sums up the rows that the CPUs have for a key.

use super::{
    age::Periods,
    counters::{add_to, Counters, Direction, Totals},
    direct::Direct,
    hash::Seed,
    hashed::{Hashed, Slow},
    key::Key,
    network::Ends,
    row::{Collect, Find},
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
    /// The largest number of rows. With [`Lookup::Hashed`], at most
    /// [`MOST_ROWS`](super::index::MOST_ROWS).
    pub rows: u32,
    /// How keys find their rows.
    pub lookup: Lookup,
}

impl Size {
    /// The size of a table that looks up its rows by hash.
    pub const fn hashed(rows: u32) -> Self {
        Self {
            rows,
            lookup: Lookup::Hashed,
        }
    }
}

/// The rows of one CPU. Keys are of type `K`. A row has `PAIRS` pairs of counters.
pub struct Table<K, const PAIRS: usize, M: Memory> {
    rows: Rows<K, PAIRS, M>,
    /// The counters of all keys that could not be given a row.
    others: Counters<PAIRS>,
    /// How often something was added to `others`.
    overflows: AtomicU64,
}

enum Rows<K, const PAIRS: usize, M: Memory> {
    Hashed(Hashed<K, PAIRS, M>),
    Direct(Direct<K, PAIRS, M>, Backoff),
}

impl<K: Key, const PAIRS: usize, M: Memory> Table<K, PAIRS, M> {
    /// An empty table.
    ///
    /// # Errors
    ///
    /// Returns the error of `memory` if it cannot provide the arrays.
    pub fn new(seed: Seed, size: Size, periods: Periods, memory: &M) -> Result<Self, M::Error> {
        let rows = match size.lookup {
            Lookup::Hashed => Rows::Hashed(Hashed::new(seed, size.rows, periods, memory)?),
            Lookup::Direct { prefix } => Rows::Direct(
                Direct::new(prefix, size.rows, memory)?,
                Backoff::new(memory.backoff()),
            ),
        };
        Ok(Self {
            rows,
            others: Counters::default(),
            overflows: AtomicU64::new(0),
        })
    }

    /// Allocates what the first rows need, as far as there is memory. Direct rows need nothing:
    /// which page is the first depends on the first address.
    ///
    /// Must not be called while another context adds something.
    pub fn prepare(&self) {
        if let Rows::Hashed(rows) = &self.rows {
            rows.prepare();
        }
    }

    /// Adds `amount` to a counter in the row of `key`, at the time `now` in ticks. A missing row is
    /// made. If there is no room for it, the amount is counted in the row of the others.
    ///
    /// Must not be called by two contexts at the same time.
    pub fn add(&self, key: K, column: usize, direction: Direction, amount: u64, now: u64) {
        let counters = match &self.rows {
            Rows::Hashed(rows) => {
                let totals = Totals::one(column, direction, amount);
                let slow = || rows.find_or_insert(key, &totals, now);
                match rows.find(key).map_or_else(slow, Slow::Found) {
                    Slow::Found(counters) => Some(counters),
                    Slow::Made => return,
                    Slow::NoRoom => None,
                }
            }
            // A row whose page is allocated already does not depend on the back-off.
            Rows::Direct(rows, wait) => rows
                .find(key)
                .or_else(|| rows.take(key))
                .or_else(|| wait.attempt(|| rows.insert(key))),
        };
        let counters = counters.unwrap_or_else(|| self.overflow());
        counters.add(column, direction, amount);
    }

    /// Adds `amount` to the rows of those ends of a packet that are counted: outgoing for the
    /// source, incoming for the destination.
    ///
    /// Must not be called by two contexts at the same time.
    #[inline(always)]
    pub fn add_at(
        &self,
        ends: Ends,
        source: K,
        destination: K,
        column: usize,
        amount: u64,
        now: impl Fn() -> u64,
    ) {
        match &self.rows {
            Rows::Direct(rows, _) => {
                self.add_found(rows, ends, source, destination, column, amount, now);
            }
            Rows::Hashed(_) => self.add_hashed(ends, source, destination, column, amount, now),
        }
    }

    /// Not inlined, so that the path of direct rows need not save the registers used here.
    #[inline(never)]
    fn add_hashed(
        &self,
        ends: Ends,
        source: K,
        destination: K,
        column: usize,
        amount: u64,
        now: impl Fn() -> u64,
    ) {
        if let Rows::Hashed(rows) = &self.rows {
            self.add_found(rows, ends, source, destination, column, amount, now);
        }
    }

    /// On a mirror port the CPU cannot predict which end is counted, so the end is selected with
    /// conditional moves. Whether both ends are counted varies less, so that is a branch.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "all of them are in registers")]
    fn add_found(
        &self,
        rows: &impl Find<K, PAIRS>,
        ends: Ends,
        source: K,
        destination: K,
        column: usize,
        amount: u64,
        now: impl Fn() -> u64,
    ) {
        if ends.both() {
            if let Some([sender, receiver]) = rows.find_both([source, destination]) {
                sender.add(column, Direction::Out, amount);
                return receiver.add(column, Direction::In, amount);
            }
        } else {
            let (one, direction) = if ends.source() {
                (source, Direction::Out)
            } else {
                (destination, Direction::In)
            };
            if let Some(counters) = rows.find(one) {
                return counters.add(column, direction, amount);
            }
        }
        self.add_slow(ends, source, destination, column, amount, now());
    }

    /// Adds to the rows of both ends and makes those that are missing.
    #[cold]
    #[inline(never)]
    fn add_slow(
        &self,
        ends: Ends,
        source: K,
        destination: K,
        column: usize,
        amount: u64,
        now: u64,
    ) {
        if ends.source() {
            self.add(source, column, Direction::Out, amount, now);
        }
        if ends.destination() {
            self.add(destination, column, Direction::In, amount, now);
        }
    }

    /// The number of rows.
    pub fn rows(&self) -> u32 {
        match &self.rows {
            Rows::Hashed(rows) => rows.rows(),
            Rows::Direct(rows, _) => rows.rows(),
        }
    }

    /// How often a row was given to another key.
    pub fn recycled(&self) -> u64 {
        match &self.rows {
            Rows::Hashed(rows) => rows.recycled(),
            Rows::Direct(..) => 0,
        }
    }

    /// How often something was counted for keys that could not be given a row.
    pub fn overflows(&self) -> u64 {
        self.overflows.load(Relaxed)
    }

    /// The bytes of memory that the rows and their index take.
    pub fn memory(&self) -> usize {
        match &self.rows {
            Rows::Hashed(rows) => rows.memory(),
            Rows::Direct(rows, _) => rows.memory(),
        }
    }

    /// Adds all rows to `list`, and returns the counts of the keys that have no row, or none any
    /// more. What was counted before the call is in the result once. What is counted meanwhile is
    /// there once or not at all.
    ///
    /// Any context may call this at any time.
    ///
    /// # Errors
    ///
    /// Returns the error of `list`.
    pub fn read<C: Collect<K, PAIRS>>(&self, list: &mut C) -> Result<Totals<PAIRS>, C::Error> {
        let mut others = match &self.rows {
            Rows::Hashed(rows) => rows.read(list)?,
            Rows::Direct(rows, _) => {
                rows.read(list)?;
                Totals::default()
            }
        };
        others.merge(self.others.read());
        Ok(others)
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
    use crate::host::{Collected, Heap};
    use std::collections::BTreeMap;

    const COLUMN: usize = 0;
    const NOW: u64 = 1_000_000;
    /// The periods of a clock with 1000 ticks per second.
    pub fn periods() -> Periods {
        Periods::new(1000)
    }

    /// A table with room for `rows` addresses.
    pub fn table(rows: u32) -> Table<u32, 3, Heap> {
        sized(Size::hashed(rows), &Heap::ENDLESS)
    }

    fn sized(size: Size, memory: &Heap) -> Table<u32, 3, Heap> {
        let seed = Seed::new(0x0123_4567_89ab_cdef);
        let Ok(table) = Table::new(seed, size, periods(), memory);
        table
    }

    /// The size of a table for the 2^8 addresses from 10.0.0.0 on.
    const DIRECT: Size = Size {
        rows: 1 << 8,
        lookup: Lookup::Direct {
            prefix: [0x0a00_0000, 0],
        },
    };

    fn count(table: &Table<u32, 3, Heap>, address: u32, bytes: u64) {
        table.add(address, COLUMN, Direction::Out, bytes, NOW);
    }

    /// The bytes of each address, and those of the row `*`.
    fn contents(table: &Table<u32, 3, Heap>) -> (BTreeMap<u32, u64>, u64) {
        let mut rows = Collected::default();
        let Ok(others) = table.read(&mut rows);
        assert_eq!(rows.0.len(), table.rows() as usize);
        let rows = rows.0.iter().map(|row| (row.key, row.totals.sum()));
        (rows.collect(), others.sum())
    }

    #[test]
    fn an_address_has_one_row() {
        for table in [table(10), sized(DIRECT, &Heap::ENDLESS)] {
            assert_eq!(table.rows(), 0);
            for address in [0x0a00_00ff, 0x0a00_0000, 0x0a00_00ff] {
                count(&table, address, 7);
            }
            let rows = BTreeMap::from([(0x0a00_0000, 7), (0x0a00_00ff, 14)]);
            assert_eq!(contents(&table), (rows, 0));
            assert_eq!((table.overflows(), table.recycled()), (0, 0));
        }
    }

    #[test]
    fn the_back_off_does_not_delay_direct_rows_in_allocated_pages() {
        // There is memory for one page of rows.
        let table = sized(DIRECT, &Heap { most: 64 });
        count(&table, 0x0a00_0010, 1);
        count(&table, 0x0a00_0080, 2);
        count(&table, 0x0a00_0011, 4);
        let rows = BTreeMap::from([(0x0a00_0010, 1), (0x0a00_0011, 4)]);
        assert_eq!(contents(&table), (rows, 2));
        assert_eq!(table.overflows(), 1);
    }

    #[test]
    fn a_recycled_row_counts_in_the_others() {
        let table = table(64);
        for address in 0..1000u32 {
            table.add(
                address,
                COLUMN,
                Direction::Out,
                10,
                NOW + u64::from(address),
            );
        }
        let (rows, others) = contents(&table);
        assert_eq!((rows.len(), others), (64, 10 * (1000 - 64)));
        assert_eq!((table.recycled(), table.overflows()), (1000 - 64, 0));
    }

    #[test]
    fn a_new_address_counts_in_the_others_if_all_rows_are_in_use() {
        let table = table(64);
        for _ in 0..3 {
            (0..64).for_each(|address| count(&table, address, 10));
        }
        // All rows become established, none is idle for a period.
        (64..1064).for_each(|address| count(&table, address, 1));
        let (rows, others) = contents(&table);
        assert!(rows.into_iter().eq((0..64).map(|address| (address, 30))));
        assert_eq!((others, table.overflows()), (1000, 1000));
        // Later they are idle.
        for now in [NOW + 1, NOW + 2, NOW + 1000, NOW + 1001] {
            table.add(2000, COLUMN, Direction::Out, 1, now);
        }
        assert!(contents(&table).0.contains_key(&2000));
    }

    #[test]
    fn a_table_without_memory_counts_everything_in_the_others() {
        let table = sized(Size::hashed(64), &Heap { most: 0 });
        (0..5000).for_each(|address| count(&table, address, 1));
        assert_eq!(contents(&table), (BTreeMap::new(), 5000));
        assert_eq!(table.overflows(), 5000);
    }
}
