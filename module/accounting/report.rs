// SPDX-License-Identifier: GPL-2.0

//! The text of a table's files.
//!
//! A line ends in a newline and its columns are separated by one tab. A pair of columns is
//! *outgoing*, then *incoming*. TOTAL is the sum of the pairs after it. Rows are in ascending order
//! of their keys. Rows in which all counts are zero are left out. With `--prefix`, the first column
//! has networks in CIDR notation.

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

/// The maximum length of a line in bytes. An IPv6 network and ten 64-bit numbers take 254 bytes.
pub const LONGEST_LINE: usize = 256;

/// The form of a file.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// The first line.
    pub header: &'static str,
    /// The length of the networks that have a row each. `None` if rows are for single addresses or
    /// ports.
    pub prefix: Option<u32>,
}

impl Form {
    /// A file with rows for single addresses or ports.
    pub const fn new(header: &'static str) -> Self {
        Self {
            header,
            prefix: None,
        }
    }

    /// Writes a row. Writes nothing if all its counts are zero.
    ///
    /// # Errors
    ///
    /// Returns the error of `out`.
    pub fn write_row<K: Key, const PAIRS: usize>(
        &self,
        out: &mut impl Write,
        owner: Owner<K>,
        totals: &Totals<PAIRS>,
    ) -> fmt::Result {
        if totals.is_zero() {
            return Ok(());
        }
        write!(out, "{owner}")?;
        if let (Owner::One(_), Some(length)) = (owner, self.prefix) {
            write!(out, "/{length}")?;
        }
        for (sent, received) in core::iter::once(totals.total()).chain(totals.pairs()) {
            write!(out, "\t{sent}\t{received}")?;
        }
        out.write_char('\n')
    }
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

    const ADDRESSES: Form = Form::new(TRAFFIC_HEADER);

    #[test]
    fn a_row_has_the_label_the_total_and_the_pairs() {
        let mut out = String::new();
        let counters = Counters::<3>::default();
        counters.add(TCP, In, 4418);
        counters.add(UDP, In, 76);
        counters.add(OTHER, In, 167_227);
        ADDRESSES
            .write_row(&mut out, Owner::One(0xc10b_b109u32), &counters.read())
            .unwrap();
        assert_eq!(out, "193.11.177.9\t0\t171721\t0\t4418\t0\t76\t0\t167227\n");
    }

    #[test]
    fn the_row_of_a_network_has_its_length() {
        let counters = Counters::<3>::default();
        counters.add(UDP, Out, 5);
        let row = |prefix, owner: Owner<u128>| {
            let (mut out, form) = (
                String::new(),
                Form {
                    prefix,
                    ..ADDRESSES
                },
            );
            form.write_row(&mut out, owner, &counters.read()).unwrap();
            out
        };
        let network = Owner::One(0x2001_0db8 << 96);
        assert_eq!(row(None, network), "2001:db8::\t5\t0\t0\t0\t5\t0\t0\t0\n");
        assert_eq!(
            row(Some(64), network),
            "2001:db8::/64\t5\t0\t0\t0\t5\t0\t0\t0\n"
        );
        assert_eq!(
            row(Some(0), Owner::One(0)),
            "::/0\t5\t0\t0\t0\t5\t0\t0\t0\n"
        );
        assert_eq!(row(Some(64), Owner::Others), "*\t5\t0\t0\t0\t5\t0\t0\t0\n");
    }

    #[test]
    fn a_row_of_zeros_is_left_out() {
        let mut out = String::new();
        ADDRESSES
            .write_row(&mut out, Owner::<u32>::Others, &Totals::<4>::default())
            .unwrap();
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
        ADDRESSES
            .write_row(&mut row, Owner::One(1u32), &counters.read())
            .unwrap();
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
        let networks = Form {
            prefix: Some(127),
            ..ADDRESSES
        };
        networks
            .write_row(&mut row, Owner::One(u128::MAX - 1), &counters.read())
            .unwrap();
        assert_eq!(row.len(), 39 + 4 + 10 * 21 + 1);
        assert!(row.len() <= LONGEST_LINE && TRAFFIC_HEADER.len() <= LONGEST_LINE);
    }
}
