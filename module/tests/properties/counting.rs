// SPDX-License-Identifier: GPL-2.0

//! What is counted: for whom, in which direction, and how many bytes.

use crate::{
    comparison::{
        machine::{Machine, ALL, ROOMY, START},
        Modelled, Scenario,
    },
    support::check,
    traffic::{cells, host, internal, scenario, sent, sums, Sent},
};
use proptest::prelude::*;
use traffic_model::frames::Ip;
use xt_traffic_accounting::{
    accounting::network::{Internal, Network},
    host::{Bytes, Heap},
};

/// Is a packet between two that are inside or not counted?
fn counts(internal: Internal, source: bool, destination: bool) -> bool {
    match internal {
        Internal::Any => source || destination,
        Internal::Exclude => source != destination,
        Internal::Only => source && destination,
    }
}

/// The row of an address in a text, all zero if it has none.
fn row_of(text: &str, address: &str) -> Vec<u64> {
    let columns = sums(text).len() + 1;
    cells(text)
        .into_iter()
        .find(|(label, _)| *label == address)
        .map_or(vec![0; columns], |(_, numbers)| numbers)
}

/// An address that is anywhere, or at the first or the last of the network, or just outside.
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

fn membership<A: Modelled>(narrow: impl Fn(u128) -> A + Copy) {
    let kinds = (0..6u8, 0..6u8, any::<(u128, u128)>());
    check(
        600,
        (any::<u128>(), 0..=A::BITS, internal(), kinds),
        |(base, length, internal, (from, to, any))| {
            // The bits of the family are the lowest.
            let all = u128::MAX >> (128 - A::BITS);
            let hosts = all.checked_shr(length).unwrap_or(0);
            let (first, last) = (base & all & !hosts, base & all | hosts);
            let (from, to) = (
                address(from, any.0, first, last) & all,
                address(to, any.1, first, last) & all,
            );
            let inside = [from, to].map(|address| first <= address && address <= last);

            let network = Network::new(narrow(first), A::mask(length), internal).unwrap();
            let ends = network.ends(narrow(from), narrow(to));
            let expected = counts(internal, inside[0], inside[1]).then_some((inside[0], inside[1]));
            assert_eq!(
                ends.map(|ends| (ends.source(), ends.destination())),
                expected
            );
        },
    );
}

/// Inside is from the first to the last address, whatever the network's size.
#[test]
fn a_network_is_a_range_of_addresses() {
    membership::<u32>(|address| address as u32);
    membership::<u128>(|address| address);
}

fn one_packet<A: Modelled>() {
    check(400, (sent(), internal()), |(sent, internal)| {
        let (source, destination) = (host::<A>(sent.from), host::<A>(sent.to));
        let inside = [sent.from < 4, sent.to < 4];
        let network = Network::new(host(0), A::mask(A::BITS - 2), internal).unwrap();
        let machine = Machine::new(network, ALL, ROOMY, 1, &Heap::ENDLESS);
        let packet = sent.packet::<A>();
        let counted = machine.count(0, START, Bytes(&packet));
        assert_eq!(counted, counts(internal, inside[0], inside[1]));

        let [traffic, ..] = machine.texts().map(Option::unwrap);
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
        assert_eq!(sums(&traffic)[..2], [out, into], "and nobody else");
    });
}

/// Its bytes are out of the sender and in to the receiver, each if it is inside.
#[test]
fn one_packet_counts_at_its_ends() {
    one_packet::<u32>();
    one_packet::<u128>();
}

fn protocols<A: Modelled>(extensions: &'static [u8]) {
    check(256, (any::<u8>(), 0..2000usize), |(protocol, size)| {
        if extensions.contains(&protocol) {
            return;
        }
        let packet = Ip::new(host::<A>(1).ip(), host::<A>(2).ip()).packet(protocol, &vec![0; size]);
        let network = Network::new(host::<A>(0), A::mask(8), Internal::Any).unwrap();
        let machine = Machine::new(network, ALL, ROOMY, 1, &Heap::ENDLESS);
        assert!(machine.count(0, START, Bytes(&packet)));
        let [traffic, ..] = machine.texts().map(Option::unwrap);
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

/// TCP is 6, UDP 17, everything else OTHER; the bytes are those of the header and of all behind it.
#[test]
fn every_protocol_has_its_column() {
    protocols::<u32>(&[]);
    protocols::<u128>(&[0, 43, 44, 51, 60]);
}

fn totals<A: Modelled>() {
    check(60, scenario::<A>(60), |scenario: Scenario<A>| {
        scenario.check();
        let outcome = scenario.run(&Heap::ENDLESS);
        let [traffic, ipconn, portconn] = outcome.texts.map(Option::unwrap);
        let bytes = sums(&traffic);
        assert!(bytes[0].max(bytes[1]) <= outcome.bytes && outcome.bytes <= bytes[0] + bytes[1]);
        // Whatever has an end inside counts there; what has two of them counts at both.
        if scenario.internal == Internal::Only {
            assert_eq!(bytes[..2], [outcome.bytes; 2]);
        } else if scenario.internal == Internal::Exclude {
            assert_eq!(bytes[0] + bytes[1], outcome.bytes);
        }
        assert_eq!(
            sums(&ipconn),
            sums(&portconn),
            "connections are the same by address and by port"
        );
    });
}

/// The rule's own counters are the total; TOTAL is the sum of its parts (see [`sums`]).
#[test]
fn the_sums_are_right() {
    totals::<u32>();
    totals::<u128>();
}

/// A packet between hosts outside leaves no trace, not even of its flow.
#[test]
fn what_is_not_accounted_for_is_not_remembered() {
    check(100, sent(), |sent| {
        let network = Network::new(host(0), u32::mask(30), Internal::Any).unwrap();
        let machine = Machine::new(network, ALL, ROOMY, 1, &Heap::ENDLESS);
        let outside = Sent {
            from: 4,
            to: 5,
            ..sent
        };
        assert!(!machine.count(0, START, Bytes(&outside.packet::<u32>())));
        assert_eq!(machine.remembered(), 0);
    });
}
