// SPDX-License-Identifier: GPL-2.0

//! Readers: any number of them, who take any number of bytes from anywhere at any time.

use crate::support::check;
use proptest::{collection::vec, prelude::*};
use std::{collections::BTreeMap, sync::Mutex};
use xt_traffic_accounting::{
    accounting::{
        counters::Direction::{In, Out},
        delivery::Reader,
        hash::Seed,
        report::{PORTCONN_HEADER, TRAFFIC_HEADER},
        table::{Size, Table},
    },
    host::{Buffer, Heap, HostText},
};

/// The rows of ports, of which all have five digits: what remains of a row without its beginning is no row.
type Ports = Table<u16, 4, Heap>;

const FIRST: u16 = 10_000;
const CPUS: usize = 3;
const READERS: usize = 3;

/// What may happen.
#[derive(Clone, Debug)]
enum Event {
    /// A CPU counts something for a port.
    Count {
        cpu: usize,
        port: u16,
        column: usize,
        into: bool,
        amount: u64,
    },
    /// A reader takes so many bytes, from where it is or from elsewhere.
    Read {
        reader: usize,
        from: Option<u64>,
        space: usize,
    },
    /// A reader goes away, and may come back.
    Close { reader: usize },
}

fn count() -> impl Strategy<Value = Event> {
    let amount = prop_oneof![0..10u64, 0..1u64 << 40];
    (0..CPUS, 0..6u16, 0..4usize, any::<bool>(), amount).prop_map(
        |(cpu, port, column, into, amount)| Event::Count {
            cpu,
            port: FIRST + port,
            column,
            into,
            amount,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let from = prop_oneof![6 => Just(None), 1 => Just(Some(0)), 1 => (0..300u64).prop_map(Some)];
    let space = prop_oneof![2 => 1..30usize, 1 => 0..300usize];
    prop_oneof![
        8 => count(),
        8 => (0..READERS, from, space).prop_map(|(reader, from, space)| Event::Read { reader, from, space }),
        1 => (0..READERS).prop_map(|reader| Event::Close { reader }),
    ]
}

/// Has fewer rows than there are ports, so that some have none.
fn tables() -> Vec<Ports> {
    let table = |_| {
        let Ok(table) = Table::new(Seed::new(3), Size::hashed(4, 2), &Heap::ENDLESS);
        table
    };
    (0..CPUS).map(table).collect()
}

fn add(tables: &[Ports], event: &Event) {
    if let Event::Count {
        cpu,
        port,
        column,
        into,
        amount,
    } = *event
    {
        tables[cpu].add(port, column, if into { In } else { Out }, amount);
    }
}

/// The text of the tables, cleared by reading.
fn cleared_by_reading(tables: &[Ports]) -> HostText<'_, u16, 4, Heap> {
    let Ok(delivered) = Table::new(Seed::new(0xc1ea), Size::hashed(1 << 10, 1), &Heap::ENDLESS);
    HostText::new(
        tables.iter().collect(),
        PORTCONN_HEADER,
        Some(Mutex::new(delivered)),
    )
}

/// What rows say: the numbers after TOTAL by label.
type Sums = BTreeMap<String, Vec<u64>>;

/// Takes in a line, if it is all of a row.
fn take_row(sums: &mut Sums, line: &str) {
    let cells: Vec<_> = line.split('\t').collect();
    if cells.len() != 11 || (cells[0].len() != 5 && cells[0] != "*") {
        return;
    }
    let numbers: Vec<u64> = cells[1..]
        .iter()
        .map(|cell| cell.parse().unwrap())
        .collect();
    for way in 0..2 {
        let parts = numbers[2 + way..]
            .iter()
            .step_by(2)
            .fold(0, |sum: u64, part| sum.wrapping_add(*part));
        assert_eq!(numbers[way], parts, "TOTAL in {line}");
    }
    let row = sums.entry(cells[0].to_string()).or_insert(vec![0; 8]);
    for (sum, number) in row.iter_mut().zip(&numbers[2..]) {
        *sum = sum
            .checked_add(*number)
            .unwrap_or_else(|| panic!("too much in {line}"));
    }
}

/// OpenFile who reads, and what it has of the line that it is in.
struct OpenFile<'a> {
    reader: Reader<HostText<'a, u16, 4, Heap>>,
    offset: u64,
    begun: String,
}

impl<'a> OpenFile<'a> {
    fn new() -> Self {
        Self {
            reader: Reader::default(),
            offset: 0,
            begun: String::new(),
        }
    }

    /// Reads, and puts the rows that are whole now to those that have arrived.
    fn read(
        &mut self,
        rows: &HostText<'a, u16, 4, Heap>,
        space: usize,
        arrived: &mut Sums,
    ) -> usize {
        let mut buffer = Buffer::new(space);
        let count = self.reader.read(rows, self.offset, &mut buffer).unwrap();
        assert_eq!(count, buffer.bytes.len());
        self.offset += count as u64;
        self.begun += std::str::from_utf8(&buffer.bytes).unwrap();
        while let Some((line, rest)) = self.begun.split_once('\n') {
            take_row(arrived, line);
            self.begun = rest.to_string();
        }
        count
    }

    fn go_to(&mut self, offset: u64) {
        if offset == 0 || offset != self.offset {
            self.begun.clear();
        }
        self.offset = offset;
    }

    fn close(&mut self, rows: &HostText<'a, u16, 4, Heap>) {
        self.reader.close(rows);
        self.begun.clear();
    }
}

/// All that the tables have, by label.
fn counted(tables: &[Ports]) -> Sums {
    let mut sums = Sums::new();
    HostText::new(tables.iter().collect(), PORTCONN_HEADER, None)
        .read_all()
        .lines()
        .for_each(|line| take_row(&mut sums, line));
    sums
}

/// Whoever takes the last byte of a row after all those before it has the row, and nobody else has: all that has
/// arrived and all that is left is all that was counted.
#[test]
fn everything_is_delivered_exactly_once() {
    check(400, vec(event(), 0..120), |events| {
        let tables = tables();
        let rows = cleared_by_reading(&tables);
        let mut readers: Vec<_> = (0..READERS).map(|_| OpenFile::new()).collect();
        let mut arrived = Sums::new();
        for event in events {
            match event {
                Event::Count { .. } => add(&tables, &event),
                Event::Read {
                    reader,
                    from,
                    space,
                } => {
                    from.into_iter()
                        .for_each(|offset| readers[reader].go_to(offset));
                    readers[reader].read(&rows, space, &mut arrived);
                }
                Event::Close { reader } => readers[reader].close(&rows),
            }
        }
        readers.iter_mut().for_each(|reader| reader.close(&rows));
        let mut last = OpenFile::new();
        while last.read(&rows, 4096, &mut arrived) > 0 {}
        last.close(&rows);
        assert_eq!(arrived, counted(&tables));
        assert_eq!(rows.read_all(), PORTCONN_HEADER, "nothing is left");
    });
}

/// As long as nothing is counted, every reader reads the same, in steps of any sizes, from anywhere.
#[test]
fn a_file_that_is_at_rest_has_one_text() {
    let steps = vec(
        (
            prop_oneof![4 => Just(None), 1 => (0..500u64).prop_map(Some)],
            1..200usize,
        ),
        0..30,
    );
    check(200, (vec(count(), 0..40), steps), |(counts, steps)| {
        let tables = tables();
        counts.iter().for_each(|event| add(&tables, event));
        let rows = HostText::new(tables.iter().collect(), PORTCONN_HEADER, None);
        let whole = rows.read_all();
        let (mut reader, mut offset) = (Reader::default(), 0);
        for (from, space) in steps {
            offset = from.unwrap_or(offset);
            let mut buffer = Buffer::new(space);
            let count = reader.read(&rows, offset, &mut buffer).unwrap();
            let start = whole.len().min(offset as usize);
            let end = whole.len().min(start + space);
            assert_eq!(
                std::str::from_utf8(&buffer.bytes),
                Ok(&whole[start..end]),
                "{space} bytes from {offset} on"
            );
            offset += count as u64;
        }
        reader.close(&rows);
        assert_eq!(rows.read_all(), whole);
    });
}

/// Rows are in ascending order, whichever CPU made them and when; the row `*` is the last.
#[test]
fn rows_are_in_order() {
    check(
        100,
        vec((0..CPUS, any::<u32>(), 1..9u64), 0..60),
        |counts| {
            let new = |_| {
                let Ok(table) =
                    Table::<u32, 3, _>::new(Seed::new(3), Size::hashed(15, 1), &Heap::ENDLESS);
                table
            };
            let tables: Vec<_> = (0..CPUS).map(new).collect();
            counts
                .iter()
                .for_each(|(cpu, key, amount)| tables[*cpu].add(*key, 1, Out, *amount));
            let text = HostText::new(tables.iter().collect(), TRAFFIC_HEADER, None).read_all();
            let labels: Vec<_> = text
                .lines()
                .skip(1)
                .filter_map(|line| line.split('\t').next())
                .collect();
            let full = tables.iter().any(|table| table.overflows() > 0);
            assert_eq!(labels.last() == Some(&"*"), full);
            let addresses: Vec<core::net::Ipv4Addr> = labels
                .iter()
                .filter(|label| **label != "*")
                .map(|label| label.parse().unwrap())
                .collect();
            assert!(
                addresses.is_sorted_by(|one, next| one < next),
                "{addresses:?}"
            );
            assert_eq!(addresses.len() + usize::from(full), labels.len());
        },
    );
}
