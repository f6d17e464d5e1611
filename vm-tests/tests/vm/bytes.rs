// SPDX-License-Identifier: GPL-2.0
//! Whose bytes are counted, and in which column.

use std::net::Ipv4Addr;

use anyhow::ensure;
use insta::assert_snapshot;
use traffic_model::frames::{ICMP, Ipv4, SYN, TCP, UDP, fragments, mirrored, padded};
use traffic_model::model::{Internal, Rule};

use crate::support::{count, expected, in_guest};

/// A datagram with `size` bytes of data.
fn datagram(from: [u8; 4], to: [u8; 4], size: usize) -> Vec<u8> {
    mirrored(&Ipv4::new(from, to).udp((1000, 2000), &vec![1; size]))
}

#[test]
fn first_and_last_address_and_their_neighbours() {
    let outside = [8, 8, 8, 8];
    let edges = [[193, 11, 175, 255], [193, 11, 176, 0], [193, 11, 191, 255], [193, 11, 192, 0]];
    let mut frames = Vec::new();
    for (n, edge) in edges.into_iter().enumerate() {
        frames.push(datagram(edge, outside, 100 * (n + 1)));
        frames.push(datagram(outside, edge, 1000 * (n + 1)));
    }
    in_guest(|guest| {
        let text = count(guest, "--netbase 193.11.176.0 --netmask 255.255.240.0", &frames)?;
        assert_snapshot!("first_and_last_address_and_their_neighbours", text);
        let rule = Rule::new(Ipv4Addr::new(193, 11, 176, 0), 20, Internal::Count);
        ensure!(text == expected(&rule, &frames).text());
        Ok(())
    });
}

#[test]
fn the_smallest_and_the_largest_network() {
    let ends = [[0, 0, 0, 0], [0, 0, 0, 1], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 254], [255; 4]];
    let mut frames = Vec::new();
    for (n, pair) in ends.windows(2).enumerate() {
        frames.push(datagram(pair[0], pair[1], 10 * n));
    }
    frames.push(datagram([10, 0, 0, 1], [10, 0, 0, 1], 5));
    in_guest(|guest| {
        assert_snapshot!("everything", count(guest, "--net 0.0.0.0/0", &frames)?);
        Ok(())
    });
    in_guest(|guest| {
        assert_snapshot!("one_address", count(guest, "--net 255.255.255.255/32", &frames)?);
        Ok(())
    });
}

/// Inside to inside, out, in, and past.
fn four_ways() -> Vec<Vec<u8>> {
    let (a, b, out) = ([10, 1, 2, 3], [10, 1, 2, 4], [192, 0, 2, 1]);
    vec![datagram(a, b, 1), datagram(a, out, 10), datagram(out, b, 100), datagram(out, [192, 0, 2, 2], 1000)]
}

#[test]
fn internal_traffic_counts_by_default() {
    in_guest(|guest| {
        assert_snapshot!("internal_default", count(guest, "--net 10.1.2.0/24", &four_ways())?);
        Ok(())
    });
}

#[test]
fn nointernal_leaves_it_out() {
    in_guest(|guest| {
        assert_snapshot!("internal_left_out", count(guest, "--net 10.1.2.0/24 --nointernal", &four_ways())?);
        Ok(())
    });
}

#[test]
fn the_inverse_of_nointernal_counts_nothing_else() {
    in_guest(|guest| {
        assert_snapshot!("internal_only", count(guest, "--net 10.1.2.0/24 ! --nointernal", &four_ways())?);
        Ok(())
    });
}

#[test]
fn protocols_have_their_columns() {
    let ip = Ipv4::new([10, 0, 0, 1], [192, 0, 2, 1]);
    let frames = [
        mirrored(&ip.tcp((1, 80), 1, SYN, b"")),
        mirrored(&ip.udp((1, 53), &[0; 10])),
        mirrored(&ip.ping(1, &[0; 100])),
        // GRE, ESP, SCTP, nothing.
        mirrored(&ip.packet(47, &[0; 1000])),
        mirrored(&ip.packet(50, &[0; 1000])),
        mirrored(&ip.packet(132, &[0; 1000])),
        mirrored(&ip.packet(255, &[])),
    ];
    in_guest(|guest| {
        assert_snapshot!("protocols", count(guest, "--net 10.0.0.0/8", &frames)?);
        Ok(())
    });
}

#[test]
fn fragments_count_each_for_itself() {
    let ip = Ipv4::new([10, 0, 0, 1], [10, 0, 0, 2]);
    let mut frames: Vec<_> = fragments(&ip, (1, 2), 4000, 1480).iter().map(|packet| mirrored(packet)).collect();
    // The first one never comes, another comes twice, the last one comes before the others.
    let late = Ipv4::new([10, 0, 0, 3], [10, 0, 0, 4]);
    let mut parts = fragments(&late, (1, 2), 4000, 1480);
    parts.remove(0);
    parts.push(parts[0].clone());
    parts.reverse();
    frames.extend(parts.iter().map(|packet| mirrored(packet)));
    for protocol in [TCP, ICMP] {
        let middle = Ipv4 { fragment: 0x2001, ..Ipv4::new([10, 0, 0, 5], [10, 0, 0, 6]) };
        frames.push(mirrored(&middle.packet(protocol, &[0; 8])));
    }
    in_guest(|guest| {
        let text = count(guest, "--net 10.0.0.0/8", &frames)?;
        assert_snapshot!("fragments", text);
        ensure!(text == expected(&Rule::new([10, 0, 0, 0].into(), 8, Internal::Count), &frames).text());
        Ok(())
    });
}

#[test]
fn padding_options_and_length() {
    let ip = Ipv4::new([10, 0, 0, 1], [192, 0, 2, 1]);
    let full = Ipv4 { options: vec![1; 40], ..Ipv4::new([10, 0, 0, 2], [192, 0, 2, 1]) };
    let frames = [
        // 60 bytes on the wire, 29 of them IP.
        padded(mirrored(&ip.udp((1, 2), b"x"))),
        mirrored(&full.udp((1, 2), b"x")),
        mirrored(&Ipv4::new([10, 0, 0, 3], [192, 0, 2, 1]).packet(UDP, &[0; 65_515])),
    ];
    in_guest(|guest| {
        assert_snapshot!("padding_options_and_length", count(guest, "--net 10.0.0.0/8", &frames)?);
        Ok(())
    });
}
