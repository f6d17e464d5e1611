// SPDX-License-Identifier: GPL-2.0

//! Properties of header parsing: truncated packets, fragments, options, extension headers, and
//! packets that are not linear.

use crate::{
    comparison::{
        accounting::{Nonlinear, ALL, ROOMY, START},
        Arrival, Modelled, Scenario,
    },
    support::{check, for_both_families},
    traffic::{accounting, host, packet_spec, sums, PacketSpec},
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use traffic_model::frames::{Extension, Ip, SYN, TCP, UDP};
use xt_traffic_accounting::accounting::network::Internal;

/// The sums of bytes and connections after one packet. `linear` bytes after its IP header are in
/// the linear area.
fn outcome<A: Modelled>(packet: &[u8], linear: usize) -> [Vec<u64>; 2] {
    let accounting = accounting::<A>(Internal::Any, ALL, ROOMY);
    assert!(accounting.count(
        0,
        START,
        Nonlinear {
            bytes: packet,
            linear: A::HEADER + linear
        }
    ));
    let [traffic, ipconn, _] = accounting.texts().map(Option::unwrap);
    [sums(&traffic), sums(&ipconn)]
}

/// The column of a packet's bytes, and the column of the connection if it started one. Both ends
/// are inside.
fn columns<A: Modelled>(packet: &[u8], linear: usize) -> (usize, Option<usize>) {
    let [traffic, ipconn] = outcome::<A>(packet, linear);
    let bytes = packet.len() as u64;
    assert_eq!(traffic[..2], [bytes, bytes]);
    let column = |sums: &[u64]| sums[2..].chunks(2).position(|pair| pair[0] != 0);
    (
        column(&traffic).expect("no bytes are counted"),
        column(&ipconn),
    )
}

fn ip<A: Modelled>() -> Ip {
    Ip::new(host::<A>(1).ip(), host::<A>(2).ip())
}

/// A transport protocol: its number, a payload that opens a connection, the size of its header in
/// bytes, and its columns in files of bytes and of connections.
fn transport<A: Modelled>(kind: usize) -> (u8, Vec<u8>, usize, (usize, usize)) {
    let ip = ip::<A>();
    let data = [0xa5; 12];
    let request = if A::BITS == 32 { 8 } else { 128 };
    match kind {
        0 => (TCP, ip.segment((1, 2), 3, SYN, &data), 20, (0, 0)),
        1 => (UDP, ip.datagram((1, 2), &data), 8, (1, 1)),
        2 => (
            ip.icmp_number(),
            ip.message(request, [0; 4], &data),
            8,
            (2, 2),
        ),
        _ => (47, data.to_vec(), 0, (2, 3)),
    }
}

/// Its bytes are counted nevertheless.
fn a_truncated_transport_header_starts_no_connection<A: Modelled>() {
    check(
        200,
        (0..4usize, 0..24usize, 0..60usize),
        |(kind, length, linear)| {
            let (number, payload, size, (bytes, connection)) = transport::<A>(kind);
            let length = length.min(payload.len());
            let packet = ip::<A>().packet(number, &payload[..length]);
            assert_eq!(
                columns::<A>(&packet, linear),
                (bytes, (length >= size).then_some(connection))
            );
        },
    );
}
for_both_families!(a_truncated_transport_header_starts_no_connection);

/// Its bytes count under the protocol in its header.
fn a_later_fragment_starts_no_connection<A: Modelled>() {
    let offset = prop_oneof![Just(0), (0..13u32).prop_map(|bit| 1 << bit), 0..=0x1fffu16];
    check(
        300,
        (0..4usize, offset, any::<bool>()),
        |(kind, offset, more)| {
            let (number, payload, _, (bytes, connection)) = transport::<A>(kind);
            let packet = ip::<A>().fragment_at(offset, more, number, &payload);
            assert_eq!(
                columns::<A>(&packet, 0),
                (bytes, (offset == 0).then_some(connection))
            );
        },
    );
}
for_both_families!(a_later_fragment_starts_no_connection);

#[test]
fn ipv4_options_are_skipped() {
    check(
        150,
        (0..4usize, vec(any::<u8>(), 0..=40), 0..80usize),
        |(kind, options, linear)| {
            let (number, payload, _, (bytes, connection)) = transport::<u32>(kind);
            let ip = Ip {
                options,
                ..ip::<u32>()
            };
            let packet = ip.packet(number, &payload);
            assert_eq!(columns::<u32>(&packet, linear), (bytes, Some(connection)));
        },
    );
}

fn extension() -> impl Strategy<Value = Extension> {
    let rest = || vec(any::<u8>(), 0..40);
    prop_oneof![
        rest().prop_map(Extension::HopByHop),
        rest().prop_map(Extension::Routing),
        rest().prop_map(Extension::Destination),
        rest().prop_map(Extension::Authentication),
        (any::<bool>(), any::<u32>()).prop_map(|(more, id)| Extension::Fragment(0, more, id)),
    ]
}

/// Up to 16 are skipped, in any order. With more, the packet counts as OTHER.
#[test]
fn extension_headers_are_skipped() {
    check(
        300,
        (0..4usize, vec(extension(), 0..18), 0..200usize),
        |(kind, chain, linear)| {
            let (number, payload, _, (bytes, connection)) = transport::<u128>(kind);
            let length = chain.len();
            let ip = Ip {
                extensions: chain,
                ..ip::<u128>()
            };
            let packet = ip.packet(number, &payload);
            let expected = if length > 16 {
                (2, Some(3))
            } else {
                (bytes, Some(connection))
            };
            assert_eq!(columns::<u128>(&packet, linear), expected);
        },
    );
}

/// If an extension header is truncated, the packet counts as OTHER. If the transport header is
/// truncated, the packet starts no connection.
#[test]
fn a_truncated_chain_counts_by_its_last_whole_header() {
    let all = (
        0..4usize,
        vec(extension(), 1..5),
        any::<prop::sample::Index>(),
    );
    check(300, all, |(kind, chain, cut)| {
        let (number, payload, size, (bytes, connection)) = transport::<u128>(kind);
        let extensions: usize = chain.iter().map(|header| header.bytes(0).len()).sum();
        let first = chain[0].number();
        let chained = Ip {
            extensions: chain,
            ..ip::<u128>()
        };
        let whole = chained.packet(number, &payload);
        let length = cut.index(extensions + payload.len() + 1);
        let packet = ip::<u128>().packet(first, &whole[40..40 + length]);
        let expected = match length.checked_sub(extensions) {
            None => (2, Some(3)),
            Some(left) => (bytes, (left >= size).then_some(connection)),
        };
        assert_eq!(columns::<u128>(&packet, 0), expected);
    });
}

fn the_length_of_the_linear_area_does_not_matter<A: Modelled>() {
    check(
        150,
        (packet_spec(), option::of(0..40usize), 0..100usize),
        |(spec, cut, linear)| {
            let mut packet = PacketSpec {
                from: 0,
                to: 1,
                ..spec
            }
            .packet::<A>();
            packet.truncate(A::HEADER + cut.unwrap_or(packet.len()));
            assert_eq!(outcome::<A>(&packet, linear), outcome::<A>(&packet, 200));
        },
    );
}
for_both_families!(the_length_of_the_linear_area_does_not_matter);

/// One bit of each packet is flipped, and padding is added.
fn broken_packets_count_as_in_the_model<A: Modelled>() {
    let arrival = (
        packet_spec(),
        any::<prop::sample::Index>(),
        select(vec![1, 2, 4, 0x10, 0x80]),
        0..60usize,
    );
    check(200, vec(arrival, 1..10), |packets| {
        let arrivals = packets.into_iter().map(|(spec, place, change, padding)| {
            let mut bytes = spec.packet::<A>();
            let place = place.index(bytes.len());
            bytes[place] ^= change;
            bytes.resize(bytes.len() + padding, 0);
            Arrival {
                gap: 0,
                cpu: 0,
                linear: 0,
                bytes,
            }
        });
        let arrivals = arrivals.collect();
        let (base, internal) = (A::address([0; 16]), Internal::Any);
        Scenario {
            base,
            length: 0,
            prefix: None,
            internal,
            counts: ALL,
            hash_size: 1,
            cpus: 1,
            arrivals,
        }
        .check();
    });
}
for_both_families!(broken_packets_count_as_in_the_model);
