// SPDX-License-Identifier: GPL-2.0-only
//! What a mirror device finds in a frame.

use super::*;
use crate::frames::{
    ALICE, BOB, BROADCAST, DOT1AD, DOT1Q, Ethernet, Extension, IPV4, IPV6, LAYERS, LOWEST_ETHERTYPE, Layer, MPLS,
    PPPOE_SESSION, SYN, TRUSTSEC, UDP, padded, wrapped,
};
use Layer::{Label, Pppoe, PseudoWire, Snap, Vlan};

const MIRROR: Port = Port::Mirror { sliced: false };
const SLICED: Port = Port::Mirror { sliced: true };

/// A packet of each family.
fn packets() -> [Vec<u8>; 2] {
    [Ip::new(A, B).udp((1, 2), b"1234"), Ip::new(A6, B6).udp((1, 2), b"1234")]
}

fn bytes(port: Port, frame: &[u8]) -> u64 {
    [Rule::ALL_IPV4, Rule::ALL_IPV6].map(|rule| Expected::of(&rule, port, [frame]).bytes).iter().sum()
}

fn check(frame: &[u8], want: Result<u64, Fault>) {
    assert_eq!(fault(frame, false), want.err(), "{frame:02x?}");
    assert_eq!(bytes(MIRROR, frame), want.unwrap_or(0), "{frame:02x?}");
}

#[test]
fn every_destination_is_counted() {
    for destination in [BOB, PORT, BROADCAST, [0x33, 0x33, 0, 0, 0, 1]] {
        for (kind, packet) in [IPV4, IPV6].into_iter().zip(packets()) {
            check(&Ethernet::new(ALICE, destination).wrap(kind, &packet), Ok(packet.len() as u64));
        }
    }
}

#[test]
fn each_layer_and_each_pair_is_removed() {
    for packet in packets() {
        let length = packet.len() as u64;
        for outer in LAYERS {
            check(&padded(wrapped(&[outer], &packet)), Ok(length));
            for inner in LAYERS {
                // PPPoE only carries IP, and SNAP has no length.
                let want =
                    if outer == Pppoe || (outer, inner) == (Snap, Snap) { Err(Fault::NotIp) } else { Ok(length) };
                check(&padded(wrapped(&[outer, inner], &packet)), want);
            }
        }
    }
}

#[test]
fn sixteen_headers_are_removed() {
    for packet in packets() {
        for layer in LAYERS.into_iter().filter(|layer| !matches!(layer, Pppoe | Snap)) {
            check(&wrapped(&[layer; 16], &packet), Ok(packet.len() as u64));
            check(&wrapped(&[layer; 17], &packet), Err(Fault::TooDeep));
        }
    }
}

#[test]
fn a_frame_that_is_cut_anywhere_is_not_counted() {
    for packet in packets() {
        for layers in [vec![], vec![Vlan(DOT1AD, 5), Vlan(DOT1Q, 6), Label, Pppoe], LAYERS[..12].to_vec()] {
            let frame = wrapped(&layers, &packet);
            for length in 0..frame.len() {
                check(&frame[..length], Err(Fault::Cut));
            }
        }
    }
}

#[test]
fn a_sliced_packet_counts_with_the_length_in_its_header() {
    let tcp = [Ip::new(A, B).tcp((1, 2), 0, SYN, b"1234"), Ip::between("2001:db8::1", "::2").tcp((1, 2), 0, SYN, b"1")];
    let all = packets().into_iter().zip([28, 48]).chain(tcp.into_iter().zip([40, 60]));
    for (packet, headers) in all {
        let length = packet.len() as u64;
        let frame = wrapped(&[Vlan(DOT1Q, 5)], &packet);
        for cut in 18..frame.len() {
            let want = if cut < 18 + headers { 0 } else { length };
            assert_eq!(bytes(SLICED, &frame[..cut]), want, "cut to {cut}");
        }
        assert_eq!(bytes(SLICED, &padded(frame)), length);
    }
}

#[test]
fn extension_headers_must_not_be_missing() {
    let extensions = vec![Extension::HopByHop(vec![]), Extension::Destination(vec![0; 20])];
    let packet = Ip { extensions, ..Ip::new(A6, B6) }.udp((1, 2), b"12345678");
    let frame = mirrored(&packet);
    for cut in 54..frame.len() {
        let want = if cut < 14 + 40 + 8 + 24 + 8 { 0 } else { packet.len() as u64 };
        assert_eq!(bytes(SLICED, &frame[..cut]), want, "cut to {cut}");
    }
    // A later fragment has no transport header.
    let later = Ip { extensions: vec![Extension::Fragment(1, true, 7)], ..Ip::new(A6, B6) }.packet(UDP, b"12345678");
    assert_eq!(bytes(SLICED, &mirrored(&later)[..14 + 48]), later.len() as u64);
    assert_eq!(bytes(SLICED, &mirrored(&later)[..14 + 47]), 0);
}

#[test]
fn what_is_not_ip() {
    let ethernet = Ethernet::new(ALICE, BOB);
    for kind in [LOWEST_ETHERTYPE, 0x0806, 0x88cc, 0x88e5, 0xffff] {
        check(&padded(ethernet.wrap(kind, b"")), Err(Fault::NotIp));
    }
    // A BPDU, and SNAP with the identifier of Cisco (CDP).
    check(&padded(ethernet.wrap(38, &[0x42, 0x42, 3])), Err(Fault::NotIp));
    check(&padded(ethernet.wrap(38, &[0xaa, 0xaa, 3, 0, 0, 0xc, 0x20, 0])), Err(Fault::NotIp));
    // The associated channel of a pseudowire, and LCP.
    check(&padded(ethernet.wrap(MPLS, &[0, 0, 1, 64, 0x10, 0, 0, 0x21])), Err(Fault::NotIp));
    check(&padded(ethernet.wrap(PPPOE_SESSION, &[0x11, 0, 0, 5, 0, 4, 0xc0, 0x21])), Err(Fault::NotIp));
}

#[test]
fn what_is_broken() {
    let ethernet = Ethernet::new(ALICE, BOB);
    let [packet, six] = packets();
    let changed = |at: usize, value: u8, packet: &[u8]| {
        let mut packet = packet.to_vec();
        packet[at] = value;
        packet
    };
    check(&ethernet.wrap(IPV4, &changed(0, 0x55, &packet)), Err(Fault::Broken));
    check(&ethernet.wrap(IPV4, &changed(0, 0x44, &packet)), Err(Fault::Broken));
    check(&ethernet.wrap(IPV4, &changed(10, packet[10] ^ 1, &packet)), Err(Fault::Broken));
    check(&ethernet.wrap(IPV4, &six), Err(Fault::Broken));
    check(&padded(ethernet.wrap(IPV6, &packet)), Err(Fault::Broken));
    check(&padded(ethernet.wrap(TRUSTSEC, &[2, 1, 0, 1, 0, 16, 8, 0])), Err(Fault::Broken));
    check(&padded(ethernet.wrap(TRUSTSEC, &[1, 5, 0, 1, 0, 16, 8, 0])), Err(Fault::Broken));
    let pppoe = wrapped(&[Pppoe], &packet);
    for (at, value) in [(14, 0x21), (15, 0x09), (19, 1)] {
        check(&changed(at, value, &pppoe), Err(Fault::Broken));
    }
}

#[test]
fn padding_behind_pppoe_belongs_to_no_packet() {
    let [packet, _] = packets();
    let mut frame = wrapped(&[Pppoe], &packet);
    frame[19] -= 1;
    check(&padded(frame), Err(Fault::Cut));
}

/// A pseudowire without a control word, whose frame has a destination that begins with the version
/// of IP.
fn pseudowire_to(first: u8, packet: &[u8]) -> Vec<u8> {
    let frame = wrapped(&[PseudoWire { control_word: false }], packet);
    let mut frame = padded(frame);
    frame[18] = first;
    frame
}

#[test]
fn frames_and_packets_behind_a_label_are_told_apart() {
    for packet in packets() {
        for first in [0, 0x0e, 0x10, 0x1c, 0x40, 0x45, 0x4f, 0x60, 0x6e] {
            check(&pseudowire_to(first, &packet), Ok(packet.len() as u64));
        }
    }
    // An IPv4 packet from 8.0.0.1 has the EtherType of IPv4 where a frame has its own.
    let packet = Ip::new([8, 0, 0, 1], B).udp((1, 2), b"1234");
    check(&wrapped(&[Label], &packet), Ok(packet.len() as u64));
    // So has an IPv6 packet from 2001:db8:800::1.
    let packet = Ip::between("2001:db8:800::1", "2001:db8::2").udp((1, 2), b"1234");
    check(&wrapped(&[Label], &packet), Ok(packet.len() as u64));
}
