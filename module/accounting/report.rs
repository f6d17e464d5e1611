// SPDX-License-Identifier: GPL-2.0

//! The text of a table's files.
//!
//! A line ends in a newline and its columns are separated by one tab. A pair of columns is
//! *outgoing*, then *incoming*. TOTAL is the sum of the pairs after it. Rows are in ascending order
//! of their keys. Rows in which all counts are zero are left out.

use super::{
    counters::Totals,
    key::{Key, Owner},
};
use core::fmt::{self, Write};

/// The first line of a file of bytes per address. Each word is above the first column of its pair.
pub const TRAFFIC_HEADER: &str = "IP\t\tTOTAL\t\tTCP\t\tUDP\t\tOTHER\n";

/// The first line of a file of connections per address.
pub const IPCONN_HEADER: &str = "IP\t\tTOTAL\t\tTCP\t\tUDP\t\tICMP\t\tOTHER\n";

/// The first line of a file of connections per port.
pub const PORTCONN_HEADER: &str = "PORT\t\tTOTAL\t\tTCP\t\tUDP\t\tICMP\t\tOTHER\n";

/// The maximum length of a line in bytes. An IPv6 address and ten 64-bit numbers take 250 bytes.
pub const LONGEST_LINE: usize = 256;

/// Writes a row. Writes nothing if all its counts are zero.
///
/// # Errors
///
/// Returns the error of `out`.
pub fn write_row<K: Key, const PAIRS: usize>(
    out: &mut impl Write,
    owner: Owner<K>,
    totals: &Totals<PAIRS>,
) -> fmt::Result {
    if totals.is_zero() {
        return Ok(());
    }
    write!(out, "{owner}")?;
    for (sent, received) in core::iter::once(totals.total()).chain(totals.pairs()) {
        write!(out, "\t{sent}\t{received}")?;
    }
    out.write_char('\n')
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::super::counters::{
        Counters,
        Direction::{In, Out},
    };
    use super::*;
    use std::{string::String, vec::Vec};

    const TCP: usize = 0;
    const UDP: usize = 1;
    const OTHER: usize = 2;

    #[test]
    fn a_row_has_the_label_the_total_and_the_pairs() {
        let mut out = String::new();
        let counters = Counters::<3>::default();
        counters.add(TCP, In, 4418);
        counters.add(UDP, In, 76);
        counters.add(OTHER, In, 167_227);
        write_row(&mut out, Owner::One(0xc10b_b109u32), &counters.read()).unwrap();
        assert_eq!(out, "193.11.177.9\t0\t171721\t0\t4418\t0\t76\t0\t167227\n");
    }

    #[test]
    fn a_row_of_zeros_is_left_out() {
        let mut out = String::new();
        write_row(&mut out, Owner::<u32>::Others, &Totals::<4>::default()).unwrap();
        assert_eq!(out, "");
    }

    #[test]
    fn the_words_of_the_header_are_above_their_pairs() {
        let words = |header: &str| {
            header
                .trim_end()
                .split('\t')
                .map(String::from)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            words(TRAFFIC_HEADER),
            ["IP", "", "TOTAL", "", "TCP", "", "UDP", "", "OTHER"]
        );
        let connections = ["", "TOTAL", "", "TCP", "", "UDP", "", "ICMP", "", "OTHER"];
        assert_eq!(words(IPCONN_HEADER)[0], "IP");
        assert_eq!(words(PORTCONN_HEADER)[0], "PORT");
        assert_eq!(words(IPCONN_HEADER)[1..], connections);
        assert_eq!(words(PORTCONN_HEADER)[1..], connections);

        let mut row = String::new();
        let counters = Counters::<4>::default();
        counters.add(0, Out, 1);
        write_row(&mut row, Owner::One(1u32), &counters.read()).unwrap();
        assert_eq!(
            words(&row),
            ["0.0.0.1", "1", "0", "1", "0", "0", "0", "0", "0", "0", "0"]
        );
    }

    #[test]
    fn the_longest_line_fits() {
        let counters = Counters::<4>::default();
        // The sum wraps around to a number of 20 digits too.
        for column in 0..4 {
            counters.add(column, Out, u64::MAX - 4);
            counters.add(column, In, u64::MAX - 4);
        }
        let mut row = String::new();
        write_row(&mut row, Owner::One(u128::MAX), &counters.read()).unwrap();
        assert_eq!(row.len(), 39 + 10 * 21 + 1);
        assert!(row.len() <= LONGEST_LINE && TRAFFIC_HEADER.len() <= LONGEST_LINE);
    }
}
