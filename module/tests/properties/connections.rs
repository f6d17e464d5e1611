// SPDX-License-Identifier: GPL-2.0

//! When a connection starts, and where it counts.

use crate::{
    comparison::{
        machine::{Machine, ALL, CLOCK, ROOMY, START},
        Modelled,
    },
    support::check,
    traffic::{cells, gap, host, network, opening, sent, sums, Sent, What},
};
use proptest::{collection::vec, prelude::*, sample::select};
use std::collections::{BTreeMap, BTreeSet};
use traffic_model::frames::{ACK, FIN, RST, SYN};
use xt_traffic_accounting::{
    accounting::{
        flows::Ticks,
        network::{Internal, Network},
        params::{Counts, Sizes},
    },
    host::{Bytes, Heap},
};

/// Connections alone: a packet matches exactly when it starts one.
const CONNECTIONS: Counts = Counts {
    traffic: false,
    ..ALL
};

fn machine<A: Modelled>(counts: Counts, sizes: Sizes) -> Machine<A, Heap> {
    let network = Network::new(host(0), A::mask(network::<A>()), Internal::Any).unwrap();
    Machine::new(network, counts, sizes, 1, &Heap::ENDLESS)
}

/// Between two hosts inside.
fn between(what: What, ports: (u16, u16)) -> Sent {
    Sent {
        from: 1,
        to: 2,
        ports,
        what,
        size: 10,
    }
}

/// Does a packet that comes so long after one of the same flow start a connection?
fn is_over(what: &What, after: Ticks) -> bool {
    let second = CLOCK.ticks_per_second;
    match what {
        What::Tcp { .. } => after > 120 * second,
        What::Udp => after >= 30 * second,
        What::Icmp { .. } => true,
        What::Other { .. } => after >= 600 * second,
    }
}

fn windows<A: Modelled>() {
    check(
        400,
        (
            opening(),
            any::<(u16, u16)>(),
            vec((gap(), any::<bool>()), 1..8),
        ),
        |(what, ports, packets)| {
            let machine = machine::<A>(CONNECTIONS, ROOMY);
            let there = between(what, ports);
            // The other direction of a SYN would be another flow.
            let both_ways = !matches!(there.what, What::Tcp { .. });
            let (mut now, mut first) = (START, true);
            for (gap, back) in packets {
                now += gap;
                let packet = if back && both_ways {
                    there.reversed()
                } else {
                    there.clone()
                };
                let started = machine.count(0, now, Bytes(&packet.packet::<A>()));
                assert_eq!(
                    started,
                    first || is_over(&there.what, gap),
                    "{packet:?} {gap} ticks after the one before"
                );
                first = false;
            }
        },
    );
}

/// Every packet, of either direction, makes the time begin anew.
#[test]
fn a_flow_ends_with_silence() {
    windows::<u32>();
    windows::<u128>();
}

/// What two packets must have in common to belong to one flow: a text, for any kind.
fn identity(sent: &Sent) -> Option<String> {
    let ends = [(sent.from, sent.ports.0), (sent.to, sent.ports.1)];
    let sorted = |ends: [(u8, u16); 2]| {
        ends.iter()
            .max()
            .zip(ends.iter().min())
            .map(|pair| format!("{pair:?}"))
    };
    match sent.what {
        What::Tcp { sequence, flags } if flags & (SYN | ACK | RST | FIN) == SYN => {
            Some(format!("TCP {ends:?} {sequence}"))
        }
        What::Tcp { .. } | What::Icmp { .. } => None,
        What::Udp => sorted(ends).map(|ends| format!("UDP {ends}")),
        What::Other { protocol } => {
            sorted(ends.map(|end| (end.0, 0))).map(|ends| format!("{protocol} {ends}"))
        }
    }
}

/// Is it an ICMP request? The same numbers mean other things in the other family.
fn is_request<A: Modelled>(kind: u8) -> bool {
    if A::BITS == 32 {
        [8, 13, 15, 17].contains(&kind)
    } else {
        kind == 128
    }
}

/// Packets that are of one kind and much alike. Their protocols are OTHER in both families.
fn alike() -> impl Strategy<Value = Vec<Sent>> {
    let tcp = (
        0..2u32,
        select(vec![
            SYN,
            SYN,
            SYN | 0xe8,
            SYN | ACK,
            ACK,
            SYN | FIN,
            SYN | RST,
        ]),
    );
    let what = prop_oneof![
        tcp.prop_map(|(sequence, flags)| What::Tcp { sequence, flags }),
        Just(What::Udp),
        select(vec![8, 13, 15, 17, 0, 128, 129]).prop_map(|kind| What::Icmp { kind }),
        (47..49u8).prop_map(|protocol| What::Other { protocol }),
    ];
    let sent = ((0..3u8, 0..3u8), (1..3u16, 1..3u16), what);
    vec(
        sent.prop_map(|((from, to), ports, what)| Sent {
            from,
            to,
            ports,
            what,
            size: 0,
        }),
        1..30,
    )
}

fn identities<A: Modelled>() {
    check(200, alike(), |packets| {
        let machine = machine::<A>(CONNECTIONS, ROOMY);
        let mut seen = BTreeSet::new();
        for sent in packets {
            let expected = match sent.what {
                What::Icmp { kind } => is_request::<A>(kind),
                _ => identity(&sent).is_some_and(|flow| seen.insert(flow)),
            };
            assert_eq!(
                machine.count(0, START, Bytes(&sent.packet::<A>())),
                expected,
                "{sent:?}"
            );
        }
    });
}

/// TCP goes by addresses, ports and sequence number, UDP by endpoints, others by addresses and protocol; the last
/// two in either direction. Each ICMP request is a connection.
#[test]
fn what_makes_a_flow() {
    identities::<u32>();
    identities::<u128>();
}

#[test]
fn only_a_plain_syn_starts_a_tcp_connection() {
    check(256, (any::<u8>(), any::<u32>()), |(flags, sequence)| {
        let sent = between(What::Tcp { sequence, flags }, (1, 2));
        let started =
            machine::<u32>(CONNECTIONS, ROOMY).count(0, START, Bytes(&sent.packet::<u32>()));
        assert_eq!(
            started,
            flags & SYN != 0 && flags & (ACK | RST | FIN) == 0,
            "{flags:08b}"
        );
    });
}

/// The initiator has it out, the target in, each if it is inside; the port is the target's.
fn places<A: Modelled>() {
    check(
        300,
        (sent(), opening(), any::<(u16, u16)>()),
        |(sent, what, ports)| {
            let sent = Sent {
                what,
                ports,
                ..sent
            };
            let machine = machine::<A>(ALL, ROOMY);
            let inside = [sent.from < 4, sent.to < 4].map(u64::from);
            assert_eq!(
                machine.count(0, START, Bytes(&sent.packet::<A>())),
                inside != [0, 0]
            );

            let (column, port) = match sent.what {
                What::Tcp { .. } => (0, ports.1),
                What::Udp => (1, ports.1),
                _ => (3, 0),
            };
            let mut expected = vec![inside[0], inside[1], 0, 0, 0, 0, 0, 0, 0, 0];
            expected[2 + 2 * column..][..2].copy_from_slice(&inside);
            let [_, ipconn, portconn] = machine.texts().map(Option::unwrap);
            assert_eq!(sums(&ipconn)[..10], expected);
            if inside != [0, 0] {
                assert_eq!(cells(&portconn), [(&*port.to_string(), expected)]);
            }
            for (label, numbers) in cells(&ipconn) {
                let is = |number: u8| u64::from(label == host::<A>(number).ip().to_string());
                assert_eq!(
                    numbers[..2],
                    [is(sent.from) * inside[0], is(sent.to) * inside[1]],
                    "{label}"
                );
            }
        },
    );
}

#[test]
fn where_a_connection_counts() {
    places::<u32>();
    places::<u128>();
}

/// A memory with little room forgets, says how often, and never counts more twice than it has forgotten.
#[test]
fn what_is_forgotten_is_counted() {
    check(60, (vec(0..40u16, 1..200), 0..3u32), |(ports, sets)| {
        let machine = machine::<u32>(
            CONNECTIONS,
            Sizes {
                flow_sets: 1 << sets,
                ..ROOMY
            },
        );
        let packet = |port: &u16| between(What::Udp, (*port, 53)).packet::<u32>();
        let started = ports
            .iter()
            .filter(|port| machine.count(0, START, Bytes(&packet(port))))
            .count() as u64;
        let flows = ports.iter().collect::<BTreeSet<_>>().len() as u64;
        assert!(started >= flows && started - flows <= machine.forgotten());
        // What never was there can't be forgotten; four fit in each set.
        assert!(machine.forgotten() + 4 * (1 << sets) >= started);
        assert!(machine.forgotten() <= started.saturating_sub(4));
    });
}

/// A set of four flows as it should be: the ends of those that are in it, by port.
#[derive(Default)]
struct FlowSet {
    ends: BTreeMap<u16, Ticks>,
    forgotten: u64,
}

impl FlowSet {
    /// A datagram from this port: is it the first?
    fn is_first(&mut self, port: u16, now: Ticks) -> bool {
        self.ends.retain(|_, end| *end > now);
        let first = !self.ends.contains_key(&port);
        let soonest = self
            .ends
            .iter()
            .min_by_key(|(_, end)| **end)
            .map(|(port, _)| *port);
        if let (true, 4, Some(soonest)) = (first, self.ends.len(), soonest) {
            self.ends.remove(&soonest);
            self.forgotten += 1;
        }
        self.ends.insert(port, now + 30 * CLOCK.ticks_per_second);
        first
    }
}

/// It is the one that would end first, unless it has ended.
#[test]
fn which_flow_is_forgotten() {
    let end = 30 * CLOCK.ticks_per_second;
    // No two of them at once: they would end at once, and either could be forgotten.
    let gap = prop_oneof![1..4u64, end - 8..end + 2, Just(10 * CLOCK.ticks_per_second)];
    check(200, vec((gap, 0..7u16), 1..60), |packets| {
        let machine = machine::<u32>(
            CONNECTIONS,
            Sizes {
                flow_sets: 1,
                ..ROOMY
            },
        );
        let (mut now, mut set) = (START, FlowSet::default());
        for (gap, port) in packets {
            now += gap;
            let packet = between(What::Udp, (port, 53)).packet::<u32>();
            assert_eq!(
                machine.count(0, now, Bytes(&packet)),
                set.is_first(port, now),
                "port {port}"
            );
            assert_eq!(machine.forgotten(), set.forgotten);
        }
    });
}
