// SPDX-License-Identifier: GPL-2.0

//! The text of the files.
//!
//! Lines end in a newline, cells are separated by one tab, and each pair of counters is *out*,
//! then *in*. TOTAL is the sum of the pairs after it. Rows are in ascending order of address;
//! those with only zeros are left out.

use super::counters::Totals;
use super::table::{Address, Memory, Table};
use core::fmt::{self, Display, Write};
use core::net::Ipv4Addr;

/// The first line of a traffic file, with each word over its pair.
pub const TRAFFIC_HEADER: &str = "IP\t\tTOTAL\t\tTCP\t\tUDP\t\tOTHER\n";

/// The label of the row of all addresses that have none of their own.
pub const OTHERS: &str = "*";

/// How an address looks in its row.
pub trait Label: Address {
    /// The label of this address.
    fn label(self) -> impl Display;
}

impl Label for u32 {
    fn label(self) -> impl Display {
        Ipv4Addr::from(self)
    }
}

/// Writes a row, or nothing if all its counters are zero.
pub fn write_row(out: &mut impl Write, label: impl Display, totals: &Totals) -> fmt::Result {
    if totals.is_zero() {
        return Ok(());
    }
    write!(out, "{label}")?;
    for (sent, received) in core::iter::once(totals.total()).chain(totals.pairs()) {
        write!(out, "\t{sent}\t{received}")?;
    }
    out.write_char('\n')
}

/// Where a CPU keeps the counters of an address. Entries sort by address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry<A> {
    address: A,
    cpu: u32,
    row: u32,
}

/// The rows that `table`, the one of `cpu`, has at this moment.
pub fn entries<A: Address, M: Memory>(cpu: u32, table: &Table<M>) -> impl Iterator<Item = Entry<A>> + '_ {
    (0..table.rows()).filter_map(move |row| Some(Entry { address: table.address(row)?, cpu, row }))
}

/// A run of entries for one address.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a, A>(&'a [Entry<A>]);

impl<'a, A: Address> Run<'a, A> {
    /// The run at the start of sorted entries, and the entries after it.
    pub fn split_first(entries: &'a [Entry<A>]) -> Option<(Self, &'a [Entry<A>])> {
        let address = entries.first()?.address;
        let end = entries.partition_point(|entry| entry.address <= address);
        let (run, rest) = entries.split_at(end);
        Some((Self(run), rest))
    }

    /// How many entries it spans, at least one.
    pub fn span(&self) -> usize {
        self.0.len()
    }

    /// The address that they are for.
    pub fn address(&self) -> Option<A> {
        Some(self.0.first()?.address)
    }

    /// The sum of their counters as they are now. `table` gives the table of a CPU.
    pub fn totals<'t, M: Memory + 't>(&self, table: impl Fn(u32) -> Option<&'t Table<M>>) -> Totals {
        let mut sum = Totals::default();
        for entry in self.0 {
            if let Some(table) = table(entry.cpu) {
                sum.merge(table.totals(entry.row));
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::super::counters::{Direction::*, Protocol::*};
    use super::super::table::tests::table;
    use super::*;
    use std::{string::String, vec::Vec};

    #[test]
    fn the_row_of_the_description() {
        let mut out = String::new();
        let table = table(1);
        table.add(0xc10b_b109, Tcp, In, 4418);
        table.add(0xc10b_b109, Udp, In, 76);
        table.add(0xc10b_b109, Other, In, 167_227);
        write_row(&mut out, 0xc10b_b109u32.label(), &table.totals(0)).unwrap();
        assert_eq!(out, "193.11.177.9\t0\t171721\t0\t4418\t0\t76\t0\t167227\n");
    }

    #[test]
    fn zeros_are_left_out() {
        let mut out = String::new();
        write_row(&mut out, OTHERS, &Totals::default()).unwrap();
        assert_eq!(out, "");
    }

    #[test]
    fn the_words_are_over_their_pairs() {
        let mut row = String::new();
        let table = table(1);
        table.add(1u32, Tcp, Out, 1);
        write_row(&mut row, 1u32.label(), &table.totals(0)).unwrap();
        let words: Vec<_> = TRAFFIC_HEADER.trim_end().split('\t').collect();
        let cells: Vec<_> = row.trim_end().split('\t').collect();
        assert_eq!(words, ["IP", "", "TOTAL", "", "TCP", "", "UDP", "", "OTHER"]);
        assert_eq!(cells, ["0.0.0.1", "1", "0", "1", "0", "0", "0", "0", "0"]);
    }

    #[test]
    fn cpus_are_merged_in_order_of_address() {
        let tables = [table(9), table(9)];
        for (cpu, address, bytes) in [(0, 30u32, 1), (0, 10, 2), (1, 20, 4), (1, 30, 8), (0, 9, 16)] {
            tables[cpu].add(address, Udp, Out, bytes);
        }
        let mut all: Vec<Entry<u32>> = (0..2).flat_map(|cpu| entries(cpu as u32, &tables[cpu])).collect();
        all.sort_unstable();
        let mut rest = &all[..];
        let mut rows = Vec::new();
        while let Some((run, after)) = Run::split_first(rest) {
            let totals = run.totals(|cpu| tables.get(cpu as usize));
            rows.push((run.address().unwrap(), run.span(), totals.total().0));
            rest = after;
        }
        assert_eq!(rows, [(9, 1, 16), (10, 1, 2), (20, 1, 4), (30, 2, 9)]);
    }
}
