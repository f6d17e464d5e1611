// SPDX-License-Identifier: GPL-2.0-only
//! The bytes on the wire are counted, independent of GRO.

use anyhow::{Result, ensure};
use insta::assert_snapshot;
use traffic_model::frames::{ACK, ALICE, BOB, DONT_FRAGMENT, DOT1Q, Ethernet, Extension, FIN, IPV4, Ip, mirrored};
use traffic_model::model::{Rule, same_table};
use vm_harness::guest::Guest;
use vm_harness::replay::Backend;
use vm_tests::{BACKENDS, count, counters, expected, guest_test, in_guest, iptables, open_and_send, table};

const SEGMENTS: usize = 2000;

/// Two interleaved connections, one of them in a VLAN. The last segments are shorter, and one has
/// FIN set.
fn streams() -> Vec<Vec<u8>> {
    let plain = Ip::new([10, 0, 0, 1], [192, 0, 2, 1]);
    let tagged = Ip::new([10, 0, 0, 2], [192, 0, 2, 2]);
    let vlan = Ethernet::new(ALICE, BOB).tag(DOT1Q, 7);
    let mut frames = Vec::new();
    let one = plain.stream((1, 80), SEGMENTS / 2, &[7; 1448]);
    let other = tagged.stream((2, 80), SEGMENTS / 2, &[7; 1000]);
    for (one, other) in one.into_iter().zip(other) {
        frames.push(mirrored(&one));
        frames.push(vlan.wrap(IPV4, &other));
    }
    frames.push(mirrored(&plain.tcp((1, 80), 1 + 1448 * SEGMENTS as u32 / 2, ACK, &[0; 77])));
    frames.push(vlan.wrap(IPV4, &tagged.tcp((2, 80), 1 + 1000 * SEGMENTS as u32 / 2, ACK | FIN, b"")));
    frames
}

/// Counts the streams with an offload on or off. Returns the number of packets that the rule
/// counted.
fn packets_seen(guest: &mut Guest, feature: &str, frames: &[Vec<u8>]) -> Result<u64> {
    guest.must(&format!("ethtool -K eth0 {feature}"))?;
    let text = count(guest, "--net 0.0.0.0/0", frames)?;
    ensure!(text == expected(&Rule::ALL_IPV4, frames).text(), "with {feature} the kernel counts\n{text}");
    // The same snapshot for all features.
    assert_snapshot!("tcp_streams", text);
    let [nft, legacy] = BACKENDS.map(|backend| counters(guest, "iptables", backend, "PROMISC"));
    let (nft, legacy) = (nft?, legacy?);
    ensure!(nft == legacy, "{nft:?} and {legacy:?}");
    Ok(nft[0].0)
}

guest_test!(headers_of_merged_tcp_segments_are_counted, |guest| {
    let frames = streams();
    let seen = packets_seen(guest, "gro on", &frames)?;
    // GRO must have merged most of them.
    ensure!(seen < frames.len() as u64 / 2, "GRO left {seen} of {} packets", frames.len());
});

guest_test!(tcp_segments_without_gro_have_the_same_counts, |guest| {
    let frames = streams();
    let seen = packets_seen(guest, "gro off", &frames)?;
    ensure!(seen == frames.len() as u64, "the rule saw {seen} of {} packets", frames.len());
});

/// Datagrams of equal length, which GRO merges. Linux 6.12 merges packets with the same
/// identification only if they must not be fragmented.
fn datagrams() -> Vec<Vec<u8>> {
    let ip = Ip { fragment: DONT_FRAGMENT, ..Ip::new([10, 0, 0, 1], [192, 0, 2, 1]) };
    let mut frames: Vec<_> = (0..SEGMENTS).map(|_| mirrored(&ip.udp((1, 443), &[7; 1200]))).collect();
    frames.push(mirrored(&ip.udp((1, 443), &[7; 300])));
    frames
}

#[test]
fn headers_of_merged_datagrams_are_counted() {
    for feature in ["rx-udp-gro-forwarding on", "rx-gro-list on"] {
        in_guest(|guest| {
            let frames = datagrams();
            guest.must(&format!("ethtool -K eth0 gro on {feature}"))?;
            let text = count(guest, "--net 0.0.0.0/0", &frames)?;
            assert_snapshot!("datagrams", text);
            let seen = counters(guest, "iptables", BACKENDS[0], "PROMISC")?[0].0;
            ensure!(seen < frames.len() as u64 / 2, "with {feature} GRO left {seen} of {} packets", frames.len());
            Ok(())
        });
    }
}

// A capture on a sender with segmentation offload holds such segments.
guest_test!(segments_of_64_kib_are_counted_as_one_packet, |guest| {
    let ip = Ip::new([10, 0, 0, 1], [192, 0, 2, 1]);
    let frames: Vec<_> = ip.stream((1, 80), 50, &[7; 65_495]).iter().map(|packet| mirrored(packet)).collect();
    let text = count(guest, "--net 0.0.0.0/0", &frames)?;
    assert_snapshot!("segments_of_64_kib", text);
    ensure!(text == expected(&Rule::ALL_IPV4, &frames).text());
});

/// Counts IPv6 frames after a command. Returns the packets and bytes that the rule counted.
fn merged_ipv6(guest: &mut Guest, setup: &str, frames: &[Vec<u8>]) -> Result<(u64, u64)> {
    guest.must(&format!("ethtool -K eth0 gro on && {setup}"))?;
    iptables(guest, Backend::Nft, "ip6tables -A PROMISC -m traffic --traffic --net ::/0 --name six")?;
    open_and_send(guest, 0, frames)?;
    same_table("six", &table(guest, "six")?, &expected(&Rule::ALL_IPV6, frames).text())?;
    Ok(counters(guest, "ip6tables", Backend::Nft, "PROMISC")?[0])
}

fn ipv6_stream(extensions: Vec<Extension>, count: usize, length: usize) -> Vec<Vec<u8>> {
    let ip = Ip { extensions, ..Ip::between("2001:db8::1", "2001:db8::2") };
    ip.stream((1, 80), count, &vec![7; length]).iter().map(|packet| mirrored(packet)).collect()
}

guest_test!(extension_headers_of_merged_ipv6_segments_are_counted, |guest| {
    let frames = ipv6_stream(vec![Extension::HopByHop(vec![]), Extension::Destination(vec![0; 20])], 500, 1000);
    let (packets, _) = merged_ipv6(guest, "true", &frames)?;
    ensure!(packets < 250, "GRO left {packets} of 500 packets");
});

// In an aggregate of more than 64 KiB, GRO adds a hop-by-hop header, which was not on the wire.
guest_test!(the_jumbo_header_of_large_ipv6_aggregates_is_not_counted, |guest| {
    let frames = ipv6_stream(vec![], 200, 20_000);
    let (packets, bytes) = merged_ipv6(guest, "ip link set dev eth0 gro_max_size 262144", &frames)?;
    ensure!(bytes / packets > 65_575, "GRO made {packets} packets of {bytes} bytes");
});
