// SPDX-License-Identifier: GPL-2.0

//! Properties of byte counts: for which addresses, in which direction, and how many bytes.

use crate::{
    comparison::{
        accounting::{ALL, ROOMY, START},
        Modelled, Scenario,
    },
    support::{check, for_both_families},
    traffic::{accounting, cells, host, internal, packet_spec, scenario, sums, PacketSpec},
};
use proptest::prelude::*;
use traffic_model::frames::Ip;
use xt_traffic_accounting::{
    accounting::network::{Internal, Network},
    host::Bytes,
};

/// Returns whether a packet is counted, given whether its source and its destination are inside.
fn is_counted(internal: Internal, source: bool, destination: bool) -> bool {
    match internal {
        Internal::Any => source || destination,
        Internal::Exclude => source != destination,
        Internal::Only => source && destination,
    }
}

/// The numbers in the row of an address: zeros if it has none.
fn row_of(text: &str, address: &str) -> Vec<u64> {
    let columns = sums(text).len() + 1;
    cells(text)
        .into_iter()
        .find(|(label, _)| *label == address)
        .map_or(vec![0; columns], |(_, numbers)| numbers)
}

/// An address at or next to the first or the last one of a network, inside the network, or
/// anywhere.
fn address(kind: u8, any: u128, first: u128, last: u128) -> u128 {
    match kind {
        0 => first,
        1 => last,
        2 => first.wrapping_sub(1),
        3 => last.wrapping_add(1),
        4 => first | any & (last ^ first),
        _ => any,
    }
}

/// An address is inside if it lies between the first and the last address.
fn a_network_is_a_range_of_addresses<A: Modelled>() {
    let kinds = (0..6u8, 0..6u8, any::<(u128, u128)>());
    check(
        600,
        (any::<u128>(), 0..=A::BITS, internal(), kinds),
        |(base, length, internal, (from, to, any))| {
            // IPv4 addresses are the lowest 32 bits.
            let all = u128::MAX >> (128 - A::BITS);
            let hosts = all.checked_shr(length).unwrap_or(0);
            let (first, last) = (base & all & !hosts, base & all | hosts);
            let (from, to) = (
                address(from, any.0, first, last) & all,
                address(to, any.1, first, last) & all,
            );
            let inside = [from, to].map(|address| first <= address && address <= last);

            let narrow = |address: u128| A::address((address << (128 - A::BITS)).to_be_bytes());
            let network = Network::new(narrow(first), A::mask(length), internal).unwrap();
            let ends = network.ends(narrow(from), narrow(to));
            let expected =
                is_counted(internal, inside[0], inside[1]).then_some((inside[0], inside[1]));
            assert_eq!(
                ends.map(|ends| (ends.source(), ends.destination())),
                expected
            );
        },
    );
}
for_both_families!(a_network_is_a_range_of_addresses);

/// Its bytes are outgoing for the source and incoming for the destination, each if it is inside.
fn a_packet_counts_for_its_ends_inside<A: Modelled>() {
    check(400, (packet_spec(), internal()), |(spec, internal)| {
        let (source, destination) = (host::<A>(spec.from), host::<A>(spec.to));
        let inside = [spec.from < 4, spec.to < 4];
        let accounting = accounting::<A>(internal, ALL, ROOMY);
        let packet = spec.packet::<A>();
        let counted = accounting.count(0, START, Bytes(&packet));
        assert_eq!(counted, is_counted(internal, inside[0], inside[1]));

        let [traffic, ..] = accounting.texts().map(Option::unwrap);
        let bytes = packet.len() as u64;
        let out = if counted && inside[0] { bytes } else { 0 };
        let into = if counted && inside[1] { bytes } else { 0 };
        if source == destination {
            assert_eq!(row_of(&traffic, &source.ip().to_string())[..2], [out, into]);
        } else {
            assert_eq!(row_of(&traffic, &source.ip().to_string())[..2], [out, 0]);
            assert_eq!(
                row_of(&traffic, &destination.ip().to_string())[..2],
                [0, into]
            );
        }
        assert_eq!(
            sums(&traffic)[..2],
            [out, into],
            "other addresses have rows"
        );
    });
}
for_both_families!(a_packet_counts_for_its_ends_inside);

/// TCP is protocol 6 and UDP 17. All others are OTHER. The bytes include the IP header.
fn every_protocol_counts_in_its_column<A: Modelled>() {
    check(256, (any::<u8>(), 0..2000usize), |(protocol, size)| {
        // IPv6 extension headers.
        if A::BITS == 128 && [0, 43, 44, 51, 60].contains(&protocol) {
            return;
        }
        let packet = Ip::new(host::<A>(1).ip(), host::<A>(2).ip()).packet(protocol, &vec![0; size]);
        let accounting = accounting::<A>(Internal::Any, ALL, ROOMY);
        assert!(accounting.count(0, START, Bytes(&packet)));
        let [traffic, ..] = accounting.texts().map(Option::unwrap);
        let bytes = (A::HEADER + size) as u64;
        let column = [6, 17]
            .iter()
            .position(|known| *known == protocol)
            .unwrap_or(2);
        let mut expected = vec![bytes, bytes, 0, 0, 0, 0, 0, 0];
        expected[2 + 2 * column..][..2].fill(bytes);
        assert_eq!(sums(&traffic)[..8], expected);
    });
}
for_both_families!(every_protocol_counts_in_its_column);

/// The sums over all rows agree with the counters of the rule, and each TOTAL is the sum of its
/// columns (see [`sums`]).
fn sums_over_all_rows_agree_with_the_rule<A: Modelled>() {
    check(60, scenario::<A>(60), |scenario: Scenario<A>| {
        scenario.check();
        let outcome = scenario.run();
        let [traffic, ipconn, portconn] = outcome.texts.map(Option::unwrap);
        let bytes = sums(&traffic);
        assert!(bytes[0].max(bytes[1]) <= outcome.bytes && outcome.bytes <= bytes[0] + bytes[1]);
        // A packet with both ends inside is counted twice.
        if scenario.internal == Internal::Only {
            assert_eq!(bytes[..2], [outcome.bytes; 2]);
        } else if scenario.internal == Internal::Exclude {
            assert_eq!(bytes[0] + bytes[1], outcome.bytes);
        }
        assert_eq!(
            sums(&ipconn),
            sums(&portconn),
            "connections by address and by port differ"
        );
    });
}
for_both_families!(sums_over_all_rows_agree_with_the_rule);

/// Neither its bytes nor its flow are stored.
#[test]
fn a_packet_between_hosts_outside_is_not_stored() {
    check(100, packet_spec(), |spec| {
        let accounting = accounting::<u32>(Internal::Any, ALL, ROOMY);
        let outside = PacketSpec {
            from: 4,
            to: 5,
            ..spec
        };
        assert!(!accounting.count(0, START, Bytes(&outside.packet::<u32>())));
        assert_eq!(accounting.flow_memory(), 0);
    });
}
