// SPDX-License-Identifier: GPL-2.0

//! A reader of rows, while the CPU that owns them counts, adds rows and recycles them.

extern crate std;

use super::{
    age::Periods,
    block::Block,
    counters::{
        Direction,
        Totals, //
    },
    hash::Seed,
    hashed::{
        Hashed,
        Slow, //
    },
    key::Key,
    row::{
        Collect,
        Counted,
        Find,
        Row, //
    },
};
use crate::{
    atomic::{
        AtomicU32,
        Ordering::{Acquire, Release},
    },
    explore::{
        explore,
        Fixed, //
    },
};
use loom::{
    sync::Arc,
    thread, //
};
use std::{
    collections::{
        BTreeMap,
        BTreeSet, //
    },
    convert::Infallible,
    vec::Vec, //
};

/// A key with two words, which are equal. So a mixture of two keys is noticed.
fn key(n: u64) -> u128 {
    u128::from(n) << 64 | u128::from(n)
}

/// Event `n` counts 16^n. So the sum of some events tells which they are, and how often each is in
/// it.
fn amount(event: u32) -> u64 {
    1 << (4 * event)
}

fn totals(event: u32) -> Totals<1> {
    Totals::one(0, Direction::Out, amount(event))
}

/// The events that `totals` consists of.
fn events(totals: &Totals<1>) -> BTreeSet<u32> {
    let (sum, mut events) = (totals.sum(), BTreeSet::new());
    for event in 0..16 {
        match sum >> (4 * event) & 15 {
            0 => {}
            1 => assert!(events.insert(event)),
            times => panic!("event {event} is counted {times} times: {sum:x}"),
        }
    }
    events
}

/// The rows that a reader collects. It gives up when it would have to begin again once too often,
/// so that each run ends.
#[derive(Debug)]
struct Rows {
    list: Vec<Counted<u128, 1>>,
    attempts: u32,
}

impl Collect<u128, 1> for Rows {
    type Error = ();

    fn count(&self) -> usize {
        self.list.len()
    }

    fn push(&mut self, row: Counted<u128, 1>) -> Result<(), ()> {
        self.list.push(row);
        Ok(())
    }

    fn truncate(&mut self, count: usize) {
        self.attempts -= 1;
        self.list.truncate(count);
    }

    fn pause(&mut self) -> Result<(), ()> {
        (self.attempts > 0).then_some(()).ok_or(())
    }
}

/// The events of a test: event `n` is one of the key with number `keys[n]`.
struct Events {
    keys: &'static [u64],
    /// The number of events that have happened.
    happened: AtomicU32,
}

impl Events {
    fn new(keys: &'static [u64]) -> Self {
        Self {
            keys,
            happened: AtomicU32::new(0),
        }
    }

    /// Stores that all events up to `event` have happened.
    fn happened(&self, event: u32) {
        self.happened.store(event + 1, Release);
    }

    /// Checks a read that began after the first `before` events. Returns the events that it has
    /// found, those in rows first.
    fn check(
        &self,
        before: u32,
        rows: &[Counted<u128, 1>],
        recycled: &Totals<1>,
    ) -> (Vec<u32>, Vec<u32>) {
        let mut in_rows = BTreeSet::new();
        for row in rows {
            for event in events(&row.totals) {
                assert_eq!(
                    row.key,
                    key(self.keys[event as usize]),
                    "a row with events of another key: {row:?}"
                );
                assert!(in_rows.insert(event), "event {event} is in two rows");
            }
        }
        let recycled = events(recycled);
        assert!(
            in_rows.is_disjoint(&recycled),
            "an event is in a row and recycled: {in_rows:?} {recycled:?}"
        );
        let missing = (0..before).find(|n| !in_rows.contains(n) && !recycled.contains(n));
        assert_eq!(missing, None, "{before} events happened before the read");
        (
            in_rows.into_iter().collect(),
            recycled.into_iter().collect(),
        )
    }
}

/// What a read has found: the events in rows, and those in recycled rows. `None` if it gave up.
type Found = Option<(Vec<u32>, Vec<u32>)>;
type Outcomes = BTreeMap<Found, u64>;

fn has(outcomes: &Outcomes, rows: &[u32], recycled: &[u32]) -> bool {
    outcomes.contains_key(&Some((rows.to_vec(), recycled.to_vec())))
}

/// Rows in a block, without an index.
struct Bare<const ROWS: usize> {
    block: Block<1>,
    rows: [Row<1>; ROWS],
}

impl<const ROWS: usize> Bare<ROWS> {
    /// `None` if a row was recycled meanwhile.
    fn read(&self) -> Option<(Vec<Counted<u128, 1>>, Totals<1>)> {
        let mut list = Vec::new();
        let rows = || {
            list.extend(self.rows.iter().map(|row| Counted {
                key: u128::from_words(row.key()),
                born: 0,
                totals: row.counters.read(),
            }));
            Ok::<_, Infallible>(())
        };
        let Ok(recycled) = self.block.read(rows);
        Some((list, recycled?))
    }
}

/// What the owner does in an event.
#[derive(Clone, Copy)]
enum Step {
    /// It counts in this row.
    Count(usize),
    /// It gives this row to the key of the event.
    Recycle(usize),
}

/// Lets the owner do `steps`, and a reader read the block. Row `n` has key `n` and event `n` when
/// both begin. `keys` are the keys of all events.
fn read_block<const ROWS: usize>(keys: &'static [u64], steps: &'static [Step]) -> Outcomes {
    explore(move |outcomes| {
        let bare = Bare::<ROWS> {
            block: Block::default(),
            rows: core::array::from_fn(|_| Row::default()),
        };
        let shared = Arc::new((bare, Events::new(keys)));
        let (Bare { block, rows }, events) = &*shared;
        for (event, row) in (0..).zip(rows) {
            row.set_key(key(keys[event as usize]).to_words());
            row.counters.set_all(&totals(event));
            events.happened(event);
        }
        let reader = thread::spawn({
            let shared = shared.clone();
            move || {
                let (bare, events) = &*shared;
                let before = events.happened.load(Acquire);
                let (rows, recycled) = bare.read()?;
                Some(events.check(before, &rows, &recycled))
            }
        });
        for (event, step) in (ROWS as u32..).zip(steps) {
            match *step {
                Step::Count(row) => rows[row].counters.add(0, Direction::Out, amount(event)),
                Step::Recycle(row) => block.recycle(&rows[row].counters, || {
                    rows[row].set_key(key(keys[event as usize]).to_words());
                    rows[row].counters.set_all(&totals(event));
                }),
            }
            events.happened(event);
        }
        outcomes.add(reader.join().unwrap());
    })
}

#[test]
fn a_reader_sees_a_key_with_its_own_counts() {
    let steps = &[Step::Count(0), Step::Recycle(0), Step::Count(0)];
    let outcomes = read_block::<1>(&[0, 0, 1, 1], steps);
    assert!(outcomes.contains_key(&None));
    assert!(has(&outcomes, &[0], &[]) && has(&outcomes, &[0, 1], &[]));
    assert!(has(&outcomes, &[2], &[0, 1]) && has(&outcomes, &[2, 3], &[0, 1]));
    assert_eq!(outcomes.len(), 5);
}

#[test]
fn a_reader_sees_a_row_that_is_recycled_twice_as_it_was_at_one_moment() {
    let outcomes = read_block::<1>(&[0, 1, 2], &[Step::Recycle(0), Step::Recycle(0)]);
    assert!(outcomes.contains_key(&None));
    assert!(has(&outcomes, &[0], &[]) && has(&outcomes, &[1], &[0]));
    assert!(has(&outcomes, &[2], &[0, 1]));
    assert_eq!(outcomes.len(), 4);
}

#[test]
fn a_reader_sees_counts_in_other_rows_once_or_not_at_all() {
    let outcomes = read_block::<2>(&[0, 1, 2, 1], &[Step::Recycle(0), Step::Count(1)]);
    assert!(outcomes.contains_key(&None));
    assert!(has(&outcomes, &[0, 1], &[]) && has(&outcomes, &[1, 2, 3], &[0]));
}

type Hash = Hashed<u128, 1, Fixed>;

const HZ: u64 = 1000;
const NOW: u64 = 1_000_000;

/// Counts an event as [`super::table`] does.
fn count(hashed: &Hash, events: &Events, event: u32) {
    let (key, totals) = (key(events.keys[event as usize]), totals(event));
    // Each event is in a tick of its own: there is at most one search for an idle row in a tick.
    let slow = || hashed.find_or_insert(key, &totals, NOW + u64::from(event));
    match hashed.find(key).map_or_else(slow, Slow::Found) {
        Slow::Found(counters) => counters.add_all(&totals),
        Slow::Made => {}
        Slow::NoRoom => panic!("no room for event {event}"),
    }
    events.happened(event);
}

/// Lets the owner count the events of `keys`, the first `start` of them before a reader begins, in
/// at most `rows` rows. The reader tries `attempts` times.
fn read_hashed(rows: u32, keys: &'static [u64], start: u32, attempts: u32) -> Outcomes {
    explore(move |outcomes| {
        let Ok(hashed) = Hash::new(Seed::new(42), rows, Periods::new(HZ), &Fixed);
        let shared = Arc::new((hashed, Events::new(keys)));
        let (hashed, events) = &*shared;
        (0..start).for_each(|event| count(hashed, events, event));
        let reader = thread::spawn({
            let shared = shared.clone();
            move || {
                let (hashed, events) = &*shared;
                let before = events.happened.load(Acquire);
                let list = Vec::new();
                let mut rows = Rows { list, attempts };
                let recycled = hashed.read(&mut rows).ok()?;
                Some(events.check(before, &rows.list, &recycled))
            }
        });
        (start..keys.len() as u32).for_each(|event| count(hashed, events, event));
        assert_eq!(hashed.rows(), rows);
        outcomes.add(reader.join().unwrap());
    })
}

#[test]
fn a_reader_sees_complete_rows_while_rows_are_added() {
    let outcomes = read_hashed(3, &[1, 1, 2, 2, 3], 1, 1);
    assert!(has(&outcomes, &[0], &[]) && has(&outcomes, &[0, 1, 2], &[]));
    assert!(has(&outcomes, &[0, 1, 2, 3, 4], &[]));
}

#[test]
fn a_reader_sees_each_count_once_while_rows_are_recycled() {
    let outcomes = read_hashed(1, &[1, 2, 2], 1, 1);
    assert!(outcomes.contains_key(&None));
    assert!(has(&outcomes, &[0], &[]) && has(&outcomes, &[1, 2], &[0]));
}

#[test]
fn a_reader_that_begins_again_sees_each_count_once() {
    let outcomes = read_hashed(1, &[1, 2], 1, 2);
    assert!(outcomes.contains_key(&None));
    assert!(has(&outcomes, &[0], &[]) && has(&outcomes, &[1], &[0]));
}

#[test]
fn a_reader_sees_each_count_once_while_rows_are_added_and_recycled() {
    let outcomes = read_hashed(2, &[1, 2, 3], 1, 1);
    assert!(has(&outcomes, &[0], &[]) && has(&outcomes, &[0, 1], &[]));
    assert!(has(&outcomes, &[1, 2], &[0]));
}
