// SPDX-License-Identifier: GPL-2.0-only
//! Frames with invalid headers and frames without IPv4 are not counted. Later frames are counted.

use insta::assert_snapshot;
use traffic_model::frames::{ALICE, BOB, DOT1AD, DOT1Q, Ethernet, IPV4, IPV6, Ip, fix_checksum, mirrored};
use vm_tests::{count, guest_test};

/// A packet of 128 bytes from 10.0.0.`host`.
fn packet(host: u8) -> Vec<u8> {
    Ip::new([10, 0, 0, host], [192, 0, 2, 1]).udp((1, 2), &[7; 100])
}

fn changed(host: u8, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = packet(host);
    change(&mut packet);
    fix_checksum(&mut packet);
    ipv4_frame(&packet)
}

/// An IPv4 frame from Alice to Bob, independent of the version field.
fn ipv4_frame(packet: &[u8]) -> Vec<u8> {
    Ethernet::new(ALICE, BOB).wrap(IPV4, packet)
}

fn with_total_length(host: u8, length: u16) -> Vec<u8> {
    changed(host, |packet| packet[2..4].copy_from_slice(&length.to_be_bytes()))
}

guest_test!(invalid_headers_are_not_counted, |guest| {
    let bad = [
        changed(1, |packet| packet[0] = 0x55),
        changed(2, |packet| packet[0] = 0x65),
        changed(3, |packet| packet[0] = 0x44),
        changed(4, |packet| packet[0] = 0x40),
        // A header length beyond the packet's end.
        changed(5, |packet| {
            packet[0] = 0x4f;
            packet.truncate(40);
        }),
        ipv4_frame(&{
            let mut packet = packet(6);
            packet[10] ^= 0x80;
            packet
        }),
        with_total_length(7, 129),
        with_total_length(8, 19),
        with_total_length(9, 0),
        ipv4_frame(&packet(10)[..127]),
        ipv4_frame(&packet(11)[..19]),
        ipv4_frame(&[]),
        // A total length shorter than the header length.
        changed(12, |packet| {
            packet[0] = 0x46;
            packet[2..4].copy_from_slice(&20_u16.to_be_bytes());
        }),
    ];
    let good = [
        ipv4_frame(&packet(100)),
        // Shorter than the frame: the rest is padding.
        with_total_length(101, 28),
        with_total_length(102, 20),
    ];
    let frames: Vec<_> = bad.into_iter().chain(good).collect();
    assert_snapshot!("bad_headers", count(guest, "--net 10.0.0.0/8", &frames)?);
});

guest_test!(other_ethertypes_are_not_counted, |guest| {
    let six = Ip::between("2001:db8::1", "2001:db8::2");
    let ethernet = Ethernet::new(ALICE, BOB);
    let frames = [
        ethernet.wrap(IPV6, &six.udp((1, 2), b"six")),
        // ARP, an 802.3 length, MPLS, PPPoE; each with an IPv4 packet as payload.
        ethernet.wrap(0x0806, &packet(1)),
        ethernet.wrap(0x0200, &packet(2)),
        ethernet.wrap(0x8847, &packet(3)),
        ethernet.wrap(0x8864, &packet(4)),
        // IPv4 with the EtherType of IPv6.
        ethernet.wrap(IPV6, &packet(5)),
        mirrored(&packet(100)),
    ];
    assert_snapshot!("other_protocols", count(guest, "--net 10.0.0.0/8", &frames)?);
});

guest_test!(frames_with_one_vlan_tag_are_counted, |guest| {
    let ethernet = Ethernet::new(ALICE, BOB);
    let tagged = |kind, vlan| ethernet.clone().tag(kind, vlan);
    let frames = [
        tagged(DOT1Q, 1).wrap(IPV4, &packet(1)),
        tagged(DOT1Q, 4094).wrap(IPV4, &packet(2)),
        tagged(DOT1Q, 0xe005).wrap(IPV4, &packet(3)),
        tagged(DOT1AD, 5).wrap(IPV4, &packet(4)),
        // VLAN 0: a priority without a VLAN.
        tagged(DOT1Q, 0xe000).wrap(IPV4, &packet(5)),
        tagged(DOT1AD, 0).wrap(IPV4, &packet(6)),
        tagged(DOT1Q, 0).tag(DOT1Q, 5).wrap(IPV4, &packet(7)),
        // Nested.
        tagged(DOT1AD, 5).tag(DOT1Q, 6).wrap(IPV4, &packet(201)),
        tagged(DOT1Q, 5).tag(DOT1Q, 6).wrap(IPV4, &packet(202)),
        tagged(DOT1Q, 5).tag(DOT1Q, 0).wrap(IPV4, &packet(203)),
        // Truncated after the tag.
        tagged(DOT1Q, 5).wrap(IPV4, &[]),
        tagged(DOT1Q, 5).wrap(IPV4, &packet(204)[..10]),
    ];
    assert_snapshot!("vlan_tags", count(guest, "--net 10.0.0.0/8", &frames)?);
});
