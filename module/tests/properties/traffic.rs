// SPDX-License-Identifier: GPL-2.0

//! Random traffic between a few hosts, at times shortly before and after flows expire.

use crate::comparison::{
    accounting::{Accounting, ALL, CLOCK},
    Arrival, Modelled, Scenario,
};
use proptest::{collection::vec, prelude::*, sample::select};
use traffic_model::frames::{Ip, ACK, FIN, GRE, RST, SYN};
use xt_traffic_accounting::{
    accounting::{
        age::Periods,
        counters::Direction,
        flow::Ticks,
        hash::Seed,
        key::Key,
        network::{Internal, Network},
        params::{Counts, Sizes},
        table::{Size, Table},
    },
    host::Heap,
};

/// The address of a host. Hosts 0 to 3 are inside the network that [`prefix_length`] describes.
pub fn host<A: Modelled>(number: u8) -> A {
    let mut bytes = [0; 16];
    bytes[0] = 10;
    bytes[A::BITS as usize / 8 - 1] = number;
    A::address(bytes)
}

/// The prefix length of the network that starts with host 0.
pub const fn prefix_length<A: Modelled>() -> u32 {
    A::BITS - 2
}

/// An accounting on one CPU for the network of the hosts inside.
pub fn accounting<A: Modelled>(internal: Internal, counts: Counts, sizes: Sizes) -> Accounting<A> {
    Accounting::new(network(internal), counts, sizes, 1)
}

/// The network of the hosts inside.
pub fn network<A: Modelled>(internal: Internal) -> Network<A> {
    Network::new(host(0), A::mask(prefix_length::<A>()), internal).unwrap()
}

/// An empty table of one CPU.
pub fn table<K: Key, const PAIRS: usize>(seed: u64, size: Size) -> Table<K, PAIRS, Heap> {
    let periods = Periods::new(CLOCK.ticks_per_second);
    let Ok(table) = Table::new(Seed::new(seed), size, periods, &Heap::ENDLESS);
    table
}

/// Any direction.
pub fn direction() -> impl Strategy<Value = Direction> {
    select(vec![Direction::Out, Direction::In])
}

/// The payload of an IP packet.
#[derive(Clone, Debug)]
pub enum Payload {
    Tcp { sequence: u32, flags: u8 },
    Udp,
    Icmp { kind: u8 },
    Other { protocol: u8 },
}

/// The description of a packet.
#[derive(Clone, Debug)]
pub struct PacketSpec {
    pub from: u8,
    pub to: u8,
    pub ports: (u16, u16),
    pub payload: Payload,
    pub size: usize,
}

impl PacketSpec {
    /// The bytes of the packet.
    pub fn packet<A: Modelled>(&self) -> Vec<u8> {
        let ip = Ip::new(host::<A>(self.from).ip(), host::<A>(self.to).ip());
        let data = vec![0xa5; self.size];
        match self.payload {
            Payload::Tcp { sequence, flags } => ip.tcp(self.ports, sequence, flags, &data),
            Payload::Udp => ip.udp(self.ports, &data),
            Payload::Icmp { kind } => ip.icmp(kind, [0; 4], &data),
            Payload::Other { protocol } => ip.packet(protocol, &data),
        }
    }

    /// A packet of the same flow in the other direction.
    pub fn reversed(&self) -> Self {
        Self {
            from: self.to,
            to: self.from,
            ports: (self.ports.1, self.ports.0),
            ..self.clone()
        }
    }
}

/// The payload of a packet that starts a connection, unless it belongs to a known flow.
pub fn opening() -> impl Strategy<Value = Payload> {
    prop_oneof![
        any::<u32>().prop_map(|sequence| Payload::Tcp {
            sequence,
            flags: SYN
        }),
        Just(Payload::Udp),
        Just(Payload::Other { protocol: GRE }),
    ]
}

fn payload() -> impl Strategy<Value = Payload> {
    let flags = select(vec![SYN, SYN, SYN | ACK, ACK, FIN | ACK, RST, SYN | 0xe8]);
    prop_oneof![
        (0..2u32, flags).prop_map(|(sequence, flags)| Payload::Tcp { sequence, flags }),
        Just(Payload::Udp),
        select(vec![8, 13, 15, 17, 0, 3, 42, 128, 129, 160])
            .prop_map(|kind| Payload::Icmp { kind }),
        select(vec![GRE, 1, 2, 50, 58, 132]).prop_map(|protocol| Payload::Other { protocol }),
    ]
}

/// Packets between few hosts and ports, so that many belong to the same flows.
pub fn packet_spec() -> impl Strategy<Value = PacketSpec> {
    let ports = (select(vec![0, 53, 1024]), select(vec![0, 53, 1024]));
    let fields = (0..6u8, 0..6u8, ports, payload(), 0..40usize);
    fields.prop_map(|(from, to, ports, payload, size)| PacketSpec {
        from,
        to,
        ports,
        payload,
        size,
    })
}

/// Times between two packets: short ones, and those around the lifetimes of flows.
pub fn gap() -> impl Strategy<Value = Ticks> {
    let second = CLOCK.ticks_per_second;
    let ends = select(vec![30 * second, 60 * second, 120 * second, 600 * second]);
    prop_oneof![4 => 0..3 * second, 1 => (ends, 0..3u64).prop_map(|(end, more)| end - 1 + more)]
}

/// Arrivals of up to `most` packets at any CPU.
pub fn arrivals<A: Modelled>(most: usize) -> impl Strategy<Value = Vec<Arrival>> {
    let fields = (gap(), 0..4usize, 0..40usize, packet_spec());
    let arrival = fields.prop_map(|(gap, cpu, linear, spec)| Arrival {
        gap,
        cpu,
        linear,
        bytes: spec.packet::<A>(),
    });
    vec(arrival, 0..most)
}

/// What to do with internal packets.
pub fn internal() -> impl Strategy<Value = Internal> {
    select(vec![Internal::Any, Internal::Exclude, Internal::Only])
}

/// No `--prefix`, or one with which all, two or none of the hosts inside share a row.
fn prefix<A: Modelled>() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![Just(None), (prefix_length::<A>()..=A::BITS).prop_map(Some)]
}

/// A rule that counts everything of the hosts inside, with up to `most` packets.
pub fn scenario<A: Modelled>(most: usize) -> impl Strategy<Value = Scenario<A>> {
    (internal(), prefix::<A>(), 0..5u32, arrivals::<A>(most)).prop_map(
        |(internal, prefix, size, arrivals)| Scenario {
            base: host(0),
            length: prefix_length::<A>(),
            prefix,
            internal,
            counts: ALL,
            hash_size: 1 << size,
            cpus: 4,
            arrivals,
        },
    )
}

/// The rows of a text without its header: the first column of each, and its numbers.
pub fn cells(text: &str) -> Vec<(&str, Vec<u64>)> {
    text.lines().skip(1).map(row).collect()
}

/// The first column of a line, and its numbers. Panics if a TOTAL is not the sum of its columns.
pub fn row(line: &str) -> (&str, Vec<u64>) {
    let (label, numbers) = line.split_once('\t').unwrap();
    let numbers: Vec<u64> = numbers
        .split('\t')
        .map(|cell| cell.parse().unwrap())
        .collect();
    for way in 0..2 {
        let columns = numbers[2 + way..].iter().step_by(2);
        let sum = columns.fold(0, |sum: u64, number| sum.wrapping_add(*number));
        assert_eq!(numbers[way], sum, "TOTAL in {line}");
    }
    (label, numbers)
}

/// The sum of each column over all rows.
///
/// Panics if a TOTAL is not the sum of its columns, or if a row has only zeros.
pub fn sums(text: &str) -> Vec<u64> {
    let mut sums = vec![0; text.lines().next().unwrap_or_default().split('\t').count()];
    for (label, numbers) in cells(text) {
        assert!(
            numbers.iter().any(|number| *number != 0),
            "{label} has only zeros"
        );
        sums.iter_mut()
            .zip(&numbers)
            .for_each(|(sum, number)| *sum += number);
    }
    sums
}
