// SPDX-License-Identifier: GPL-2.0-only
//! The rows and columns in which bytes are counted.

use std::net::Ipv4Addr;

use anyhow::ensure;
use insta::assert_snapshot;
use traffic_model::frames::{ICMP, Ip, SYN, TCP, UDP, mirrored, padded};
use traffic_model::model::{Internal, Rule};
use vm_tests::{count, expected, guest_test, in_guest};

/// A datagram with `size` bytes of data.
fn datagram(from: [u8; 4], to: [u8; 4], size: usize) -> Vec<u8> {
    mirrored(&Ip::new(from, to).udp((1000, 2000), &vec![1; size]))
}

guest_test!(first_and_last_address_and_their_neighbours, |guest| {
    let outside = [8, 8, 8, 8];
    let edges = [[193, 11, 175, 255], [193, 11, 176, 0], [193, 11, 191, 255], [193, 11, 192, 0]];
    let mut frames = Vec::new();
    for (n, edge) in edges.into_iter().enumerate() {
        frames.push(datagram(edge, outside, 100 * (n + 1)));
        frames.push(datagram(outside, edge, 1000 * (n + 1)));
    }
    let text = count(guest, "--netbase 193.11.176.0 --netmask 255.255.240.0", &frames)?;
    assert_snapshot!("first_and_last_address_and_their_neighbours", text);
    let rule = Rule::new(Ipv4Addr::new(193, 11, 176, 0), 20, Internal::Count);
    ensure!(text == expected(&rule, &frames).text());
});

#[test]
fn networks_of_length_0_and_32() {
    let ends = [[0, 0, 0, 0], [0, 0, 0, 1], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 254], [255; 4]];
    let mut frames = Vec::new();
    for (n, pair) in ends.windows(2).enumerate() {
        frames.push(datagram(pair[0], pair[1], 10 * n));
    }
    frames.push(datagram([10, 0, 0, 1], [10, 0, 0, 1], 5));
    for (snapshot, net) in [("everything", "0.0.0.0/0"), ("one_address", "255.255.255.255/32")] {
        in_guest(|guest| {
            assert_snapshot!(snapshot, count(guest, &format!("--net {net}"), &frames)?);
            Ok(())
        });
    }
}

/// Packets from inside to inside, from inside to outside, from outside to inside, and between
/// outside hosts.
fn all_directions() -> Vec<Vec<u8>> {
    let (a, b, out) = ([10, 1, 2, 3], [10, 1, 2, 4], [192, 0, 2, 1]);
    vec![datagram(a, b, 1), datagram(a, out, 10), datagram(out, b, 100), datagram(out, [192, 0, 2, 2], 1000)]
}

guest_test!(internal_traffic_is_counted_by_default, |guest| {
    assert_snapshot!("internal_default", count(guest, "--net 10.1.2.0/24", &all_directions())?);
});

guest_test!(nointernal_excludes_internal_traffic, |guest| {
    assert_snapshot!("internal_left_out", count(guest, "--net 10.1.2.0/24 --nointernal", &all_directions())?);
});

guest_test!(inverted_nointernal_counts_only_internal_traffic, |guest| {
    assert_snapshot!("internal_only", count(guest, "--net 10.1.2.0/24 ! --nointernal", &all_directions())?);
});

guest_test!(each_protocol_has_a_column, |guest| {
    let ip = Ip::new([10, 0, 0, 1], [192, 0, 2, 1]);
    let frames = [
        mirrored(&ip.tcp((1, 80), 1, SYN, b"")),
        mirrored(&ip.udp((1, 53), &[0; 10])),
        mirrored(&ip.ping(1, &[0; 100])),
        // GRE, ESP, SCTP, a reserved protocol.
        mirrored(&ip.packet(47, &[0; 1000])),
        mirrored(&ip.packet(50, &[0; 1000])),
        mirrored(&ip.packet(132, &[0; 1000])),
        mirrored(&ip.packet(255, &[])),
    ];
    assert_snapshot!("protocols", count(guest, "--net 10.0.0.0/8", &frames)?);
});

guest_test!(each_fragment_is_counted, |guest| {
    let ip = Ip::new([10, 0, 0, 1], [10, 0, 0, 2]);
    let fragments = |ip: &Ip| ip.fragments(UDP, &ip.datagram((1, 2), &[7; 4000]), 1480);
    let mut frames: Vec<_> = fragments(&ip).iter().map(|packet| mirrored(packet)).collect();
    // Without the first fragment, with one duplicate, in reverse order.
    let mut parts = fragments(&Ip::new([10, 0, 0, 3], [10, 0, 0, 4]));
    parts.remove(0);
    parts.push(parts[0].clone());
    parts.reverse();
    frames.extend(parts.iter().map(|packet| mirrored(packet)));
    for protocol in [TCP, ICMP] {
        let middle = Ip { fragment: 0x2001, ..Ip::new([10, 0, 0, 5], [10, 0, 0, 6]) };
        frames.push(mirrored(&middle.packet(protocol, &[0; 8])));
    }
    let text = count(guest, "--net 10.0.0.0/8", &frames)?;
    assert_snapshot!("fragments", text);
    ensure!(text == expected(&Rule::new([10, 0, 0, 0], 8, Internal::Count), &frames).text());
});

guest_test!(padding_options_and_length, |guest| {
    let ip = Ip::new([10, 0, 0, 1], [192, 0, 2, 1]);
    let full = Ip { options: vec![1; 40], ..Ip::new([10, 0, 0, 2], [192, 0, 2, 1]) };
    let frames = [
        // 60 bytes on the wire, 29 of them IP.
        padded(mirrored(&ip.udp((1, 2), b"x"))),
        mirrored(&full.udp((1, 2), b"x")),
        mirrored(&Ip::new([10, 0, 0, 3], [192, 0, 2, 1]).packet(UDP, &[0; 65_515])),
    ];
    assert_snapshot!("padding_options_and_length", count(guest, "--net 10.0.0.0/8", &frames)?);
});
