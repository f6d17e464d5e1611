// SPDX-License-Identifier: GPL-2.0-only
//! Which frames are counted, with how many bytes and under which protocol.

use etherparse::IpNumber;

use super::*;
use crate::frames::{
    ALICE, BOB, BROADCAST, DOT1AD, DOT1Q, Ethernet, Extension, GRE, IPV4, IPV6, fix_checksum, gre, padded, sctp,
};

fn ping() -> Vec<u8> {
    Ip::new(A, FAR).ping(1, b"12345678")
}

/// A builder from inside to outside.
fn ipv6(extensions: &[Extension]) -> Ip {
    Ip { extensions: extensions.to_vec(), ..Ip::new(A6, FAR6) }
}

/// A frame from Alice to Bob. Its EtherType need not match the version field of the packet.
fn to_bob(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    Ethernet::new(ALICE, BOB).wrap(ethertype, packet)
}

#[test]
fn destination_address_and_ethertype_of_the_frame() {
    assert!(counted(mirrored(&ping())));
    assert!(!counted(Ethernet::new(ALICE, PORT).wrap(IPV4, &ping())));
    assert!(!counted(Ethernet::new(ALICE, BROADCAST).wrap(IPV4, &ping())));
    assert!(!counted(to_bob(0x0801, &ping())));
    assert!(!counted(to_bob(IPV6, &ping())));
    let six = ipv6(&[]).packet(59, b"");
    assert!(counted(mirrored(&six)));
    assert!(!counted(Ethernet::new(ALICE, PORT).wrap(IPV6, &six)));
    assert!(!counted(Ethernet::new(ALICE, [0x33, 0x33, 0, 0, 0, 1]).wrap(IPV6, &six)));
    assert!(!counted(to_bob(IPV4, &six)));
}

#[test]
fn vlan_tags() {
    for kind in [DOT1Q, DOT1AD] {
        for (ethertype, packet) in [(IPV4, ping()), (IPV6, ipv6(&[]).packet(59, b""))] {
            let to_port = Ethernet::new(ALICE, PORT);
            assert!(counted(to_port.clone().tag(kind, 5).wrap(ethertype, &packet)));
            assert!(!counted(to_port.clone().tag(kind, 0xe000).wrap(ethertype, &packet)));
            assert!(counted(to_port.clone().tag(kind, 0).tag(DOT1Q, 5).wrap(ethertype, &packet)));
            assert!(!counted(to_port.tag(kind, 5).tag(DOT1Q, 6).wrap(ethertype, &packet)));
            let to_other = Ethernet::new(ALICE, BOB);
            assert!(counted(to_other.clone().tag(kind, 0).wrap(ethertype, &packet)));
            assert!(!counted(to_other.tag(kind, 5).tag(DOT1Q, 0).wrap(ethertype, &packet)));
        }
    }
}

#[test]
fn bad_ipv4_headers() {
    let broken = |at: usize, value: u8| {
        let mut packet = ping();
        packet[at] = value;
        fix_checksum(&mut packet);
        to_bob(IPV4, &packet)
    };
    assert!(counted(broken(3, 36)), "the correct length");
    assert!(counted(broken(3, 20)), "shorter: the rest is padding");
    assert!(!counted(broken(3, 37)), "longer than the frame");
    assert!(!counted(broken(3, 19)), "shorter than the header");
    assert!(!counted(broken(0, 0x65)), "version");
    assert!(!counted(broken(0, 0x44)), "header length");
    let mut packet = ping();
    packet[10] ^= 1;
    assert!(!counted(mirrored(&packet)), "checksum");
    assert!(!counted(mirrored(&ping()[..35])), "truncated");
    assert!(!counted(vec![0; 13]));
}

#[test]
fn the_reserved_flag_is_not_an_error() {
    let evil = Ip { fragment: 0x8000, ..Ip::new(A, FAR) };
    assert!(counted(mirrored(&evil.ping(1, b""))));
}

#[test]
fn a_checksum_of_0_or_0xffff_is_valid() {
    // The identification is chosen so that the sum without the checksum is 0xffff.
    let mut packet = ping();
    fix_checksum(&mut packet);
    let sum = u16::from_be_bytes([packet[10], packet[11]]);
    packet[4..6].copy_from_slice(&sum.to_be_bytes());
    for zero in [[0, 0], [0xff, 0xff]] {
        packet[10..12].copy_from_slice(&zero);
        assert!(counted(mirrored(&packet)));
    }
}

#[test]
fn bad_ipv6_headers() {
    let packet = ipv6(&[]).udp((1, 2), b"12345678");
    let broken = |at: usize, value: u8| {
        let mut packet = packet.clone();
        packet[at] = value;
        to_bob(IPV6, &packet)
    };
    assert!(counted(broken(5, 16)), "the correct length");
    assert!(counted(broken(5, 0)), "shorter: the rest is padding");
    assert!(!counted(broken(5, 17)), "longer than the frame");
    assert!(!counted(broken(0, 0x45)), "version");
    assert!(counted(broken(0, 0x6f)), "traffic class");
    assert!(!counted(mirrored(&packet[..55])), "truncated");
    assert!(!counted(mirrored(&packet[..39])), "shorter than a header");
    assert!(counted(mirrored(&ipv6(&[]).packet(59, b""))), "a header without payload");
}

/// IPv6 receive would refuse these packets for their addresses or options; the hook comes before.
#[test]
fn the_hook_is_less_strict_than_ipv6_receive() {
    let many = [Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED, "ff02::1".parse().unwrap(), "ff00::1".parse().unwrap()];
    for odd in many {
        assert!(counted(mirrored(&Ip::new(odd, A6).udp((1, 2), b""))), "from {odd}");
        assert!(counted(mirrored(&Ip::new(A6, odd).udp((1, 2), b""))), "to {odd}");
    }
    // An unknown option with the action "discard", and an option longer than its header.
    for options in [vec![0xde, 0], vec![1, 200]] {
        assert!(counted(mirrored(&ipv6(&[Extension::HopByHop(options)]).packet(59, b""))));
    }
}

fn packet_in(frame: &[u8]) -> Packet<'_> {
    Packet::received(frame, Port::Plain(PORT)).expect("a packet")
}

#[test]
fn padding_is_not_counted() {
    assert_eq!(packet_in(&padded(mirrored(&Ip::new(A, B).udp((1, 2), b"")))).bytes, 28);
    assert_eq!(packet_in(&[mirrored(&ipv6(&[]).udp((1, 2), b"")), vec![0; 9]].concat()).bytes, 48);
    let with_options = ipv6(&[Extension::HopByHop(vec![])]).packet(UDP, &[1, 2, 3]);
    assert_eq!(packet_in(&[mirrored(&with_options), vec![0; 9]].concat()).bytes, 51);
}

/// A packet whose payload length is 0, with options and `padding` bytes behind `length`.
fn jumbo(options: &[u8], length: usize, padding: usize) -> Vec<u8> {
    let extension = Extension::HopByHop(options.to_vec());
    let mut packet = ipv6(&[extension]).packet(UDP, &vec![7; length]);
    packet[4..6].fill(0);
    [mirrored(&packet), vec![0; padding]].concat()
}

#[test]
fn a_payload_length_of_0_needs_a_jumbo_option() {
    let option = |length: u32| [&[0xc2, 4][..], &length.to_be_bytes()].concat();
    let frame = jumbo(&option(70_000), 70_000 - 8, 9);
    let packet = packet_in(&frame);
    assert_eq!((packet.bytes, packet.protocol, packet.payload.len()), (70_040, UDP, 70_000 - 8));
    let refused = |options: &[u8], length| assert!(!counted(jumbo(options, length, 0)), "{options:?}");
    refused(&[], 70_000);
    refused(&option(70_001), 70_000 - 8);
    refused(&option(0x1_0000 - 1), 70_000);
    refused(&option(16), 8);
    // Its length is not 4.
    refused(&[0xc2, 3, 1, 0, 0, 0], 70_000);
    // Behind an option that is longer than the header.
    refused(&[1, 200, 0xc2, 4, 0, 1, 0, 0], 70_000);
}

const UDP: u8 = IpNumber::UDP.0;

/// Parses a packet with extension headers: protocol, whether it is a later fragment, payload.
fn behind(extensions: &[Extension], protocol: u8, payload: &[u8]) -> (u8, bool, Vec<u8>) {
    let frame = mirrored(&ipv6(extensions).packet(protocol, payload));
    let packet = packet_in(&frame);
    assert_eq!(packet.bytes, frame.len() as u64 - 14);
    (packet.protocol, packet.later_fragment, packet.payload.to_vec())
}

#[test]
fn extension_headers_are_parsed_in_any_order() {
    let all = [
        Extension::Destination(vec![0; 30]),
        Extension::Authentication(vec![0; 16]),
        Extension::Authentication(vec![0; 12]),
        Extension::Authentication(vec![]),
        Extension::ATOMIC,
        Extension::Fragment(0, true, 1),
        Extension::Routing(vec![0, 1]),
        Extension::HopByHop(vec![]),
    ];
    assert_eq!(behind(&all, UDP, b"payload"), (UDP, false, b"payload".to_vec()));
    for end in [50, 59, 135, 139, 140, 253, 255] {
        assert_eq!(behind(&all, end, b"end"), (end, false, b"end".to_vec()));
    }
}

#[test]
fn sixteen_extension_headers_are_parsed() {
    let chain = |count: usize| vec![Extension::Destination(vec![]); count];
    assert_eq!(behind(&chain(16), UDP, b"x"), (UDP, false, b"x".to_vec()));
    assert_eq!(behind(&chain(17), UDP, b"x").0, 60);
    // The next one is not parsed, even if it is a fragment header.
    let fragment = [chain(16), vec![Extension::Fragment(1, false, 0)]].concat();
    assert_eq!(behind(&fragment, UDP, b"x").0, 44);
    assert!(!behind(&fragment, UDP, b"x").1);
}

#[test]
fn incomplete_extension_headers_end_the_chain() {
    for number in [0, 43, 44, 51, 60] {
        let incomplete: &[&[u8]] = &[&[], &[UDP], &[UDP, 0, 0, 0, 0, 0, 0]];
        for payload in incomplete {
            assert_eq!(behind(&[Extension::ATOMIC], number, payload), (number, false, payload.to_vec()));
        }
    }
    // The header has eight bytes, but its length field has a larger value.
    for number in [0, 43, 51, 60] {
        let payload = [UDP, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(behind(&[Extension::ATOMIC], number, &payload).0, number);
    }
    // In a fragment header this byte is reserved.
    assert_eq!(behind(&[], 44, &[UDP, 1, 0, 0, 0, 0, 0, 0]), (UDP, false, vec![]));
    // Bytes after the payload length are padding, not a part of a header.
    let mut short = ipv6(&[Extension::Destination(vec![])]).packet(UDP, b"");
    short[5] = 7;
    assert_eq!(packet_in(&mirrored(&short)).protocol, 60);
}

#[test]
fn a_later_fragment_ends_the_chain() {
    let later = Extension::Fragment(1, true, 7);
    assert_eq!(behind(std::slice::from_ref(&later), UDP, b"x"), (UDP, true, b"x".to_vec()));
    let (protocol, later_fragment, _) = behind(&[later, Extension::Destination(vec![])], UDP, b"x");
    assert_eq!((protocol, later_fragment), (60, true));
}

#[test]
fn ipv4_has_no_extension_headers() {
    for protocol in [0, 43, 44, 47, 50, 51, 58, 60, 132] {
        let frame = mirrored(&Ip::new(A, B).packet(protocol, &Extension::ATOMIC.bytes(UDP)));
        assert_eq!(packet_in(&frame).protocol, protocol);
    }
    let frame = mirrored(&Ip::new(A, B).packet(GRE, &gre(IPV4, &sctp((1, 2), 3, b""))));
    assert_eq!(packet_in(&frame).bytes, 20 + 4 + 12);
}
