// SPDX-License-Identifier: GPL-2.0

//! The text of rows and of `.stats`.

use crate::{comparison::Modelled, support::check};
use proptest::{array::uniform8, collection::vec, option, prelude::*, sample::select};
use xt_traffic_accounting::accounting::{
    counters::{
        Counters,
        Direction::{In, Out},
        Totals,
    },
    key::{Key, Owner},
    params::Name,
    report::{write_row, LONGEST_LINE},
    stats::{self, FlowStats, RowStats, TableStats},
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

fn totals<const PAIRS: usize>(numbers: &[(u64, u64)]) -> Totals<PAIRS> {
    let counters = Counters::<PAIRS>::default();
    for (column, (out, into)) in numbers.iter().enumerate() {
        counters.add(column, Out, *out);
        counters.add(column, In, *into);
    }
    counters.read()
}

fn line<K: Key, const PAIRS: usize>(owner: Owner<K>, numbers: &[(u64, u64)]) -> String {
    let mut line = String::new();
    write_row(&mut line, owner, &totals::<PAIRS>(numbers)).unwrap();
    line
}

fn rows<K: Key, const PAIRS: usize>(owner: Owner<K>, label: &str, numbers: &[(u64, u64)]) {
    let line = line::<K, PAIRS>(owner, numbers);
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

fn both<K: Key>(owner: Owner<K>, label: &str, numbers: &[(u64, u64)]) {
    rows::<K, 3>(owner, label, &numbers[..3]);
    rows::<K, 4>(owner, label, numbers);
}

/// The owner, TOTAL, and the pairs, out and in; nothing if all is zero.
#[test]
fn a_row_has_its_cells() {
    let pair = prop_oneof![1 => Just((0, 0)), 2 => (number(), number())];
    check(
        300,
        (any::<(u16, u32)>(), vec(pair, 4)),
        |((port, address), numbers)| {
            both(Owner::One(port), &port.to_string(), &numbers);
            let [a, b, c, d] = address.to_be_bytes();
            both(Owner::One(address), &format!("{a}.{b}.{c}.{d}"), &numbers);
            both(Owner::<u128>::Others, "*", &numbers);
        },
    );
}

/// Sections 4 and 5 of RFC 5952: no leading zeros, lower case, the first of the longest runs of two zeros or more
/// is `::`, and a mapped IPv4 address has its dots.
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
        both(
            Owner::One(u128::address(bytes)),
            &canonical(groups),
            &[(1, 0); 4],
        );
    });
}

fn row_stats() -> impl Strategy<Value = Option<RowStats>> {
    let numbers = (0..1u64 << 40, 0..1usize << 40, 0..1u64 << 40);
    option::of(numbers.prop_map(|(rows, memory, overflows)| RowStats {
        rows,
        memory,
        overflows,
    }))
}

fn table_stats() -> impl Strategy<Value = [Option<RowStats>; 3]> {
    [row_stats(), row_stats(), row_stats()]
}

/// The sum of the values of a text of which the keys end with this.
fn sum_of(text: &str, ending: &str) -> u64 {
    let lines = text
        .lines()
        .skip(5)
        .map(|line| line.split_once(' ').unwrap());
    let ours = lines.filter(|(key, _)| key.ends_with(ending));
    ours.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
}

/// The first lines are the sums of those that come after them.
#[test]
fn stats_add_up() {
    let flows = || option::of((0..1usize << 40, 0..1u64 << 40));
    check(200, vec((table_stats(), flows()), 0..6), |tables| {
        let tables = tables
            .into_iter()
            .enumerate()
            .map(|(number, (files, flows))| {
                let mut name = [0; 32];
                name[..2].copy_from_slice(&[b't', b'0' + number as u8]);
                let flows = flows.map(|(memory, forgotten)| FlowStats { memory, forgotten });
                TableStats {
                    name: Name::from_padded(name).unwrap(),
                    files,
                    flows,
                }
            });
        let tables: Vec<_> = tables.collect();
        let mut text = String::new();
        stats::write(&mut text, &tables).unwrap();
        let sum = |ending| sum_of(&text, ending);
        let expected = format!(
            "tables {}\nrows {}\nmemory {}\noverflows {}\nforgotten_flows {}\n",
            tables.len(),
            sum(".rows"),
            sum(".memory"),
            sum(".overflows"),
            sum(".forgotten")
        );
        assert!(text.starts_with(&expected), "{text}");
        let files = tables
            .iter()
            .flat_map(|table| table.files)
            .flatten()
            .count();
        let flows = tables.iter().filter(|table| table.flows.is_some()).count();
        assert_eq!(text.lines().count(), 5 + 3 * files + 2 * flows);
    });
}
