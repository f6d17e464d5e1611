// SPDX-License-Identifier: GPL-2.0-only
//! `etherparse` parses what the builders build.

use super::ip::checksum;
use super::*;

#[test]
fn etherparse_accepts_ipv4_packets() {
    let ip = Ip { options: vec![7, 4, 4, 0, 1], ..Ip::between("10.0.0.1", "10.0.0.2") };
    for packet in [ip.udp((1, 2), b"data"), ip.tcp((1, 2), 3, SYN, b"odd"), ip.ping(4, b"ping")] {
        let sliced = etherparse::SlicedPacket::from_ethernet(&mirrored(&packet)).map(drop);
        sliced.expect("a whole packet");
        let (header, payload) = etherparse::Ipv4Header::from_slice(&packet).unwrap();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!(usize::from(header.total_len), packet.len());
        assert_eq!(header.header_len(), 28);
        check_ipv4_payload(&header, payload);
    }
}

fn check_ipv4_payload(header: &etherparse::Ipv4Header, payload: &[u8]) {
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

/// Checks lengths, next headers and checksums.
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
fn etherparse_accepts_ipv6_packets() {
    let extensions = vec![
        Extension::HopByHop(vec![]),
        Extension::Destination(vec![1, 4, 0, 0, 0, 0, 1, 0]),
        Extension::Routing(vec![4, 0]),
        Extension::ATOMIC,
        Extension::Authentication(vec![7; 20]),
    ];
    for extensions in [vec![], extensions] {
        let count = extensions.len();
        let ip = Ip { extensions, ..Ip::between("::1", "2001:db8::1") };
        for packet in [ip.udp((53, 53), b"six"), ip.tcp((1, 2), 3, SYN, b"odd"), ip.ping(2, b"ping")] {
            check_ipv6(&packet, count);
        }
    }
}

#[test]
fn reassembled_ipv4_fragments_are_the_datagram() {
    let ip = Ip::between("10.0.0.1", "10.0.0.2");
    let datagram = ip.datagram((1, 2), &(0..3000).map(|n| n as u8).collect::<Vec<_>>());
    let parts = ip.fragments(UDP, &datagram, 1480);
    let sizes: Vec<usize> = parts.iter().map(Vec::len).collect();
    assert_eq!(sizes, [1500, 1500, 20 + 3008 - 2 * 1480]);
    assert_eq!(parts.iter().map(|part| part[6] & 0x20).collect::<Vec<_>>(), [0x20, 0x20, 0]);
    assert_eq!(parts.iter().flat_map(|part| &part[20..]).copied().collect::<Vec<_>>(), datagram);
}

#[test]
fn reassembled_ipv6_fragments_are_the_payload() {
    let ip = Ip::between("2001:db8::1", "::1");
    let payload: Vec<u8> = (0..100).collect();
    let parts = ip.fragments(UDP, &payload, 48);
    let joined: Vec<u8> = parts.iter().flat_map(|part| &part[48..]).copied().collect();
    assert_eq!(joined, payload);
    let places: Vec<_> = parts.iter().map(|part| part[42..44].to_vec()).collect();
    assert_eq!(places, [[0, 1], [0, 49], [0, 96]]);
}

#[test]
fn tags_precede_the_ethertype() {
    let frame = Ethernet::new(ALICE, BOB).tag(DOT1AD, 5).tag(DOT1Q, 6).wrap(IPV4, b"x");
    assert_eq!(frame[12..], [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 8, 0, b'x']);
}

#[test]
fn mirrored_frames_have_the_ethertype_of_their_packet() {
    let [four, six] = [Ip::between("10.0.0.1", "10.0.0.2"), Ip::between("2001:db8::1", "2001:db8::2")];
    for (ip, ethertype) in [(four.clone(), IPV4), (six, IPV6)] {
        assert_eq!(ip.ethertype(), ethertype);
        assert_eq!(mirrored(&ip.ping(1, b""))[12..14], ethertype.to_be_bytes());
    }
    assert_eq!(four.reversed().packet(0, b""), Ip::between("10.0.0.2", "10.0.0.1").packet(0, b""));
}

#[test]
fn segments_of_a_stream_continue_each_other() {
    let ip = Ip { id: 2, fragment: DONT_FRAGMENT, ..Ip::between("10.0.0.1", "10.0.0.2") };
    assert_eq!(ip.stream((1, 2), 3, &[0, 1, 2])[2], ip.tcp((1, 2), 7, ACK, &[0, 1, 2]));
}

#[test]
fn lengths_of_extension_headers() {
    assert_eq!(Extension::HopByHop(vec![]).bytes(6), [6, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(Extension::Routing(vec![9; 7]).bytes(17), [&[17, 1][..], &[9; 7], &[0; 7]].concat());
    assert_eq!(Extension::Fragment(0x1fff, false, 1).bytes(60), [60, 0, 0xff, 0xf8, 0, 0, 0, 1]);
    assert_eq!(Extension::Authentication(vec![]).bytes(6), [6, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(Extension::Authentication(vec![9; 8]).bytes(6), [&[6, 1, 0, 0][..], &[9; 8]].concat());
}
