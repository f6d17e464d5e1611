// SPDX-License-Identifier: GPL-2.0
//! The builders against `etherparse`.

use std::net::Ipv6Addr;

use super::*;

#[test]
fn another_parser_agrees_with_the_builders() {
    let ip = Ipv4 { options: vec![7, 4, 4, 0, 1], ..Ipv4::new([10, 0, 0, 1], [10, 0, 0, 2]) };
    for packet in [ip.udp((1, 2), b"data"), ip.tcp((1, 2), 3, SYN, b"odd"), ip.ping(4, b"ping")] {
        let sliced = etherparse::SlicedPacket::from_ethernet(&mirrored(&packet)).map(drop);
        sliced.expect("a whole packet");
        let (header, payload) = etherparse::Ipv4Header::from_slice(&packet).unwrap();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!(usize::from(header.total_len), packet.len());
        assert_eq!(header.header_len(), 28);
        check_transport(&header, payload);
    }
}

fn check_transport(header: &etherparse::Ipv4Header, payload: &[u8]) {
    match header.protocol.0 {
        TCP => {
            let (tcp, data) = etherparse::TcpHeader::from_slice(payload).unwrap();
            assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4(header, data).unwrap());
        }
        UDP => {
            let (udp, data) = etherparse::UdpHeader::from_slice(payload).unwrap();
            assert_eq!(udp.checksum, udp.calc_checksum_ipv4(header, data).unwrap());
        }
        _ => assert_eq!(checksum(0, payload), 0),
    }
}

#[test]
fn fragments_put_together_are_the_datagram() {
    let ip = Ipv4::new([10, 0, 0, 1], [10, 0, 0, 2]);
    let parts = fragments(&ip, (1, 2), 3000, 1480);
    let sizes: Vec<usize> = parts.iter().map(Vec::len).collect();
    assert_eq!(sizes, [1500, 1500, 20 + 3008 - 2 * 1480]);
    let joined: Vec<u8> = parts.iter().flat_map(|part| &part[20..]).copied().collect();
    assert_eq!(joined, ip.udp((1, 2), &(0..3000).map(|n| n as u8).collect::<Vec<_>>())[20..]);
}

#[test]
fn tags_come_before_the_ethertype() {
    let frame = Ethernet::new(ALICE, BOB).tag(DOT1AD, 5).tag(DOT1Q, 6).wrap(IPV4, b"x");
    assert_eq!(frame[12..], [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 8, 0, b'x']);
}

/// Lengths, next headers and checksums of a packet, as another parser sees them.
fn check_ipv6(packet: &[u8], extensions: usize) {
    let (header, rest) = etherparse::Ipv6Header::from_slice(packet).unwrap();
    assert_eq!(usize::from(header.payload_length), rest.len());
    let (chain, protocol, payload) = etherparse::Ipv6ExtensionsSlice::from_slice(header.next_header, rest).unwrap();
    assert_eq!(chain.into_iter().count(), extensions);
    match protocol.0 {
        TCP => {
            let (tcp, data) = etherparse::TcpHeader::from_slice(payload).unwrap();
            assert_eq!(tcp.checksum, tcp.calc_checksum_ipv6(&header, data).unwrap());
        }
        UDP => {
            let (udp, data) = etherparse::UdpHeader::from_slice(payload).unwrap();
            assert_eq!(udp.checksum, udp.calc_checksum_ipv6(&header, data).unwrap());
        }
        ICMPV6 => {
            let (icmp, data) = etherparse::Icmpv6Header::from_slice(payload).unwrap();
            let sum = icmp.icmp_type.calc_checksum(header.source, header.destination, data).unwrap();
            assert_eq!(icmp.checksum, sum);
        }
        other => panic!("protocol {other}"),
    }
}

#[test]
fn another_parser_agrees_with_the_builders_of_ipv6() {
    let ip = Ipv6 { source: Ipv6Addr::LOCALHOST, destination: "2001:db8::1".parse().unwrap() };
    for packet in [ip.udp((53, 53), b"six"), ip.tcp((1, 2), 3, SYN, b"odd"), ip.icmp(128, [0, 1, 0, 2], b"ping")] {
        check_ipv6(&packet, 0);
    }
    let extensions = vec![
        Extension::HopByHop(vec![]),
        Extension::Destination(vec![1, 4, 0, 0, 0, 0, 1, 0]),
        Extension::Routing(vec![4, 0]),
        Extension::ATOMIC,
        Extension::Authentication(vec![7; 20]),
    ];
    let count = extensions.len();
    let extended = Ip::V6(ip, extensions);
    check_ipv6(&extended.udp((53, 53), b"six"), count);
    check_ipv6(&extended.tcp((1, 2), 3, SYN, b"odd"), count);
    check_ipv6(&extended.icmp(128, [0, 1, 0, 2], b"ping"), count);
}

#[test]
fn both_families_by_one_name() {
    let ip = Ipv4::new([10, 0, 0, 1], [10, 0, 0, 2]);
    let any = Ip::V4(ip.clone());
    assert_eq!(any.ping(4, b"ping"), ip.ping(4, b"ping"));
    assert_eq!(any.udp((1, 2), b"x"), ip.udp((1, 2), b"x"));
    assert_eq!(any.stream((1, 2), 3, &[0, 1, 2]), tcp_stream(&ip, (1, 2), 3, 3));
    assert_eq!(any.mirrored(b"x"), mirrored(b"x"));
    let back = any.reversed();
    assert_eq!(back.packet(0, b""), Ipv4::new([10, 0, 0, 2], [10, 0, 0, 1]).packet(0, b""));
}

#[test]
fn fragments_of_ipv6_put_together_are_the_payload() {
    let ip = Ip::new("2001:db8::1".parse::<Ipv6Addr>().unwrap(), Ipv6Addr::LOCALHOST);
    let payload: Vec<u8> = (0..100).collect();
    let parts = ip.fragments(UDP, &payload, 48);
    let joined: Vec<u8> = parts.iter().flat_map(|part| &part[48..]).copied().collect();
    assert_eq!(joined, payload);
    let places: Vec<_> = parts.iter().map(|part| part[42..44].to_vec()).collect();
    assert_eq!(places, [[0, 1], [0, 49], [0, 96]]);
}

#[test]
fn lengths_of_extension_headers() {
    assert_eq!(Extension::HopByHop(vec![]).bytes(6), [6, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(Extension::Routing(vec![9; 7]).bytes(17), [&[17, 1][..], &[9; 7], &[0; 7]].concat());
    assert_eq!(Extension::Fragment(0x1fff, false, 1).bytes(60), [60, 0, 0xff, 0xf8, 0, 0, 0, 1]);
    assert_eq!(Extension::Authentication(vec![]).bytes(6), [6, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(Extension::Authentication(vec![9; 8]).bytes(6), [&[6, 1, 0, 0][..], &[9; 8]].concat());
}
