// SPDX-License-Identifier: GPL-2.0
//! Which frames are accounted for, and with how many bytes under which protocol.

use etherparse::IpNumber;

use super::*;
use crate::frames::{
    ALICE, BOB, BROADCAST, DOT1AD, DOT1Q, Ethernet, Extension, GRE, IPV4, IPV6, fix_checksum, gre, mirrored, mirrored6,
    padded, sctp,
};

fn ping() -> Vec<u8> {
    Ipv4::new(A, FAR).ping(1, b"12345678")
}

#[test]
fn addresses_of_the_frame() {
    assert!(counted(mirrored(&ping())));
    assert!(!counted(Ethernet::new(ALICE, BOX).wrap(IPV4, &ping())));
    assert!(!counted(Ethernet::new(ALICE, BROADCAST).wrap(IPV4, &ping())));
    assert!(!counted(Ethernet::new(ALICE, BOB).wrap(0x0801, &ping())));
    assert!(!counted(Ethernet::new(ALICE, BOB).wrap(IPV6, &ping())));
    let six = SIX.packet(59, b"");
    assert!(counted(mirrored6(&six)));
    assert!(!counted(Ethernet::new(ALICE, BOX).wrap(IPV6, &six)));
    assert!(!counted(Ethernet::new(ALICE, [0x33, 0x33, 0, 0, 0, 1]).wrap(IPV6, &six)));
    assert!(!counted(mirrored(&six)));
}

#[test]
fn tags() {
    for kind in [DOT1Q, DOT1AD] {
        for (ethertype, packet) in [(IPV4, ping()), (IPV6, SIX.packet(59, b""))] {
            let to_box = Ethernet::new(ALICE, BOX);
            assert!(counted(to_box.clone().tag(kind, 5).wrap(ethertype, &packet)));
            assert!(!counted(to_box.clone().tag(kind, 0xe000).wrap(ethertype, &packet)));
            assert!(counted(to_box.clone().tag(kind, 0).tag(DOT1Q, 5).wrap(ethertype, &packet)));
            assert!(!counted(to_box.tag(kind, 5).tag(DOT1Q, 6).wrap(ethertype, &packet)));
            let to_bob = Ethernet::new(ALICE, BOB);
            assert!(counted(to_bob.clone().tag(kind, 0).wrap(ethertype, &packet)));
            assert!(!counted(to_bob.tag(kind, 5).tag(DOT1Q, 0).wrap(ethertype, &packet)));
        }
    }
}

#[test]
fn bad_ipv4_headers() {
    let broken = |at: usize, value: u8| {
        let mut packet = ping();
        packet[at] = value;
        fix_checksum(&mut packet);
        mirrored(&packet)
    };
    assert!(counted(broken(3, 36)), "the true length");
    assert!(counted(broken(3, 20)), "a shorter one: the rest is padding");
    assert!(!counted(broken(3, 37)), "more than there is");
    assert!(!counted(broken(3, 19)), "less than the header");
    assert!(!counted(broken(0, 0x65)), "version");
    assert!(!counted(broken(0, 0x44)), "header length");
    let mut packet = ping();
    packet[10] ^= 1;
    assert!(!counted(mirrored(&packet)), "checksum");
    assert!(!counted(mirrored(&ping()[..35])), "truncated");
    assert!(!counted(vec![0; 13]));
}

#[test]
fn the_reserved_flag_is_no_error() {
    let evil = Ipv4 { fragment: 0x8000, ..Ipv4::new(A, FAR) };
    assert!(counted(mirrored(&evil.ping(1, b""))));
}

#[test]
fn both_zeros_of_the_checksum_are_right() {
    // The fields are chosen so that the sum of all but the checksum is 0xffff.
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
    let packet = SIX.udp((1, 2), b"12345678");
    let broken = |at: usize, value: u8| {
        let mut packet = packet.clone();
        packet[at] = value;
        mirrored6(&packet)
    };
    assert!(counted(broken(5, 16)), "the true length");
    assert!(counted(broken(5, 0)), "a shorter one: the rest is padding");
    assert!(!counted(broken(5, 17)), "more than there is");
    assert!(!counted(broken(0, 0x45)), "version");
    assert!(counted(broken(0, 0x6f)), "traffic class");
    assert!(!counted(mirrored6(&packet[..55])), "truncated");
    assert!(!counted(mirrored6(&packet[..39])), "less than a header");
    assert!(counted(mirrored6(&SIX.packet(59, b""))), "nothing but a header");
}

/// The hook sees packets that IPv6 receive would refuse for their addresses or options.
#[test]
fn the_hook_is_not_as_strict_as_ipv6_receive() {
    let many = [Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED, "ff02::1".parse().unwrap(), "ff00::1".parse().unwrap()];
    for odd in many {
        assert!(counted(mirrored6(&Ipv6 { source: odd, destination: A6 }.udp((1, 2), b""))), "from {odd}");
        assert!(counted(mirrored6(&Ipv6 { source: A6, destination: odd }.udp((1, 2), b""))), "to {odd}");
    }
    // An unknown option whose bits say that the packet is to be dropped, and one longer than its header.
    for options in [vec![0xde, 0], vec![1, 200]] {
        assert!(counted(mirrored6(&SIX.extended(&[Extension::HopByHop(options)], 59, b""))));
    }
}

fn packet_in(frame: &[u8]) -> Packet<'_> {
    Packet::received(frame, BOX).expect("a packet")
}

#[test]
fn bytes_are_without_padding() {
    assert_eq!(packet_in(&padded(mirrored(&Ipv4::new(A, B).udp((1, 2), b"")))).bytes, 28);
    assert_eq!(packet_in(&[mirrored6(&SIX.udp((1, 2), b"")), vec![0; 9]].concat()).bytes, 48);
    let mut jumbo = SIX.extended(&[Extension::HopByHop(vec![])], UDP, &[1, 2, 3]);
    assert_eq!(packet_in(&[mirrored6(&jumbo), vec![0; 9]].concat()).bytes, 51);
    // But a packet that leaves its length to a jumbo payload option is as long as it came.
    jumbo[4..6].fill(0);
    let frame = [mirrored6(&jumbo), vec![0; 9]].concat();
    let packet = packet_in(&frame);
    assert_eq!((packet.bytes, packet.protocol), (60, UDP));
    assert_eq!(packet.payload, [1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

const UDP: u8 = IpNumber::UDP.0;

/// Protocol, whether it is a later fragment, and payload behind a chain.
fn behind(extensions: &[Extension], protocol: u8, payload: &[u8]) -> (u8, bool, Vec<u8>) {
    let frame = mirrored6(&SIX.extended(extensions, protocol, payload));
    let packet = packet_in(&frame);
    assert_eq!(packet.bytes, frame.len() as u64 - 14);
    (packet.protocol, packet.later_fragment, packet.payload.to_vec())
}

#[test]
fn extension_headers_are_passed_wherever_they_stand() {
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
fn sixteen_extension_headers_and_no_more() {
    let chain = |count: usize| vec![Extension::Destination(vec![]); count];
    assert_eq!(behind(&chain(16), UDP, b"x"), (UDP, false, b"x".to_vec()));
    assert_eq!(behind(&chain(17), UDP, b"x").0, 60);
    // The one too many is not looked at, not even if it is a fragment header.
    let fragment = [chain(16), vec![Extension::Fragment(1, false, 0)]].concat();
    assert_eq!(behind(&fragment, UDP, b"x").0, 44);
    assert!(!behind(&fragment, UDP, b"x").1);
}

#[test]
fn extension_headers_that_are_not_whole() {
    for number in [0, 43, 44, 51, 60] {
        let unwhole: &[&[u8]] = &[&[], &[UDP], &[UDP, 0, 0, 0, 0, 0, 0]];
        for payload in unwhole {
            assert_eq!(behind(&[Extension::ATOMIC], number, payload), (number, false, payload.to_vec()));
        }
    }
    // Eight bytes are there, but the header says that it has more.
    for number in [0, 43, 51, 60] {
        let payload = [UDP, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(behind(&[Extension::ATOMIC], number, &payload).0, number);
    }
    // In a fragment header that byte is reserved.
    assert_eq!(behind(&[], 44, &[UDP, 1, 0, 0, 0, 0, 0, 0]), (UDP, false, vec![]));
    // What is beyond the payload length is padding, and no part of a header.
    let mut short = SIX.extended(&[Extension::Destination(vec![])], UDP, b"");
    short[5] = 7;
    assert_eq!(packet_in(&mirrored6(&short)).protocol, 60);
}

#[test]
fn a_later_fragment_ends_the_walk() {
    let later = Extension::Fragment(1, true, 7);
    assert_eq!(behind(std::slice::from_ref(&later), UDP, b"x"), (UDP, true, b"x".to_vec()));
    let (protocol, later_fragment, _) = behind(&[later, Extension::Destination(vec![])], UDP, b"x");
    assert_eq!((protocol, later_fragment), (60, true));
}

#[test]
fn protocols_that_are_no_extension_in_ipv4() {
    for protocol in [0, 43, 44, 47, 50, 51, 58, 60, 132] {
        let frame = mirrored(&Ipv4::new(A, B).packet(protocol, &Extension::ATOMIC.bytes(UDP)));
        assert_eq!(packet_in(&frame).protocol, protocol);
    }
    let frame = mirrored(&Ipv4::new(A, B).packet(GRE, &gre(IPV4, &sctp((1, 2), 3, b""))));
    assert_eq!(packet_in(&frame).bytes, 20 + 4 + 12);
}
