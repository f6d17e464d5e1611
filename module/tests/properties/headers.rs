// SPDX-License-Identifier: GPL-2.0

//! Packets that are cut short, in fragments, behind options and extension headers, and in pieces.

use crate::{
    comparison::{
        machine::{Machine, Pieces, ALL, ROOMY, START},
        Arrival, Modelled, Scenario,
    },
    support::check,
    traffic::{host, network, sent, sums, Sent},
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use traffic_model::frames::{Extension, Ip, ICMP, ICMPV6, SYN, TCP, UDP};
use xt_traffic_accounting::{
    accounting::network::{Internal, Network},
    host::Heap,
};

/// The sums of bytes and connections of one packet, of which `linear` bytes behind the header lie at hand.
fn outcome<A: Modelled>(packet: &[u8], linear: usize) -> [Vec<u64>; 2] {
    let network = Network::new(host::<A>(0), A::mask(network::<A>()), Internal::Any).unwrap();
    let machine = Machine::new(network, ALL, ROOMY, 1, &Heap::ENDLESS);
    assert!(machine.count(
        0,
        START,
        Pieces {
            bytes: packet,
            linear: A::HEADER + linear
        }
    ));
    let [traffic, ipconn, _] = machine.texts().map(Option::unwrap);
    [sums(&traffic), sums(&ipconn)]
}

/// The columns of a packet's bytes and of the connection that it started, if it did, from the first to the second host.
fn columns<A: Modelled>(packet: &[u8], linear: usize) -> (usize, Option<usize>) {
    let [traffic, ipconn] = outcome::<A>(packet, linear);
    let bytes = packet.len() as u64;
    assert_eq!(traffic[..2], [bytes, bytes]);
    let column = |sums: &[u64]| sums[2..].chunks(2).position(|pair| pair[0] != 0);
    (column(&traffic).expect("there were bytes"), column(&ipconn))
}

fn ip<A: Modelled>() -> Ip {
    Ip::new(host::<A>(1).ip(), host::<A>(2).ip())
}

/// A transport protocol: its number, what opens a connection, the size of its header, and its columns.
fn transport<A: Modelled>(kind: usize) -> (u8, Vec<u8>, usize, (usize, usize)) {
    let ip = ip::<A>();
    let data = [0xa5; 12];
    let (number, request) = if A::BITS == 32 {
        (ICMP, 8)
    } else {
        (ICMPV6, 128)
    };
    match kind {
        0 => (TCP, ip.segment((1, 2), 3, SYN, &data), 20, (0, 0)),
        1 => (UDP, ip.datagram((1, 2), &data), 8, (1, 1)),
        2 => (number, ip.message(request, [0; 4], &data), 8, (2, 2)),
        _ => (47, data.to_vec(), 0, (2, 3)),
    }
}

fn cut_short<A: Modelled>() {
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

/// It has its bytes all the same.
#[test]
fn a_header_that_is_cut_short_starts_nothing() {
    cut_short::<u32>();
    cut_short::<u128>();
}

fn fragmented<A: Modelled>() {
    let offset = prop_oneof![Just(0), (0..13u32).prop_map(|bit| 1 << bit), 0..=0x1fffu16];
    check(
        300,
        (0..4usize, offset, any::<bool>()),
        |(kind, offset, more)| {
            let (number, payload, _, (bytes, connection)) = transport::<A>(kind);
            let packet = ip::<A>().fragment_at(offset, more, number, &payload);
            let starts = offset == 0 || kind == 3;
            assert_eq!(
                columns::<A>(&packet, 0),
                (bytes, starts.then_some(connection))
            );
        },
    );
}

/// It counts under the protocol in its header. Packets of OTHER protocols are packets, in fragments or not.
#[test]
fn a_later_fragment_starts_nothing() {
    fragmented::<u32>();
    fragmented::<u128>();
}

#[test]
fn options_are_passed() {
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

/// Up to 16 of them, in any order. The seventeenth is what the packet is taken for: OTHER.
#[test]
fn extension_headers_are_passed() {
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

/// A chain that is cut anywhere. The packet is OTHER when the cut is in an extension header, and else
/// the transport header is not whole.
#[test]
fn a_chain_that_is_cut_short() {
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

fn in_pieces<A: Modelled>() {
    check(
        150,
        (sent(), option::of(0..40usize), 0..100usize),
        |(sent, cut, linear)| {
            let mut packet = Sent {
                from: 0,
                to: 1,
                ..sent
            }
            .packet::<A>();
            packet.truncate(A::HEADER + cut.unwrap_or(packet.len()));
            assert_eq!(outcome::<A>(&packet, linear), outcome::<A>(&packet, 200));
        },
    );
}

/// How much of a packet lies at hand changes nothing.
#[test]
fn a_packet_may_be_in_pieces() {
    in_pieces::<u32>();
    in_pieces::<u128>();
}

fn broken<A: Modelled>() {
    let arrival = (
        sent(),
        any::<prop::sample::Index>(),
        select(vec![1, 2, 4, 0x10, 0x80]),
        0..60usize,
    );
    check(200, vec(arrival, 1..10), |packets| {
        let arrivals = packets.into_iter().map(|(sent, place, change, padding)| {
            let mut bytes = sent.packet::<A>();
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
            internal,
            counts: ALL,
            buckets: 1,
            cpus: 1,
            arrivals,
        }
        .check();
    });
}

/// One bit is wrong, and there is padding: the model says what is left of it.
#[test]
fn broken_packets() {
    broken::<u32>();
    broken::<u128>();
}
