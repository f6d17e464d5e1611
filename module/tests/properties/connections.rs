// SPDX-License-Identifier: GPL-2.0

//! Properties of connections: which packets start one, and where it is counted.

use crate::{
    comparison::{
        accounting::{Accounting, ALL, CLOCK, ROOMY, START},
        Modelled,
    },
    support::{check, for_both_families},
    traffic::{
        accounting, cells, gap, host, network, opening, packet_spec, sums, PacketSpec, Payload,
    },
};
use proptest::{collection::vec, prelude::*, sample::select};
use std::collections::{BTreeMap, BTreeSet};
use traffic_model::frames::{Ip, ACK, FIN, RST, SYN};
use xt_traffic_accounting::{
    accounting::{flow::Ticks, network::Internal, params::Counts},
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
        [8, 13, 15, 17, 42].contains(&kind)
    } else {
        [128, 160].contains(&kind)
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
        select(vec![8, 13, 15, 17, 0, 42, 128, 129, 160]).prop_map(|kind| Payload::Icmp { kind }),
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

/// An empty table that remembers at most `limit` flows of each kind.
fn with_flows(limit: u32) -> Accounting<u32> {
    Accounting::with_flows(network(Internal::Any), CONNECTIONS, ROOMY, 1, limit)
}

/// With few sets, flows are forgotten before they expire. The number of connections that are
/// counted twice is at most the number of forgotten flows.
#[test]
fn forgotten_flows_are_counted() {
    check(60, (vec(0..40u16, 1..200), 0..3u32), |(ports, sets)| {
        let accounting = with_flows(8 << sets);
        let packet = |port: &u16| between(Payload::Udp, (*port, 53)).packet::<u32>();
        let started = ports
            .iter()
            .filter(|port| accounting.count(0, START, Bytes(&packet(port))))
            .count() as u64;
        let flows = ports.iter().collect::<BTreeSet<_>>().len() as u64;
        assert!(started >= flows && started - flows <= accounting.forgotten());
        // Only flows that were stored can be forgotten. Eight flows have three sets of four places.
        assert!(accounting.forgotten() + 12 * (1 << sets) >= started);
        assert!(accounting.forgotten() <= started.saturating_sub(4));
    });
}

/// A model of a set of four flows.
#[derive(Default)]
struct FlowSet {
    /// By the source port of each flow: whether it had a second packet, and when it expires.
    flows: BTreeMap<u16, (bool, Ticks)>,
    forgotten: u64,
}

impl FlowSet {
    /// Stores a datagram from `port`. Returns whether it is the first one of its flow.
    fn is_first(&mut self, port: u16, now: Ticks) -> bool {
        self.flows.retain(|_, (_, end)| *end > now);
        let first = !self.flows.contains_key(&port);
        let next = self.flows.iter().min_by_key(|(_, flow)| **flow);
        let next = next.map(|(port, _)| *port);
        if let (true, 4, Some(next)) = (first, self.flows.len(), next) {
            self.flows.remove(&next);
            self.forgotten += 1;
        }
        let end = now + 30 * CLOCK.ticks_per_second;
        self.flows.insert(port, (!first, end));
        first
    }
}

/// Forgets a flow only if all four are alive: first one with a single packet, then the one that
/// expires first.
#[test]
fn flows_are_forgotten_in_order() {
    let end = 30 * CLOCK.ticks_per_second;
    // No two packets at the same time: their flows would expire at the same time, and either could
    // be forgotten.
    let gap = prop_oneof![1..4u64, end - 8..end + 2, Just(10 * CLOCK.ticks_per_second)];
    check(200, vec((gap, 0..7u16), 1..60), |packets| {
        let accounting = with_flows(1);
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

/// A SYN to port 80 of host 1, with a number that distinguishes it from others.
fn syn(number: u32) -> Vec<u8> {
    let from = [192, 0, 2, (number >> 16) as u8];
    Ip::new(from, host_1()).tcp((number as u16, 80), number, SYN, b"")
}

fn host_1() -> [u8; 4] {
    host::<u32>(1).to_be_bytes()
}

/// A datagram of a tunnel between host 1 and an outside address, in the direction of its turn.
fn tunnel(turn: u64) -> Vec<u8> {
    let (inside, outside) = (
        Ip::new(host_1(), [192, 0, 2, 255]),
        Ip::new([192, 0, 2, 255], host_1()),
    );
    match turn % 2 {
        0 => inside.udp((4500, 4500), b"data"),
        _ => outside.udp((4500, 4500), b"data"),
    }
}

/// New TCP connections, each of which repeats its SYN after a second, are all counted, and do not
/// replace a UDP flow with a packet each 20 seconds.
#[test]
fn a_busy_server_disturbs_no_other_flow() {
    for (rate, seconds) in [(333, 280), (833, 280), (2000, 600)] {
        let accounting = with_flows(1_000_000);
        let count = |second: u32, packet: &[u8]| {
            let now = START + u64::from(second) * CLOCK.ticks_per_second;
            u32::from(accounting.count(0, now, Bytes(packet)))
        };
        let (mut connections, mut tunnels) = (0, 0);
        for second in 0..seconds {
            let syns = |second| (second * rate..(second + 1) * rate).map(syn);
            connections += syns(second)
                .map(|packet| count(second, &packet))
                .sum::<u32>();
            if let Some(before) = second.checked_sub(1) {
                let repeated = syns(before)
                    .map(|packet| count(second, &packet))
                    .sum::<u32>();
                assert_eq!(repeated, 0);
            }
            if second % 20 == 0 {
                tunnels += count(second, &tunnel(u64::from(second / 20)));
            }
        }
        assert_eq!(
            (connections, tunnels),
            (seconds * rate, 1),
            "{rate} a second"
        );
        assert_eq!(accounting.forgotten(), 0, "{rate} a second");
    }
}

/// A flood of SYNs that never repeat fills the memory for SYNs alone.
#[test]
fn a_syn_flood_replaces_no_udp_flow() {
    let accounting = with_flows(10_000);
    let is_counted = |packet: &[u8]| accounting.count(0, START, Bytes(packet));
    assert!(is_counted(&tunnel(0)));
    assert!((0..400_000).all(|number| is_counted(&syn(number))));
    assert!(!is_counted(&tunnel(1)));
    assert!(accounting.forgotten() > 380_000);
    assert!(
        accounting.flow_memory() < 400_000,
        "{}",
        accounting.flow_memory()
    );
}
