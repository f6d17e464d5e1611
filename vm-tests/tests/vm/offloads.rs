// SPDX-License-Identifier: GPL-2.0
//! Bytes on the wire, however the receiving side puts packets together.

use anyhow::{Result, ensure};
use insta::assert_snapshot;
use vm_tests::frames::{ACK, ALICE, BOB, DOT1Q, Ethernet, FIN, IPV4, Ipv4, mirrored, tcp_stream};
use vm_tests::guest::Guest;
use vm_tests::model::Rule;

use crate::support::{BACKENDS, count, counters, expected, in_guest};

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
