// SPDX-License-Identifier: GPL-2.0-only
//! `etherparse` parses what the builders build.

use etherparse::{Ipv6ExtensionsSlice, NetHeaders, PacketHeaders};

use super::*;

/// Checks lengths, checksums and the number of extension headers.
fn check(packet: &[u8], extensions: usize) {
    let headers = PacketHeaders::from_ip_slice(packet).unwrap();
    let (mut transport, payload) = (headers.transport.clone().unwrap(), headers.payload.slice());
    match headers.net {
        Some(NetHeaders::Ipv4(header, _)) => {
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(usize::from(header.total_len), packet.len());
            transport.update_checksum_ipv4(&header, payload).unwrap();
        }
        Some(NetHeaders::Ipv6(header, _)) => {
            assert_eq!(usize::from(header.payload_length), packet.len() - 40);
            let chain = Ipv6ExtensionsSlice::from_slice(header.next_header, &packet[40..]).unwrap().0;
            assert_eq!(chain.into_iter().count(), extensions);
            transport.update_checksum_ipv6(&header, payload).unwrap();
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(Some(transport), headers.transport);
}

/// The header is the example of <https://en.wikipedia.org/wiki/Internet_checksum>. RFC 1071
/// specifies the sum: <https://www.rfc-editor.org/rfc/rfc1071>.
#[test]
fn checksum_of_a_known_ipv4_header() {
    let known = [0x4500_u16, 0x0073, 0, 0x4000, 0x4011, 0xb861, 0xc0a8, 0x0001, 0xc0a8, 0x00c7];
    let known = known.map(u16::to_be_bytes).concat();
    let mut header = known.clone();
    header[10..12].fill(0);
    fix_checksum(&mut header);
    assert_eq!(header, known);
}

#[test]
fn etherparse_accepts_packets_of_both_families() {
    let extensions = vec![
        Extension::HopByHop(vec![]),
        Extension::Destination(vec![1, 4, 0, 0, 0, 0, 1, 0]),
        Extension::Routing(vec![4, 0]),
        Extension::ATOMIC,
        Extension::Authentication(vec![7; 20]),
    ];
    let ipv6 = Ip::between("::1", "2001:db8::1");
    for ip in [
        Ip { options: vec![7, 4, 4, 0, 1], ..Ip::between("10.0.0.1", "10.0.0.2") },
        Ip { extensions, ..ipv6.clone() },
        ipv6,
    ] {
        for packet in [ip.udp((53, 53), b"data"), ip.tcp((1, 2), 3, SYN, b"odd"), ip.ping(4, b"ping")] {
            check(&packet, ip.extensions.len());
        }
    }
    let options = Ip { options: vec![7, 4, 4, 0, 1], ..Ip::between("10.0.0.1", "10.0.0.2") };
    assert_eq!(options.packet(UDP, b"")[0], 0x47, "five bytes of options take eight");
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
