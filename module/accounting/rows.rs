// SPDX-License-Identifier: GPL-2.0

//! The rows of a file, summed up over all CPUs.
//!
//! A reader has a sorted list of entries: one for each row that a CPU had when the reader started.
//! The entries with the same key are one row of the file. Their counters are summed up when that
//! row is read.

use super::{
    counters::Totals,
    key::{Key, Owner},
    slots::Memory,
    table::Table,
};

/// The place of the counters that a CPU has for a key. Entries sort by key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry<K> {
    key: K,
    cpu: u32,
    row: u32,
}

/// The entries for the current rows of `table`, which is the table of `cpu`.
pub fn entries<K: Key, const PAIRS: usize, M: Memory>(
    cpu: u32,
    table: &Table<K, PAIRS, M>,
) -> impl Iterator<Item = Entry<K>> + '_ {
    (0..table.end()).filter_map(move |row| {
        Some(Entry {
            key: table.key(row)?,
            cpu,
            row,
        })
    })
}

/// The entries of one row of the file: at least one, all with the same key.
#[derive(Clone, Copy, Debug)]
pub struct RowEntries<'a, K>(&'a [Entry<K>]);

impl<'a, K: Key> RowEntries<'a, K> {
    /// The row at the start of sorted entries. `None` if there are no entries.
    pub fn first(entries: &'a [Entry<K>]) -> Option<Self> {
        let key = entries.first()?.key;
        let end = entries
            .iter()
            .position(|entry| entry.key != key)
            .unwrap_or(entries.len());
        Some(Self(&entries[..end]))
    }

    /// The number of entries, at least one.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The owner of the row.
    pub fn owner(&self) -> Owner<K> {
        self.0
            .first()
            .map_or(Owner::Others, |entry| Owner::One(entry.key))
    }

    /// The current sum of the counters of all entries. `table` must return the table of a CPU.
    pub fn totals<'t, const PAIRS: usize, M: Memory + 't>(
        &self,
        table: impl Fn(u32) -> Option<&'t Table<K, PAIRS, M>>,
    ) -> Totals<PAIRS>
    where
        K: 't,
    {
        let mut sum = Totals::default();
        for entry in self.0 {
            if let Some(table) = table(entry.cpu) {
                sum.merge(table.totals(entry.row));
            }
        }
        sum
    }
}

/// What is at a position of a file. The header is at position 0. Each entry takes one position
/// after it. The last position is that of the row `*`.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a, K> {
    /// The header.
    Header,
    /// The row of these entries. `None` stands for the row `*`.
    Row(Option<RowEntries<'a, K>>),
    /// The end of the file.
    End,
}

impl<'a, K: Key> Place<'a, K> {
    /// What is at `position`.
    pub fn at(position: usize, entries: &'a [Entry<K>]) -> Self {
        match position.checked_sub(1).map(|first| entries.get(first..)) {
            None => Self::Header,
            Some(Some(rest)) => Self::Row(RowEntries::first(rest)),
            Some(None) => Self::End,
        }
    }
}

/// The owner of a row, and the number of positions that the row takes.
pub fn owner_and_count<K: Key>(row: Option<RowEntries<'_, K>>) -> (Owner<K>, usize) {
    row.map_or((Owner::Others, 1), |row| (row.owner(), row.count()))
}

/// Returns the part of `totals` that was not delivered yet, and adds it to `delivered`. `None` if
/// there is no memory for the row in `delivered`.
///
/// Must not be called by two contexts at the same time for the same `delivered`.
pub fn take<K: Key, const PAIRS: usize, M: Memory>(
    delivered: &Table<K, PAIRS, M>,
    owner: Owner<K>,
    totals: Totals<PAIRS>,
) -> Option<Totals<PAIRS>> {
    let left = totals.without(delivered.totals_of(owner));
    if !left.is_zero() {
        delivered.counters(owner)?.add_all(&left);
    }
    Some(left)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::super::{counters::Direction::Out, table::tests::table};
    use super::*;
    use std::{
        string::{String, ToString},
        vec::Vec,
    };

    const UDP: usize = 1;

    #[test]
    fn rows_of_all_cpus_are_merged_in_ascending_order() {
        let tables = [table(9), table(9)];
        for (cpu, address, bytes) in [
            (0, 30u32, 1),
            (0, 10, 2),
            (1, 20, 4),
            (1, 30, 8),
            (0, 9, 16),
        ] {
            tables[cpu].add(address, UDP, Out, bytes);
        }
        let mut all: Vec<Entry<u32>> = (0..2)
            .flat_map(|cpu| entries(cpu as u32, &tables[cpu]))
            .collect();
        all.sort_unstable();
        let mut rest = &all[..];
        let mut rows = Vec::new();
        while let Some(row) = RowEntries::first(rest) {
            let totals = row.totals(|cpu| tables.get(cpu as usize));
            rows.push((row.owner().to_string(), row.count(), totals.total().0));
            rest = &rest[row.count()..];
        }
        let row = |address: &str, count, bytes| (String::from(address), count, bytes);
        assert_eq!(
            rows,
            [
                row("0.0.0.9", 1, 16),
                row("0.0.0.10", 1, 2),
                row("0.0.0.20", 1, 4),
                row("0.0.0.30", 2, 9)
            ]
        );
    }

    #[test]
    fn positions_are_the_header_the_entries_and_the_others() {
        let table = table(9);
        table.add(1u32, UDP, Out, 1);
        let entries: Vec<_> = entries(0, &table).collect();
        assert!(matches!(Place::at(0, &entries), Place::Header));
        assert!(matches!(Place::at(1, &entries), Place::Row(Some(_))));
        assert!(matches!(Place::at(2, &entries), Place::Row(None)));
        assert!(matches!(Place::at(3, &entries), Place::End));
    }

    /// A reader with an old list may sum up fewer entries than were delivered already.
    #[test]
    fn a_reader_with_an_old_list_gets_no_negative_counts() {
        let (delivered, cpus) = (table(9), [table(9), table(9)]);
        let all =
            |row: Option<RowEntries<'_, u32>>| row.unwrap().totals(|cpu| cpus.get(cpu as usize));
        let list = || {
            let mut all: Vec<_> = (0..2)
                .flat_map(|cpu| entries(cpu as u32, &cpus[cpu]))
                .collect();
            all.sort_unstable();
            all
        };
        cpus[0].add(7, UDP, Out, 10);
        let old = list();
        cpus[1].add(7, UDP, Out, 5);
        let new = list();
        let read = |entries: &[Entry<u32>]| {
            take(&delivered, Owner::One(7), all(RowEntries::first(entries)))
                .unwrap()
                .total()
                .0
        };
        assert_eq!(read(&new), 15);
        assert_eq!(read(&old), 0);
        cpus[0].add(7, UDP, Out, 100);
        assert_eq!(read(&old), 95);
        assert_eq!(read(&new), 5);
        assert_eq!(read(&new), 0);
    }
}
