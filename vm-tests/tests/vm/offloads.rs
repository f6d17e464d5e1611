// SPDX-License-Identifier: GPL-2.0
//! Bytes on the wire, however the receiving side puts packets together.

use anyhow::{Result, ensure};
use insta::assert_snapshot;
use traffic_model::frames::{
    ACK, ALICE, BOB, DOT1Q, Ethernet, Extension, FIN, IPV4, Ip, Ipv4, Ipv6, mirrored, tcp_stream,
};
use traffic_model::model::{Rule, same_table};
use vm_harness::guest::Guest;
use vm_harness::replay::Backend;

use crate::support::{BACKENDS, count, counters, counters6, expected, in_guest, iptables, table};

const SEGMENTS: usize = 2000;

/// Two connections side by side, one of them in a VLAN; the last segments are shorter, and one of them ends the
/// connection.
fn streams() -> Vec<Vec<u8>> {
    let plain = Ipv4::new([10, 0, 0, 1], [192, 0, 2, 1]);
    let tagged = Ipv4::new([10, 0, 0, 2], [192, 0, 2, 2]);
    let vlan = Ethernet::new(ALICE, BOB).tag(DOT1Q, 7);
    let mut frames = Vec::new();
    let both = tcp_stream(&plain, (1, 80), SEGMENTS / 2, 1448).into_iter().zip(tcp_stream(
        &tagged,
        (2, 80),
        SEGMENTS / 2,
        1000,
    ));
    for (one, other) in both {
        frames.push(mirrored(&one));
        frames.push(vlan.wrap(IPV4, &other));
    }
    frames.push(mirrored(&plain.tcp((1, 80), 1 + 1448 * SEGMENTS as u32 / 2, ACK, &[0; 77])));
    frames.push(vlan.wrap(IPV4, &tagged.tcp((2, 80), 1 + 1000 * SEGMENTS as u32 / 2, ACK | FIN, b"")));
    frames
}

/// Counts the streams with an offload switched on or off. Gives how many packets the rule saw.
fn packets_seen(guest: &mut Guest, feature: &str, frames: &[Vec<u8>]) -> Result<u64> {
    guest.must(&format!("ethtool -K eth0 {feature}"))?;
    let text = count(guest, "--net 0.0.0.0/0", frames)?;
    ensure!(text == expected(&Rule::everything(), frames).text(), "with {feature} the kernel counts\n{text}");
    // The snapshot has one name, so the text is the same with every feature.
    assert_snapshot!("tcp_streams", text);
    let [nft, legacy] = BACKENDS.map(|backend| counters(guest, backend, "PROMISC"));
    let (nft, legacy) = (nft?, legacy?);
    ensure!(nft == legacy, "{nft:?} and {legacy:?}");
    Ok(nft[0].0)
}

#[test]
fn merged_tcp_segments_count_with_all_their_headers() {
    in_guest(|guest| {
        let frames = streams();
        let seen = packets_seen(guest, "gro on", &frames)?;
        // The stack merged most of them, so this test is about something.
        ensure!(seen < frames.len() as u64 / 2, "GRO left {seen} of {} packets", frames.len());
        Ok(())
    });
}

#[test]
fn unmerged_tcp_segments_count_the_same() {
    in_guest(|guest| {
        let frames = streams();
        let seen = packets_seen(guest, "gro off", &frames)?;
        ensure!(seen == frames.len() as u64, "the rule saw {seen} of {} packets", frames.len());
        Ok(())
    });
}

/// Datagrams of one size, which GRO merges for forwarding.
fn datagrams() -> Vec<Vec<u8>> {
    let ip = Ipv4::new([10, 0, 0, 1], [192, 0, 2, 1]);
    let mut frames: Vec<_> = (0..SEGMENTS).map(|_| mirrored(&ip.udp((1, 443), &[7; 1200]))).collect();
    frames.push(mirrored(&ip.udp((1, 443), &[7; 300])));
    frames
}

#[test]
fn merged_datagrams_count_with_all_their_headers() {
    for feature in ["rx-udp-gro-forwarding on", "rx-gro-list on"] {
        in_guest(|guest| {
            let frames = datagrams();
            guest.must(&format!("ethtool -K eth0 gro on {feature}"))?;
            let text = count(guest, "--net 0.0.0.0/0", &frames)?;
            assert_snapshot!("datagrams", text);
            let seen = counters(guest, BACKENDS[0], "PROMISC")?[0].0;
            ensure!(seen < frames.len() as u64 / 2, "with {feature} GRO left {seen} of {} packets", frames.len());
            Ok(())
        });
    }
}

/// What a capture holds that was taken on a sender with segmentation offload: segments of up to 64 KiB.
#[test]
fn segments_of_64_kib_count_as_they_are() {
    let ip = Ipv4::new([10, 0, 0, 1], [192, 0, 2, 1]);
    let frames: Vec<_> = tcp_stream(&ip, (1, 80), 50, 65_495).iter().map(|packet| mirrored(packet)).collect();
    in_guest(|guest| {
        let text = count(guest, "--net 0.0.0.0/0", &frames)?;
        assert_snapshot!("segments_of_64_kib", text);
        ensure!(text == expected(&Rule::everything(), &frames).text());
        Ok(())
    });
}

/// Counts an IPv6 stream with all that follows from `setup`, and gives the packets and bytes that the rule saw.
fn merged_ipv6(setup: &str, frames: &[Vec<u8>]) -> (u64, u64) {
    let mut seen = (0, 0);
    in_guest(|guest| {
        guest.must(&format!("ethtool -K eth0 gro on && {setup}"))?;
        iptables(guest, Backend::Nft, "ip6tables -A PROMISC -m traffic --traffic --net ::/0 --name six")?;
        guest.open_port(0)?;
        guest.send(0, frames)?;
        same_table("six", &table(guest, "six")?, &expected(&Rule::everything6(), frames).text())?;
        seen = counters6(guest, Backend::Nft, "PROMISC")?[0];
        Ok(())
    });
    seen
}

fn ipv6(extensions: Vec<Extension>) -> Ip {
    let ip = Ipv6 { source: "2001:db8::1".parse().unwrap(), destination: "2001:db8::2".parse().unwrap() };
    Ip::V6(ip, extensions)
}

#[test]
fn merged_ipv6_segments_count_with_their_extension_headers() {
    let ip = ipv6(vec![Extension::HopByHop(vec![]), Extension::Destination(vec![0; 20])]);
    let frames: Vec<_> = ip.stream((1, 80), 500, &[7; 1000]).iter().map(|packet| ip.mirrored(packet)).collect();
    let (packets, _) = merged_ipv6("true", &frames);
    assert!(packets < 250, "GRO left {packets} of 500 packets");
}

/// An aggregate of more than 64 KiB has a hop-by-hop header of which there was nothing on the wire.
#[test]
fn large_ipv6_aggregates_count_as_their_segments() {
    let ip = ipv6(vec![]);
    let frames: Vec<_> = ip.stream((1, 80), 200, &[7; 20_000]).iter().map(|packet| ip.mirrored(packet)).collect();
    let (packets, bytes) = merged_ipv6("ip link set dev eth0 gro_max_size 262144", &frames);
    assert!(bytes / packets > 65_575, "GRO made {packets} packets of {bytes} bytes");
}
