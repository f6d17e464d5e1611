// SPDX-License-Identifier: GPL-2.0

//! Which rows a file has, and what a reader gets of them.
//!
//! A reader has a list of entries, sorted by key, of the rows that there were when it began. Entries
//! with one key make a row of the file; what they add up to is looked up when the row is read.

use super::{
    counters::Totals,
    key::{Key, Owner},
    slots::Memory,
    table::Table,
};

/// Where a CPU keeps the counters of a key. Entries sort by key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry<K> {
    key: K,
    cpu: u32,
    row: u32,
}

/// The rows that `table`, the one of `cpu`, has at this moment.
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

/// A run of entries for one key.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a, K>(&'a [Entry<K>]);

impl<'a, K: Key> Run<'a, K> {
    /// The run at the start of sorted entries.
    pub fn first(entries: &'a [Entry<K>]) -> Option<Self> {
        let key = entries.first()?.key;
        let end = entries
            .iter()
            .position(|entry| entry.key != key)
            .unwrap_or(entries.len());
        Some(Self(&entries[..end]))
    }

    /// How many entries it spans, at least one.
    pub fn span(&self) -> usize {
        self.0.len()
    }

    /// Whose they are.
    pub fn owner(&self) -> Owner<K> {
        self.0
            .first()
            .map_or(Owner::Others, |entry| Owner::One(entry.key))
    }

    /// The sum of their counters as they are now. `table` gives the table of a CPU.
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

/// What is at a position of a file: the header is at 0, then come the entries, and last the others,
/// who have no row of their own.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a, K> {
    /// The first line.
    Header,
    /// The row of those entries; none for the others.
    Row(Option<Run<'a, K>>),
    /// Nothing any more.
    End,
}

impl<'a, K: Key> Place<'a, K> {
    /// What is at `position`.
    pub fn at(position: usize, entries: &'a [Entry<K>]) -> Self {
        match position.checked_sub(1).map(|first| entries.get(first..)) {
            None => Self::Header,
            Some(Some(rest)) => Self::Row(Run::first(rest)),
            Some(None) => Self::End,
        }
    }
}

/// Whose row it is, and how many positions it takes.
pub fn owner_and_span<K: Key>(run: Option<Run<'_, K>>) -> (Owner<K>, usize) {
    run.map_or((Owner::Others, 1), |run| (run.owner(), run.span()))
}

/// Gives a reader what is left of `totals` after what readers have been `given` already, and notes
/// it there. `None` if there is no memory for that.
///
/// One context at a time calls this for one table.
pub fn take<K: Key, const PAIRS: usize, M: Memory>(
    given: &Table<K, PAIRS, M>,
    owner: Owner<K>,
    totals: Totals<PAIRS>,
) -> Option<Totals<PAIRS>> {
    let left = totals.without(given.totals_of(owner));
    if !left.is_zero() {
        given.counters(owner)?.add_all(&left);
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
    fn cpus_are_merged_in_ascending_order() {
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
        while let Some(run) = Run::first(rest) {
            let totals = run.totals(|cpu| tables.get(cpu as usize));
            rows.push((run.owner().to_string(), run.span(), totals.total().0));
            rest = &rest[run.span()..];
        }
        let row = |address: &str, span, bytes| (String::from(address), span, bytes);
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
    fn positions() {
        let table = table(9);
        table.add(1u32, UDP, Out, 1);
        let entries: Vec<_> = entries(0, &table).collect();
        assert!(matches!(Place::at(0, &entries), Place::Header));
        assert!(matches!(Place::at(1, &entries), Place::Row(Some(_))));
        assert!(matches!(Place::at(2, &entries), Place::Row(None)));
        assert!(matches!(Place::at(3, &entries), Place::End));
    }

    /// A reader with an old list knows of fewer rows than those that have been given out.
    #[test]
    fn nobody_gets_less_than_nothing() {
        let (given, cpus) = (table(9), [table(9), table(9)]);
        let all = |run: Option<Run<'_, u32>>| run.unwrap().totals(|cpu| cpus.get(cpu as usize));
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
            take(&given, Owner::One(7), all(Run::first(entries)))
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
