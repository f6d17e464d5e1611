// SPDX-License-Identifier: GPL-2.0

//! Properties of tables: any keys in any order, any sizes, any number of CPUs, and lack of memory.

use crate::{
    comparison::{
        accounting::{params, ALL, CLOCK, ROOMY},
        Modelled, Scenario,
    },
    support::{check, for_both_families},
    traffic::{cells, direction, network, scenario, sums, table},
};
use core::{cell::Cell, convert::Infallible, fmt::Debug, ops::Range};
use proptest::{collection::vec, prelude::*};
use std::{collections::BTreeMap, rc::Rc};
use xt_traffic_accounting::{
    accounting::{
        age::Periods,
        counters::Direction,
        cpu_tables::CpuTables,
        flow::Flows,
        hash::Seed,
        key::Key,
        network::Internal,
        params::{Counts, Sizes},
        slots::{Memory, Slot, Slots},
        table::{Lookup, Size, Table},
    },
    host::{Collected, Heap, HeapSlots},
};

/// An amount to count: the key, the column, the direction, and the amount.
type Item<K> = (K, usize, Direction, u32);

/// The pairs (outgoing, incoming) of a row.
type Pairs = [[u64; 2]; 3];

/// Up to `most` items. Keys are likely to repeat.
fn items<K: Debug>(
    keys: impl Strategy<Value = K>,
    most: usize,
) -> impl Strategy<Value = Vec<Item<K>>> {
    vec((keys, 0..3usize, direction(), any::<u32>()), 0..most)
}

/// The time of all items, in ticks.
const NOW: u64 = 1_000_000;

fn add_all<K: Key, M: Memory>(table: &Table<K, 3, M>, items: &[Item<K>]) {
    for (key, column, direction, amount) in items {
        table.add(*key, *column, *direction, u64::from(*amount), NOW);
    }
}

/// The sums of the items by key.
fn by_key<K: Key>(items: &[Item<K>]) -> BTreeMap<K, Pairs> {
    let mut rows = BTreeMap::<K, Pairs>::new();
    for (key, column, direction, amount) in items {
        rows.entry(*key).or_default()[*column][*direction as usize] += u64::from(*amount);
    }
    rows
}

/// The rows of a table, and the row of the others.
fn rows<K: Key, M: Memory>(table: &Table<K, 3, M>) -> (BTreeMap<K, Pairs>, Pairs) {
    let mut list = Collected::default();
    let Ok(others) = table.read(&mut list);
    let rows = list
        .0
        .iter()
        .map(|row| (row.key, pairs(row.totals.pairs())));
    let rows: BTreeMap<_, _> = rows.collect();
    assert_eq!(rows.len(), list.0.len(), "two rows have the same key");
    assert_eq!(rows.len(), table.rows() as usize);
    (rows, pairs(others.pairs()))
}

fn pairs(mut each: impl Iterator<Item = (u64, u64)>) -> Pairs {
    core::array::from_fn(|_| each.next().map(|(out, into)| [out, into]).unwrap())
}

fn sum<'a>(rows: impl IntoIterator<Item = &'a Pairs>) -> Pairs {
    rows.into_iter().fold(Pairs::default(), |sum, pairs| {
        core::array::from_fn(|i| core::array::from_fn(|way| sum[i][way] + pairs[i][way]))
    })
}

/// Adds items to an empty table. Panics if the table does not have a row with the sum for each key.
fn check_rows<K: Key + Debug>(table: &Table<K, 3, Heap>, items: &[Item<K>]) {
    add_all(table, items);
    assert_eq!(rows(table), (by_key(items), Pairs::default()));
    assert_eq!((table.overflows(), table.recycled()), (0, 0));
}

fn check_hashed<K: Key + Debug>(keys: impl Strategy<Value = K>) {
    check(150, (items(keys, 400), any::<u64>()), |(items, seed)| {
        check_rows(&table(seed, Size::hashed(1 << 11)), &items);
    });
}

/// `ranges` are the first keys of ranges, and `key` returns a key of a range.
fn check_direct<K: Key + Debug>(ranges: impl Strategy<Value = K>, key: fn(K, u8) -> K) {
    check(150, (ranges, items(any::<u8>(), 400)), |(base, items)| {
        let items: Vec<_> = items
            .into_iter()
            .map(|(n, column, direction, amount)| (key(base, n), column, direction, amount))
            .collect();
        let size = Size {
            rows: 1 << 8,
            lookup: Lookup::Direct {
                prefix: base.to_words(),
            },
        };
        check_rows(&table(1, size), &items);
    });
}

#[test]
fn a_direct_table_has_a_row_with_the_sum_for_each_key() {
    check_direct(any::<u32>().prop_map(|base| base & !0xff), |base, n| {
        base | u32::from(n)
    });
    check_direct(any::<u128>().prop_map(|base| base & !0xff), |base, n| {
        base | u128::from(n)
    });
}

/// The keys are adjacent and random addresses, ports, and IPv6 addresses that differ in one half.
#[test]
fn a_hashed_table_has_a_row_with_the_sum_for_each_key() {
    check_hashed(prop_oneof![
        0..200u32,
        any::<u32>(),
        (0..200u32).prop_map(|n| n << 24)
    ]);
    check_hashed(any::<u16>());
    check_hashed(prop_oneof![
        any::<u128>(),
        (0..100u128).prop_map(|n| n << 64),
        0..100u128
    ]);
}

#[test]
fn the_order_does_not_matter() {
    let pair = items(0..60u32, 200)
        .prop_flat_map(|items| (Just(items.clone()), Just(items).prop_shuffle()));
    check(
        100,
        (pair, any::<[u64; 2]>()),
        |((one, other), [seed, other_seed])| {
            let contents = |items: &[Item<u32>], seed| {
                let table = table(seed, Size::hashed(60));
                add_all(&table, items);
                rows(&table)
            };
            assert_eq!(contents(&one, seed), contents(&other, other_seed));
        },
    );
}

/// A key has a row, or its counts are in the row of the others, or in both.
#[test]
fn a_full_table_loses_no_count() {
    check(
        150,
        (items(0..1000u32, 900), 1..200u32, any::<u64>()),
        |(items, limit, seed)| {
            let table = table(seed, Size::hashed(limit));
            add_all(&table, &items);
            let ((rows, others), all) = (rows(&table), by_key(&items));
            assert_eq!(sum(rows.values().chain([&others])), sum(all.values()));
            for (key, row) in &rows {
                let counted = all[key].as_flattened().iter();
                assert!(row
                    .as_flattened()
                    .iter()
                    .zip(counted)
                    .all(|(is, all)| is <= all));
            }
            let changes = table.recycled() + table.overflows();
            assert!(changes <= items.len() as u64);
            assert!(others == Pairs::default() || changes > 0);
            assert!(limit > 64 || rows.len() <= limit as usize);
        },
    );
}

/// Memory with a number of pages that is left. The test can change the number at any time.
#[derive(Clone)]
struct Scarce(Rc<Cell<u32>>);

/// An array in [`Scarce`] memory. Each new page takes one of the pages that are left.
struct ScarceSlots<T>(HeapSlots<T>, Scarce);

impl Memory for Scarce {
    type Slots<T: Slot> = ScarceSlots<T>;
    type Error = Infallible;

    fn backoff(&self) -> u32 {
        20
    }

    fn slots<T: Slot>(&self, limit: u32) -> Result<ScarceSlots<T>, Infallible> {
        Ok(ScarceSlots(Heap::ENDLESS.slots(limit)?, self.clone()))
    }
}

impl<T: Slot> Slots<T> for ScarceSlots<T> {
    fn get(&self, index: u32) -> Option<&T> {
        self.0.get(index)
    }

    fn make(&self, index: u32) -> Option<&T> {
        if self.0.get(index).is_none() {
            let left = &self.1 .0;
            left.set(left.get().checked_sub(1)?);
        }
        self.0.make(index)
    }

    fn memory(&self) -> usize {
        self.0.memory()
    }
}

fn scarce_table(seed: u64, size: Size, memory: &Scarce) -> Table<u32, 3, Scarce> {
    let periods = Periods::new(CLOCK.ticks_per_second);
    let Ok(table) = Table::new(Seed::new(seed), size, periods, memory);
    table
}

/// One item for each of these keys.
fn one_each(keys: Range<u32>) -> Vec<Item<u32>> {
    keys.map(|key| (key, 0, Direction::Out, 1)).collect()
}

#[test]
fn a_cpu_has_rows_although_another_one_has_taken_all_memory() {
    let memory = Scarce(Rc::new(Cell::new(30)));
    let tables = [1, 2].map(|seed| scarce_table(seed, Size::hashed(1 << 16), &memory));
    tables.iter().for_each(Table::prepare);
    assert_eq!([tables[0].rows(), tables[1].rows()], [0, 0]);
    add_all(&tables[0], &one_each(0..100_000));
    assert_eq!(memory.0.get(), 0);
    add_all(&tables[1], &one_each(0..40));
    let (contents, others) = rows(&tables[1]);
    assert!(contents.into_keys().eq(0..40));
    assert_eq!(others, Pairs::default());
}

/// What could not be prepared does not make packets skip an attempt.
#[test]
fn a_key_has_a_row_as_soon_as_there_is_memory() {
    for prepared in 0..5 {
        let memory = Scarce(Rc::new(Cell::new(prepared)));
        let table = scarce_table(1, Size::hashed(1 << 16), &memory);
        table.prepare();
        assert_eq!(memory.0.get(), 0);
        memory.0.set(5 - prepared);
        add_all(&table, &one_each(0..1));
        assert_eq!(table.rows(), 1, "{prepared} pages");
    }
}

/// The first address decides which page of direct rows is needed first.
#[test]
fn direct_rows_are_not_prepared() {
    let memory = Scarce(Rc::new(Cell::new(10)));
    let lookup = Lookup::Direct { prefix: [0, 0] };
    let rows = 1 << 8;
    let table = scarce_table(1, Size { rows, lookup }, &memory);
    table.prepare();
    assert_eq!((table.memory(), memory.0.get()), (0, 10));
}

/// A row needs five pages, and each kind of flow one.
#[test]
fn all_that_is_counted_is_prepared() {
    let counts = [
        ([true, false, false], 5),
        ([false, true, false], 5 + 3),
        ([false, false, true], 5 + 3),
        ([true, true, true], 3 * 5 + 3),
    ];
    for ([traffic, ipconn, portconn], pages) in counts {
        let (memory, seed) = (Scarce(Rc::new(Cell::new(100))), Seed::new(1));
        let counts = Counts {
            traffic,
            ipconn,
            portconn,
        };
        let params = params(network::<u32>(Internal::Any), counts, ROOMY);
        let flows = Flows::new(seed, CLOCK, 1 << 15);
        let Ok(tables) = CpuTables::new(0, &params, seed, &flows, &memory);
        assert_eq!(memory.0.get(), 100);
        tables.prepare();
        assert_eq!(memory.0.get(), 100 - pages);
    }
}

/// An allocation can fail at any time, for any part of the table, and succeed later.
#[test]
fn a_table_without_memory_loses_no_count() {
    let part = || (items(0..2000u32, 900), 0..12u32);
    let sizes = prop_oneof![
        Just(Size::hashed(2000)),
        Just(Size {
            rows: 1 << 11,
            lookup: Lookup::Direct { prefix: [0, 0] }
        }),
    ];
    check(
        60,
        (vec(part(), 1..6), any::<u64>(), sizes, 0..7u32),
        |(parts, seed, size, prepared)| {
            let memory = Scarce(Rc::default());
            let table = scarce_table(seed, size, &memory);
            memory.0.set(prepared);
            table.prepare();
            let (mut all, mut known) = (vec![], 0);
            for (items, pages) in parts {
                memory.0.set(pages);
                add_all(&table, &items);
                all.extend(items);
                assert!(table.rows() >= known, "a row was removed");
                known = table.rows();
                let (rows, others) = rows(&table);
                assert_eq!(
                    sum(rows.values().chain([&others])),
                    sum(by_key(&all).values())
                );
            }
            assert!(table.overflows() <= all.len() as u64);
        },
    );
}

fn the_number_of_cpus_and_the_hash_size_do_not_matter<A: Modelled>() {
    check(
        60,
        (scenario::<A>(60), 1..5usize, 0..10u32),
        |(scenario, cpus, size)| {
            let all_on = |cpus| {
                Scenario {
                    cpus,
                    hash_size: 1 << size,
                    ..scenario.clone()
                }
                .run()
            };
            let (one, some) = (all_on(1), all_on(cpus));
            assert_eq!(one.texts, some.texts);
            assert_eq!((one.matched, one.bytes), (some.matched, some.bytes));
        },
    );
}
for_both_families!(the_number_of_cpus_and_the_hash_size_do_not_matter);

/// The sum of each column is the same as with room for all rows.
fn addresses_without_a_row_count_in_the_row_of_the_others<A: Modelled>() {
    check(60, (scenario::<A>(60), 0..5u32), |(scenario, rows)| {
        let (all, limited) = (scenario.run(), {
            let sizes = Sizes {
                addresses: Size::hashed(rows),
                ports: Sizes::PORTS,
                hash_size: scenario.hash_size,
            };
            scenario.run_with(sizes)
        });
        for (all, limited) in all
            .texts
            .iter()
            .flatten()
            .zip(limited.texts.iter().flatten())
        {
            assert_eq!(sums(all), sums(limited));
            let labels: Vec<_> = cells(limited).into_iter().map(|(label, _)| label).collect();
            assert!(
                !labels.iter().rev().skip(1).any(|label| *label == "*"),
                "the row * is not the last one"
            );
        }
        assert_eq!(scenario.counts, ALL);
        assert_eq!(limited.matched, all.matched);
    });
}
for_both_families!(addresses_without_a_row_count_in_the_row_of_the_others);
