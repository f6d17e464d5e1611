// SPDX-License-Identifier: GPL-2.0

//! How many rows and flows fit into the memory that a table may take.

use super::{
    counters::{BYTE_COLUMNS, CONNECTION_COLUMNS},
    flow_array::BYTES_PER_FLOW,
    key::{Address, Key},
    ledger,
    params::{Counts, Params},
    table::{Lookup, Size},
};

/// The largest number of bytes that a row of bytes takes, with its part of the index.
const BYTES_PER_ROW: u64 = 64 + OVERHEAD;
/// The same for a row of connections.
const BYTES_PER_CONNECTION_ROW: u64 = 128 + OVERHEAD;
/// Up to four heads and two ghosts of four bytes, a link, an age, and the part of a block.
const OVERHEAD: u64 = 16 + 8 + 4 + 8 + 2;
/// The kinds of flows: SYNs, datagrams and others.
const KINDS: u64 = 3;
/// The smallest number of rows and of flows of a kind. It fits into a few pages.
const LEAST: u32 = 64;

/// Parameters of a table whose rows and flows fit into a given memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fitted<A> {
    /// The parameters, with smaller sizes if need be.
    pub params: Params<A>,
    /// The largest number of flows of each kind.
    pub flows: u32,
    /// The largest number of bytes that all of it takes, with the lists for readers that clear.
    pub bytes: u64,
}

impl<A: Address> Params<A> {
    /// The same parameters with sizes that fit into `bytes` bytes of memory, if `flows` flows of
    /// each kind are wanted. Connections get a quarter of the memory for their flows and another
    /// one for the rows of ports, if they need as much.
    ///
    /// If reading clears the table, there is a list of what was delivered of each row. It counts
    /// here, although it is in the memory for readers, which is as large. So the lists of all
    /// tables fit there, with the new list and the copy of its keys that a reader needs. Otherwise
    /// a full table could not be read again.
    #[must_use]
    pub fn fit(self, flows: u32, bytes: u64) -> Fitted<A> {
        let mut params = self;
        let counts = self.counts;
        let quarter = bytes / 4;
        let flows = match counts.connections() {
            true => at_most(flows, quarter, KINDS * BYTES_PER_FLOW),
            false => 0,
        };
        let flow_bytes = u64::from(flows) * KINDS * BYTES_PER_FLOW;
        let ports = match counts.portconn {
            true => at_most(self.sizes.ports.rows, quarter, self.bytes_per_port()),
            false => 0,
        };
        let port_bytes = u64::from(ports) * self.bytes_per_port();
        let left = bytes.saturating_sub(flow_bytes + port_bytes);
        let address_bytes = self.bytes_per_address();
        let addresses = self.sizes.addresses;
        let rows = match address_bytes {
            0 => 0,
            each => at_most(addresses.rows, left, each),
        };
        params.sizes.ports = Size::hashed(ports);
        params.sizes.addresses = Size {
            rows,
            lookup: match addresses.lookup {
                // Direct rows need one for each address.
                Lookup::Direct { .. } if rows < addresses.rows => Lookup::Hashed,
                lookup => lookup,
            },
        };
        Fitted {
            params,
            flows,
            bytes: flow_bytes + port_bytes + u64::from(rows) * address_bytes,
        }
    }

    fn bytes_per_address(&self) -> u64 {
        let Counts {
            traffic, ipconn, ..
        } = self.counts;
        let bytes = BYTES_PER_ROW + self.listed::<A, BYTE_COLUMNS>();
        let connections = BYTES_PER_CONNECTION_ROW + self.listed::<A, CONNECTION_COLUMNS>();
        u64::from(traffic) * bytes + u64::from(ipconn) * connections
    }

    fn bytes_per_port(&self) -> u64 {
        BYTES_PER_CONNECTION_ROW + self.listed::<u16, CONNECTION_COLUMNS>()
    }

    /// The bytes that the list of what was delivered takes for a row.
    fn listed<K: Key, const PAIRS: usize>(&self) -> u64 {
        match self.clear_on_read {
            true => ledger::bytes_per_row::<K, PAIRS>() as u64,
            false => 0,
        }
    }
}

/// `wanted`, or as many as fit into `bytes` bytes if each takes `each`, but [`LEAST`] at least.
fn at_most(wanted: u32, bytes: u64, each: u64) -> u32 {
    let fit = u32::try_from(bytes / each).unwrap_or(u32::MAX);
    wanted.min(fit.max(LEAST))
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::accounting::{
        hash::Seed,
        network::{Internal, Network},
        params::{Name, Sizes},
        table::{tests::periods, Table},
    };
    use crate::host::Heap;

    fn params(length: u32, counts: [bool; 3]) -> Params<u32> {
        let mut name = [0; crate::abi::NAME_SIZE];
        name[0] = b't';
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        let network = Network::new(0, mask, Internal::Any).unwrap();
        let [traffic, ipconn, portconn] = counts;
        Params {
            name: Name::from_padded(name).unwrap(),
            counts: Counts {
                traffic,
                ipconn,
                portconn,
            },
            network,
            sizes: Sizes::new(network.rows(), 0, 1).for_network(&network),
            clear_on_read: false,
        }
    }

    fn cleared(length: u32, counts: [bool; 3]) -> Params<u32> {
        Params {
            clear_on_read: true,
            ..params(length, counts)
        }
    }

    const ALL: [bool; 3] = [true; 3];
    const MIB: u64 = 1 << 20;

    #[test]
    fn with_enough_memory_the_sizes_are_those_that_are_wanted() {
        let all = params(0, ALL);
        let fitted = all.fit(1_000_000, 1 << 40);
        assert_eq!((fitted.params, fitted.flows), (all, 1_000_000));
        assert!(fitted.bytes < 600 * MIB);
    }

    #[test]
    fn the_sizes_fit_into_the_memory() {
        for counts in [
            ALL,
            [true, false, false],
            [false, true, false],
            [false, false, true],
        ] {
            for length in [0, 8, 16, 24, 32] {
                for bytes in [MIB, 4 * MIB, 64 * MIB] {
                    let fitted = params(length, counts).fit(1_000_000, bytes);
                    assert!(
                        fitted.bytes <= bytes,
                        "{counts:?} /{length}: {}",
                        fitted.bytes
                    );
                }
            }
        }
    }

    /// The bytes of the lists of a table, and those that a reader needs besides for the longest.
    fn lists(params: &Params<u32>) -> (u64, u64) {
        let Counts {
            traffic,
            ipconn,
            portconn,
        } = params.counts;
        let sizes = params.sizes;
        let each = [
            (traffic, sizes.addresses.rows, 112),
            (ipconn, sizes.addresses.rows, 144),
            (portconn, sizes.ports.rows, 144),
        ]
        .map(|(counted, rows, bytes)| u64::from(counted) * u64::from(rows) * bytes);
        let rows = u64::from(sizes.addresses.rows.max(sizes.ports.rows));
        let longest = each.into_iter().max().unwrap();
        (each.iter().sum(), longest + rows * 8)
    }

    #[test]
    fn the_lists_of_all_tables_fit_into_the_memory_of_readers_beside_a_new_list() {
        for counts in [
            ALL,
            [true, false, false],
            [false, true, false],
            [false, false, true],
        ] {
            let (mut left, mut all, mut reader) = (64 * MIB, 0, 0);
            for _ in 0..8 {
                let fitted = cleared(0, counts).fit(1_000_000, left / 3);
                let (lists, new) = lists(&fitted.params);
                assert!(fitted.bytes <= left / 3, "{counts:?}: {}", fitted.bytes);
                (left, all) = (left - fitted.bytes, all + lists);
                reader = reader.max(new);
            }
            // Lists have some room to spare.
            let taken = (all + reader) + (all + reader) / 64;
            assert!((10 * MIB..64 * MIB).contains(&taken), "{counts:?}: {taken}");
        }
    }

    #[test]
    fn a_small_network_takes_no_more_than_it_needs() {
        let fitted = params(24, [true, false, false]).fit(1_000_000, 64 * MIB);
        assert_eq!((fitted.params.sizes.addresses.rows, fitted.flows), (256, 0));
        assert!(fitted.bytes < 1 << 15);
    }

    #[test]
    fn direct_rows_become_hashed_rows_if_not_all_fit() {
        let direct = params(16, [true, false, false]);
        let lookup = |bytes| direct.fit(0, bytes).params.sizes.addresses.lookup;
        assert_eq!(lookup(64 * MIB), direct.sizes.addresses.lookup);
        assert_eq!(lookup(MIB), Lookup::Hashed);
    }

    #[test]
    fn there_are_some_rows_and_flows_without_any_memory() {
        let fitted = params(0, ALL).fit(1_000_000, 0);
        let sizes = fitted.params.sizes;
        assert_eq!(
            [sizes.addresses.rows, sizes.ports.rows, fitted.flows],
            [LEAST; 3]
        );
    }

    #[test]
    fn a_full_table_takes_no_more_than_was_expected() {
        const ROWS: u32 = 10_000;
        let size = Size::hashed(ROWS);
        let Ok(table) = Table::<u32, 3, _>::new(Seed::new(1), size, periods(), &Heap::ENDLESS);
        // Each row is recycled a few times.
        for n in 0..4 * ROWS {
            let direction = crate::accounting::counters::Direction::Out;
            table.add(n.wrapping_mul(0x9e37_79b1), 0, direction, 1, u64::from(n));
        }
        assert_eq!(table.rows(), ROWS);
        let expected = ROWS as usize * BYTES_PER_ROW as usize;
        assert!(
            (expected / 2..=expected).contains(&table.memory()),
            "{}",
            table.memory()
        );
    }
}
