// SPDX-License-Identifier: GPL-2.0

//! Properties of connections: which packets start one, and where it is counted.

use crate::{
    comparison::{
        accounting::{ALL, CLOCK, ROOMY, START},
        Modelled,
    },
    support::{check, for_both_families},
    traffic::{accounting, cells, gap, host, opening, packet_spec, sums, PacketSpec, Payload},
};
use proptest::{collection::vec, prelude::*, sample::select};
use std::collections::{BTreeMap, BTreeSet};
use traffic_model::frames::{ACK, FIN, RST, SYN};
use xt_traffic_accounting::{
    accounting::{
        flows::Ticks,
        network::Internal,
        params::{Counts, Sizes},
    },
    host::Bytes,
};

/// Counts connections only, so a packet matches if and only if it starts one.
const CONNECTIONS: Counts = Counts {
    traffic: false,
    ..ALL
};

/// A packet between two hosts inside.
fn between(payload: Payload, ports: (u16, u16)) -> PacketSpec {
    PacketSpec {
        from: 1,
        to: 2,
        ports,
        payload,
        size: 10,
    }
}

/// Returns whether a flow with this payload has expired `after` ticks without a packet.
fn has_expired(payload: &Payload, after: Ticks) -> bool {
    let second = CLOCK.ticks_per_second;
    match payload {
        Payload::Tcp { .. } => after > 120 * second,
        Payload::Udp => after >= 30 * second,
        Payload::Icmp { .. } => true,
        Payload::Other { .. } => after >= 600 * second,
    }
}

/// Every packet, in either direction, restarts the lifetime of its flow.
fn a_flow_expires_after_its_lifetime_without_packets<A: Modelled>() {
    check(
        400,
        (
            opening(),
            any::<(u16, u16)>(),
            vec((gap(), any::<bool>()), 1..8),
        ),
        |(payload, ports, packets)| {
            let accounting = accounting::<A>(Internal::Any, CONNECTIONS, ROOMY);
            let forward = between(payload, ports);
            // A SYN in the other direction belongs to another flow.
            let both_ways = !matches!(forward.payload, Payload::Tcp { .. });
            let (mut now, mut first) = (START, true);
            for (gap, back) in packets {
                now += gap;
                let packet = if back && both_ways {
                    forward.reversed()
                } else {
                    forward.clone()
                };
                let started = accounting.count(0, now, Bytes(&packet.packet::<A>()));
                let expected = first || has_expired(&forward.payload, gap);
                assert_eq!(
                    started, expected,
                    "{packet:?} {gap} ticks after the packet before"
                );
                first = false;
            }
        },
    );
}
for_both_families!(a_flow_expires_after_its_lifetime_without_packets);

/// A text that is equal for two packets if and only if they belong to the same flow. `None` for
/// packets that belong to no flow.
fn flow_of(spec: &PacketSpec) -> Option<String> {
    let ends = [(spec.from, spec.ports.0), (spec.to, spec.ports.1)];
    let sorted = |ends: [(u8, u16); 2]| {
        ends.iter()
            .max()
            .zip(ends.iter().min())
            .map(|pair| format!("{pair:?}"))
    };
    match spec.payload {
        Payload::Tcp { sequence, flags } if flags & (SYN | ACK | RST | FIN) == SYN => {
            Some(format!("TCP {ends:?} {sequence}"))
        }
        Payload::Tcp { .. } | Payload::Icmp { .. } => None,
        Payload::Udp => sorted(ends).map(|ends| format!("UDP {ends}")),
        Payload::Other { protocol } => {
            sorted(ends.map(|end| (end.0, 0))).map(|ends| format!("{protocol} {ends}"))
        }
    }
}

/// Returns whether an ICMP type is a request in this family.
fn is_request<A: Modelled>(kind: u8) -> bool {
    if A::BITS == 32 {
        [8, 13, 15, 17].contains(&kind)
    } else {
        kind == 128
    }
}

/// Packets that differ little, so that many of them belong to the same flow. Protocol numbers of
/// [`Payload::Other`] are OTHER in both families.
fn similar_packets() -> impl Strategy<Value = Vec<PacketSpec>> {
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
    let payload = prop_oneof![
        tcp.prop_map(|(sequence, flags)| Payload::Tcp { sequence, flags }),
        Just(Payload::Udp),
        select(vec![8, 13, 15, 17, 0, 128, 129]).prop_map(|kind| Payload::Icmp { kind }),
        (47..49u8).prop_map(|protocol| Payload::Other { protocol }),
    ];
    let spec = ((0..3u8, 0..3u8), (1..3u16, 1..3u16), payload);
    vec(
        spec.prop_map(|((from, to), ports, payload)| PacketSpec {
            from,
            to,
            ports,
            payload,
            size: 0,
        }),
        1..30,
    )
}

/// The flow of a TCP SYN is identified by addresses, ports and sequence number, that of a UDP
/// datagram by addresses and ports, and that of other protocols by addresses and protocol number.
/// Both directions are one flow, except with TCP. Each ICMP request is a connection.
fn the_first_packet_of_each_flow_starts_a_connection<A: Modelled>() {
    check(200, similar_packets(), |packets| {
        let accounting = accounting::<A>(Internal::Any, CONNECTIONS, ROOMY);
        let mut seen = BTreeSet::new();
        for spec in packets {
            let expected = match spec.payload {
                Payload::Icmp { kind } => is_request::<A>(kind),
                _ => flow_of(&spec).is_some_and(|flow| seen.insert(flow)),
            };
            assert_eq!(
                accounting.count(0, START, Bytes(&spec.packet::<A>())),
                expected,
                "{spec:?}"
            );
        }
    });
}
for_both_families!(the_first_packet_of_each_flow_starts_a_connection);

#[test]
fn only_a_plain_syn_starts_a_tcp_connection() {
    check(256, (any::<u8>(), any::<u32>()), |(flags, sequence)| {
        let spec = between(Payload::Tcp { sequence, flags }, (1, 2));
        let started = accounting::<u32>(Internal::Any, CONNECTIONS, ROOMY).count(
            0,
            START,
            Bytes(&spec.packet::<u32>()),
        );
        assert_eq!(
            started,
            flags & SYN != 0 && flags & (ACK | RST | FIN) == 0,
            "{flags:08b}"
        );
    });
}

/// It is outgoing for the source and incoming for the destination, each if it is inside. Its port
/// is the destination port.
fn a_connection_counts_for_its_ends_inside_and_the_destination_port<A: Modelled>() {
    check(
        300,
        (packet_spec(), opening(), any::<(u16, u16)>()),
        |(spec, payload, ports)| {
            let spec = PacketSpec {
                payload,
                ports,
                ..spec
            };
            let accounting = accounting::<A>(Internal::Any, ALL, ROOMY);
            let inside = [spec.from < 4, spec.to < 4].map(u64::from);
            assert_eq!(
                accounting.count(0, START, Bytes(&spec.packet::<A>())),
                inside != [0, 0]
            );

            let (column, port) = match spec.payload {
                Payload::Tcp { .. } => (0, ports.1),
                Payload::Udp => (1, ports.1),
                _ => (3, 0),
            };
            let mut expected = vec![inside[0], inside[1], 0, 0, 0, 0, 0, 0, 0, 0];
            expected[2 + 2 * column..][..2].copy_from_slice(&inside);
            let [_, ipconn, portconn] = accounting.texts().map(Option::unwrap);
            assert_eq!(sums(&ipconn)[..10], expected);
            if inside != [0, 0] {
                assert_eq!(cells(&portconn), [(&*port.to_string(), expected)]);
            }
            for (label, numbers) in cells(&ipconn) {
                let is = |number: u8| u64::from(label == host::<A>(number).ip().to_string());
                assert_eq!(
                    numbers[..2],
                    [is(spec.from) * inside[0], is(spec.to) * inside[1]],
                    "{label}"
                );
            }
        },
    );
}
for_both_families!(a_connection_counts_for_its_ends_inside_and_the_destination_port);

/// With few sets, flows are forgotten before they expire. The number of connections that are
/// counted twice is at most the number of forgotten flows.
#[test]
fn forgotten_flows_are_counted() {
    check(60, (vec(0..40u16, 1..200), 0..3u32), |(ports, sets)| {
        let accounting = accounting::<u32>(
            Internal::Any,
            CONNECTIONS,
            Sizes {
                flow_sets: 1 << sets,
                ..ROOMY
            },
        );
        let packet = |port: &u16| between(Payload::Udp, (*port, 53)).packet::<u32>();
        let started = ports
            .iter()
            .filter(|port| accounting.count(0, START, Bytes(&packet(port))))
            .count() as u64;
        let flows = ports.iter().collect::<BTreeSet<_>>().len() as u64;
        assert!(started >= flows && started - flows <= accounting.forgotten());
        // Only flows that were stored can be forgotten. A set holds four of them.
        assert!(accounting.forgotten() + 4 * (1 << sets) >= started);
        assert!(accounting.forgotten() <= started.saturating_sub(4));
    });
}

/// A model of a set of four flows.
#[derive(Default)]
struct FlowSet {
    /// The time at which each flow expires, by its source port.
    ends: BTreeMap<u16, Ticks>,
    forgotten: u64,
}

impl FlowSet {
    /// Stores a datagram from `port`. Returns whether it is the first one of its flow.
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

/// Forgets a flow only if all four are alive.
#[test]
fn the_flow_that_expires_first_is_forgotten() {
    let end = 30 * CLOCK.ticks_per_second;
    // No two packets at the same time: their flows would expire at the same time, and either could
    // be forgotten.
    let gap = prop_oneof![1..4u64, end - 8..end + 2, Just(10 * CLOCK.ticks_per_second)];
    check(200, vec((gap, 0..7u16), 1..60), |packets| {
        let accounting = accounting::<u32>(
            Internal::Any,
            CONNECTIONS,
            Sizes {
                flow_sets: 1,
                ..ROOMY
            },
        );
        let (mut now, mut set) = (START, FlowSet::default());
        for (gap, port) in packets {
            now += gap;
            let packet = between(Payload::Udp, (port, 53)).packet::<u32>();
            assert_eq!(
                accounting.count(0, now, Bytes(&packet)),
                set.is_first(port, now),
                "port {port}"
            );
            assert_eq!(accounting.forgotten(), set.forgotten);
        }
    });
}
