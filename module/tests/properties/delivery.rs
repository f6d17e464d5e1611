// SPDX-License-Identifier: GPL-2.0

//! Properties of reads: any number of readers, with buffers of any size, at any offset, at any
//! time.

use crate::{
    support::check,
    traffic::{direction, row, table},
};
use proptest::{collection::vec, prelude::*};
use std::collections::BTreeMap;
use xt_traffic_accounting::{
    accounting::{
        counters::Direction::{self, Out},
        delivery::Reader,
        report::{Form, PORTCONN_HEADER, TRAFFIC_HEADER},
        table::{Size, Table},
    },
    host::{self, Buffer, Heap, HostText},
};

/// A table of ports. All ports have five digits, so that a row without its start is not mistaken
/// for a whole row.
type Ports = Table<u16, 4, Heap>;

/// The time of all counts, in ticks.
const NOW: u64 = 1_000_000;

const FIRST: u16 = 10_000;
const CPUS: usize = 3;
const READERS: usize = 3;

/// An event of a test.
#[derive(Clone, Debug)]
enum Event {
    /// A CPU counts something for a port.
    Count(Count),
    /// A reader reads up to `space` bytes, from its current offset or from `from`.
    Read {
        reader: usize,
        from: Option<u64>,
        space: usize,
    },
    /// A reader closes its file. It may read again later.
    Close { reader: usize },
}

/// The number of a CPU, a port, a column, a direction, and the amount to count.
type Count = (usize, u16, usize, Direction, u64);

fn count() -> impl Strategy<Value = Count> {
    let amount = prop_oneof![0..10u64, 0..1u64 << 40];
    (0..CPUS, FIRST..FIRST + 6, 0..4usize, direction(), amount)
}

fn event() -> impl Strategy<Value = Event> {
    let from = prop_oneof![6 => Just(None), 1 => Just(Some(0)), 1 => (0..300u64).prop_map(Some)];
    let space = prop_oneof![2 => 1..30usize, 1 => 0..300usize];
    prop_oneof![
        8 => count().prop_map(Event::Count),
        8 => (0..READERS, from, space).prop_map(|(reader, from, space)| Event::Read { reader, from, space }),
        1 => (0..READERS).prop_map(|reader| Event::Close { reader }),
    ]
}

/// The tables of all CPUs. They have fewer rows than there are ports, so some ports have none.
fn tables() -> Vec<Ports> {
    (0..CPUS).map(|_| table(3, Size::hashed(4))).collect()
}

fn add(tables: &[Ports], (cpu, port, column, direction, amount): Count) {
    tables[cpu].add(port, column, direction, amount, NOW);
}

/// The text of the tables, cleared by reading.
fn cleared_by_reading(tables: &[Ports]) -> HostText<'_, u16, 4, Heap> {
    HostText::new(
        tables.iter().collect(),
        Form::new(PORTCONN_HEADER),
        Some(host::ledger()),
    )
}

/// The sums of the columns after TOTAL, by the labels of rows.
type Sums = BTreeMap<String, Vec<u64>>;

/// Adds a line to `sums` if it is a whole row.
fn add_row(sums: &mut Sums, line: &str) {
    let cells: Vec<_> = line.split('\t').collect();
    if cells.len() != 11 || (cells[0].len() != 5 && cells[0] != "*") {
        return;
    }
    let (label, numbers) = row(line);
    let row = sums.entry(label.to_string()).or_insert(vec![0; 8]);
    for (sum, number) in row.iter_mut().zip(&numbers[2..]) {
        *sum = sum
            .checked_add(*number)
            .unwrap_or_else(|| panic!("overflow in {line}"));
    }
}

/// A reader with its offset and the incomplete line that it has read last.
struct OpenFile<'a> {
    reader: Reader<HostText<'a, u16, 4, Heap>>,
    offset: u64,
    partial: String,
}

impl<'a> OpenFile<'a> {
    fn new() -> Self {
        Self {
            reader: Reader::default(),
            offset: 0,
            partial: String::new(),
        }
    }

    /// Reads up to `space` bytes and adds the completed rows to `arrived`.
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
        self.partial += std::str::from_utf8(&buffer.bytes).unwrap();
        while let Some((line, rest)) = self.partial.split_once('\n') {
            add_row(arrived, line);
            self.partial = rest.to_string();
        }
        count
    }

    fn seek(&mut self, offset: u64) {
        if offset == 0 || offset != self.offset {
            self.partial.clear();
        }
        self.offset = offset;
    }

    fn close(&mut self, rows: &HostText<'a, u16, 4, Heap>) {
        self.reader.close(rows);
        self.partial.clear();
    }
}

/// The counts of all tables, by label.
fn counted(tables: &[Ports]) -> Sums {
    let mut sums = Sums::new();
    let text = HostText::new(tables.iter().collect(), Form::new(PORTCONN_HEADER), None).read_all();
    text.lines().for_each(|line| add_row(&mut sums, line));
    sums
}

/// The sums over all rows.
fn total(sums: &Sums) -> Vec<u64> {
    sums.values().fold(vec![0; 8], |total, row| {
        total
            .iter()
            .zip(row)
            .map(|(sum, number)| sum + number)
            .collect()
    })
}

/// A row is delivered to the reader that reads all its bytes in order, and to no other reader. The
/// sum of what all readers got is everything that was counted. What was delivered of a row before
/// it was recycled is not delivered of the row `*`.
#[test]
fn every_count_is_delivered_exactly_once() {
    check(400, vec(event(), 0..120), |events| {
        let tables = tables();
        let rows = cleared_by_reading(&tables);
        let mut readers: Vec<_> = (0..READERS).map(|_| OpenFile::new()).collect();
        let mut arrived = Sums::new();
        for event in events {
            match event {
                Event::Count(count) => add(&tables, count),
                Event::Read {
                    reader,
                    from,
                    space,
                } => {
                    from.into_iter()
                        .for_each(|offset| readers[reader].seek(offset));
                    readers[reader].read(&rows, space, &mut arrived);
                }
                Event::Close { reader } => readers[reader].close(&rows),
            }
        }
        readers.iter_mut().for_each(|reader| reader.close(&rows));
        let mut last = OpenFile::new();
        while last.read(&rows, 4096, &mut arrived) > 0 {}
        last.close(&rows);
        let counted = counted(&tables);
        assert_eq!(total(&arrived), total(&counted));
        for (label, row) in counted.iter().filter(|(label, _)| *label != "*") {
            let numbers = row.iter().zip(&arrived[label]);
            assert!(numbers.clone().all(|(counted, arrived)| counted <= arrived));
        }
        if tables.iter().all(|table| table.recycled() == 0) {
            assert_eq!(arrived, counted);
        }
        assert_eq!(rows.read_all(), PORTCONN_HEADER, "nothing is left");
    });
}

/// Reads with buffers of any size and at any offset return parts of the same text.
#[test]
fn a_file_has_one_text_while_nothing_is_counted() {
    let steps = vec(
        (
            prop_oneof![4 => Just(None), 1 => (0..500u64).prop_map(Some)],
            1..200usize,
        ),
        0..30,
    );
    check(200, (vec(count(), 0..40), steps), |(counts, steps)| {
        let tables = tables();
        counts.into_iter().for_each(|count| add(&tables, count));
        let rows = HostText::new(tables.iter().collect(), Form::new(PORTCONN_HEADER), None);
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

/// The row `*` is the last one. The order does not depend on the CPU that made a row, nor on when.
#[test]
fn rows_are_in_ascending_order() {
    check(
        100,
        vec((0..CPUS, any::<u32>(), 1..9u64), 0..60),
        |counts| {
            let tables: Vec<Table<u32, 3, _>> =
                (0..CPUS).map(|_| table(3, Size::hashed(15))).collect();
            counts
                .iter()
                .for_each(|(cpu, key, amount)| tables[*cpu].add(*key, 1, Out, *amount, NOW));
            let text =
                HostText::new(tables.iter().collect(), Form::new(TRAFFIC_HEADER), None).read_all();
            let labels: Vec<_> = text
                .lines()
                .skip(1)
                .filter_map(|line| line.split('\t').next())
                .collect();
            let full = tables
                .iter()
                .any(|table| table.overflows() + table.recycled() > 0);
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
