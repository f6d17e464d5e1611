// SPDX-License-Identifier: GPL-2.0

//! Properties of the text of rows and of `.stats`.

use crate::{comparison::Modelled, support::check};
use proptest::{array::uniform8, collection::vec, option, prelude::*, sample::select};
use xt_traffic_accounting::accounting::{
    counters::{
        Counters,
        Direction::{In, Out},
    },
    key::{Key, Owner},
    params::Name,
    report::{Form, LONGEST_LINE, TRAFFIC_HEADER},
    stats::{self, FlowStats, MemoryStats, RowStats, TableStats},
};

/// Numbers of all sizes.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(u64::MAX),
        any::<u64>(),
        (0..64u32).prop_map(|bits| 1 << bits)
    ]
}

fn check_row<K: Key, const PAIRS: usize>(
    prefix: Option<u32>,
    owner: Owner<K>,
    label: &str,
    numbers: &[(u64, u64)],
) {
    let counters = Counters::<PAIRS>::default();
    for (column, (out, into)) in numbers.iter().enumerate() {
        counters.add(column, Out, *out);
        counters.add(column, In, *into);
    }
    let mut line = String::new();
    let form = Form {
        header: TRAFFIC_HEADER,
        prefix,
    };
    form.write_row(&mut line, owner, &counters.read()).unwrap();
    if numbers.iter().all(|pair| *pair == (0, 0)) {
        assert_eq!(line, "");
        return;
    }
    let total = numbers.iter().fold((0u64, 0u64), |sum, pair| {
        (sum.0.wrapping_add(pair.0), sum.1.wrapping_add(pair.1))
    });
    let all = [total]
        .into_iter()
        .chain(numbers.iter().copied())
        .flat_map(|(out, into)| [out, into]);
    let cells: Vec<_> = [label.to_string()]
        .into_iter()
        .chain(all.map(|number| number.to_string()))
        .collect();
    assert_eq!(line, cells.join("\t") + "\n");
    assert!(line.len() <= LONGEST_LINE);
}

/// Checks a row of a file of bytes and a row of a file of connections, without and with a prefix.
fn check_rows<K: Key>(owner: Owner<K>, label: &str, numbers: &[(u64, u64)]) {
    check_row::<K, 3>(None, owner, label, &numbers[..3]);
    check_row::<K, 4>(None, owner, label, numbers);
    let network = match owner {
        Owner::One(_) => format!("{label}/127"),
        Owner::Others => label.to_string(),
    };
    check_row::<K, 3>(Some(127), owner, &network, &numbers[..3]);
    check_row::<K, 4>(Some(127), owner, &network, numbers);
}

/// A row without counts has no text.
#[test]
fn a_row_has_the_label_the_total_and_the_pairs() {
    let pair = prop_oneof![1 => Just((0, 0)), 2 => (number(), number())];
    check(
        300,
        (any::<(u16, u32)>(), vec(pair, 4)),
        |((port, address), numbers)| {
            check_rows(Owner::One(port), &port.to_string(), &numbers);
            let [a, b, c, d] = address.to_be_bytes();
            check_rows(Owner::One(address), &format!("{a}.{b}.{c}.{d}"), &numbers);
            check_rows(Owner::<u128>::Others, "*", &numbers);
        },
    );
}

/// The canonical text of an IPv6 address: lower case without leading zeros, `::` for the first of
/// the longest runs of two or more zero groups, and dotted decimals for a mapped IPv4 address. See
/// <https://www.rfc-editor.org/rfc/rfc5952#section-4> and section 5.
fn canonical(groups: [u16; 8]) -> String {
    if let [0, 0, 0, 0, 0, 0xffff, high, low] = groups {
        let [[a, b], [c, d]] = [high, low].map(u16::to_be_bytes);
        return format!("::ffff:{a}.{b}.{c}.{d}");
    }
    let text = |groups: &[u16]| {
        groups
            .iter()
            .map(|group| format!("{group:x}"))
            .collect::<Vec<_>>()
            .join(":")
    };
    for length in (2..=8).rev() {
        if let Some(start) =
            (0..=8 - length).find(|start| groups[*start..start + length].iter().all(|g| *g == 0))
        {
            return format!(
                "{}::{}",
                text(&groups[..start]),
                text(&groups[start + length..])
            );
        }
    }
    text(&groups)
}

#[test]
fn ipv6_addresses_are_canonical() {
    let group =
        prop_oneof![3 => Just(0u16), 1 => select(vec![1, 0x10, 0xabc, 0xffff]), 1 => any::<u16>()];
    check(2000, uniform8(group), |groups| {
        let mut bytes = [0; 16];
        let all = groups.iter().flat_map(|group| group.to_be_bytes());
        bytes
            .iter_mut()
            .zip(all)
            .for_each(|(byte, from)| *byte = from);
        check_rows(
            Owner::One(u128::address(bytes)),
            &canonical(groups),
            &[(1, 0); 4],
        );
    });
}

fn row_stats() -> impl Strategy<Value = Option<RowStats>> {
    let numbers = (0..1u64 << 40, 0..1usize << 40, 0..1u64 << 40, 0..1u64 << 40);
    option::of(
        numbers.prop_map(|(rows, memory, overflows, recycled)| RowStats {
            rows,
            memory,
            overflows,
            recycled,
        }),
    )
}

/// The sum of the values in the lines of single tables whose keys end with `ending`.
fn sum_of(text: &str, ending: &str) -> u64 {
    let lines = text
        .lines()
        .skip(9)
        .map(|line| line.split_once(' ').unwrap());
    let ours = lines.filter(|(key, _)| key.ends_with(ending));
    ours.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
}

/// The first nine lines are sums over the lines after them.
#[test]
fn the_first_stats_are_the_sums_of_the_others() {
    let flows = || option::of((0..1usize << 40, 0..1u64 << 40, 0..1u64 << 40));
    check(
        200,
        vec(([row_stats(), row_stats(), row_stats()], flows()), 0..6),
        |tables| {
            let tables = tables
                .into_iter()
                .enumerate()
                .map(|(number, (files, flows))| {
                    let mut name = [0; 32];
                    name[..2].copy_from_slice(&[b't', b'0' + number as u8]);
                    let flows = flows.map(|(memory, forgotten, unremembered)| FlowStats {
                        memory,
                        forgotten,
                        unremembered,
                    });
                    TableStats {
                        name: Name::from_padded(name).unwrap(),
                        generation: number as u64,
                        waiting: false,
                        files,
                        flows,
                    }
                });
            let tables: Vec<_> = tables.collect();
            let mut text = String::new();
            stats::write(&mut text, MemoryStats { used: 1, bound: 2 }, &tables).unwrap();
            let sum = |ending| sum_of(&text, ending);
            let expected = format!(
                "tables {}\nrows {}\nmemory {}\nmemory_used 1\nmemory_bound 2\noverflows {}\nrecycled {}\nforgotten_flows {}\n\
                 unremembered {}\n",
                tables.len(),
                sum(".rows"),
                sum(".memory"),
                sum(".overflows"),
                sum(".recycled"),
                sum(".forgotten"),
                sum(".unremembered")
            );
            assert!(text.starts_with(&expected), "{text}");
            let files = tables
                .iter()
                .flat_map(|table| table.files)
                .flatten()
                .count();
            let flows = tables.iter().filter(|table| table.flows.is_some()).count();
            assert_eq!(
                text.lines().count(),
                9 + tables.len() + 4 * files + 3 * flows
            );
        },
    );
}
