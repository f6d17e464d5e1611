// SPDX-License-Identifier: GPL-2.0

//! Traffic between a few hosts, at times at which flows end or just do not.

use crate::comparison::{
    machine::{ALL, CLOCK},
    Arrival, Modelled, Scenario,
};
use proptest::{collection::vec, prelude::*, sample::select};
use traffic_model::frames::{Ip, ACK, FIN, GRE, RST, SYN};
use xt_traffic_accounting::accounting::{flows::Ticks, network::Internal};

/// A host of a family: 0 to 3 are inside of [`network`], the others outside.
pub fn host<A: Modelled>(number: u8) -> A {
    let mut bytes = [0; 16];
    bytes[0] = 10;
    bytes[A::BITS as usize / 8 - 1] = number;
    A::address(bytes)
}

/// How many ones the mask of the network has that begins with host 0.
pub const fn network<A: Modelled>() -> u32 {
    A::BITS - 2
}

/// What a packet carries.
#[derive(Clone, Debug)]
pub enum What {
    Tcp { sequence: u32, flags: u8 },
    Udp,
    Icmp { kind: u8 },
    Other { protocol: u8 },
}

/// A packet.
#[derive(Clone, Debug)]
pub struct Sent {
    pub from: u8,
    pub to: u8,
    pub ports: (u16, u16),
    pub what: What,
    pub size: usize,
}

impl Sent {
    /// Its bytes.
    pub fn packet<A: Modelled>(&self) -> Vec<u8> {
        let ip = Ip::new(host::<A>(self.from).ip(), host::<A>(self.to).ip());
        let data = vec![0xa5; self.size];
        match self.what {
            What::Tcp { sequence, flags } => ip.tcp(self.ports, sequence, flags, &data),
            What::Udp => ip.udp(self.ports, &data),
            What::Icmp { kind } => ip.icmp(kind, [0; 4], &data),
            What::Other { protocol } => ip.packet(protocol, &data),
        }
    }

    /// An answer from the other end.
    pub fn reversed(&self) -> Self {
        Self {
            from: self.to,
            to: self.from,
            ports: (self.ports.1, self.ports.0),
            ..self.clone()
        }
    }
}

/// What starts a connection in any case: nothing like it was before.
pub fn opening() -> impl Strategy<Value = What> {
    prop_oneof![
        any::<u32>().prop_map(|sequence| What::Tcp {
            sequence,
            flags: SYN
        }),
        Just(What::Udp),
        Just(What::Other { protocol: GRE }),
    ]
}

fn what() -> impl Strategy<Value = What> {
    let flags = select(vec![SYN, SYN, SYN | ACK, ACK, FIN | ACK, RST, SYN | 0xe8]);
    prop_oneof![
        (0..2u32, flags).prop_map(|(sequence, flags)| What::Tcp { sequence, flags }),
        Just(What::Udp),
        select(vec![8, 13, 15, 17, 0, 3, 128, 129]).prop_map(|kind| What::Icmp { kind }),
        select(vec![GRE, 1, 2, 50, 58, 132]).prop_map(|protocol| What::Other { protocol }),
    ]
}

/// Packets of few hosts and ports, so that flows meet again.
pub fn sent() -> impl Strategy<Value = Sent> {
    let ports = (select(vec![0, 53, 1024]), select(vec![0, 53, 1024]));
    (0..6u8, 0..6u8, ports, what(), 0..40usize).prop_map(|(from, to, ports, what, size)| Sent {
        from,
        to,
        ports,
        what,
        size,
    })
}

/// Times about the end of a flow.
pub fn gap() -> impl Strategy<Value = Ticks> {
    let second = CLOCK.ticks_per_second;
    let ends = select(vec![30 * second, 60 * second, 120 * second, 600 * second]);
    prop_oneof![4 => 0..3 * second, 1 => (ends, 0..3u64).prop_map(|(end, more)| end - 1 + more)]
}

/// Arrivals of such packets at any CPU.
pub fn arrivals<A: Modelled>(most: usize) -> impl Strategy<Value = Vec<Arrival>> {
    let arrival =
        (gap(), 0..4usize, 0..40usize, sent()).prop_map(|(gap, cpu, linear, sent)| Arrival {
            gap,
            cpu,
            linear,
            bytes: sent.packet::<A>(),
        });
    vec(arrival, 0..most)
}

/// What happens to internal traffic.
pub fn internal() -> impl Strategy<Value = Internal> {
    select(vec![Internal::Any, Internal::Exclude, Internal::Only])
}

/// A rule for everything between and at the hosts inside, and what comes its way.
pub fn scenario<A: Modelled>(most: usize) -> impl Strategy<Value = Scenario<A>> {
    (internal(), 0..5u32, arrivals::<A>(most)).prop_map(|(internal, size, arrivals)| Scenario {
        base: host(0),
        length: network::<A>(),
        internal,
        counts: ALL,
        buckets: 1 << size,
        cpus: 4,
        arrivals,
    })
}

/// The rows of a text without its header: their first cells, and their numbers.
pub fn cells(text: &str) -> Vec<(&str, Vec<u64>)> {
    let row = |line: &'_ str| -> Vec<u64> {
        line.split('\t')
            .skip(1)
            .map(|cell| cell.parse().unwrap())
            .collect()
    };
    text.lines()
        .skip(1)
        .map(|line| (line.split('\t').next().unwrap_or_default(), row(line)))
        .collect()
}

/// The sums over all rows, and the check that each TOTAL is the sum of its parts.
pub fn sums(text: &str) -> Vec<u64> {
    let mut sums = vec![0; text.lines().next().unwrap_or_default().split('\t').count()];
    for (label, numbers) in cells(text) {
        for way in 0..2 {
            let parts: u64 = numbers.iter().skip(2 + way).step_by(2).sum();
            assert_eq!(numbers[way], parts, "TOTAL of {label}");
        }
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
