// SPDX-License-Identifier: GPL-2.0-only
//! The sample tables of the specification, and traffic that produces them.

use anyhow::Result;
use insta::assert_snapshot;
use traffic_model::frames::{ACK, Ip, SYN, mirrored};
use traffic_model::model::File;
use vm_harness::guest::Guest;
use vm_tests::{count_in, guest_test};

const ONE: [u8; 4] = [172, 20, 0, 1];
const TWO: [u8; 4] = [172, 20, 0, 2];
const OUTSIDE: [u8; 4] = [192, 0, 2, 53];

/// Echo requests with their replies.
fn pings(count: u16) -> Vec<Vec<u8>> {
    let reply = |n: u16| {
        let mut packet = Ip::new(ONE, TWO).ping(n, b"");
        packet[20] = 0;
        packet
    };
    (0..count).flat_map(|n| [Ip::new(TWO, ONE).ping(n, b""), reply(n)]).collect()
}

/// A TCP connection with a retransmitted SYN.
fn connection(from: [u8; 4], to: [u8; 4], ports: (u16, u16)) -> Vec<Vec<u8>> {
    let (there, back) = (Ip::new(from, to), Ip::new(to, from));
    let syn = there.tcp(ports, 100, SYN, b"");
    let syn_ack = back.tcp((ports.1, ports.0), 900, SYN | ACK, b"");
    vec![syn.clone(), syn, syn_ack, there.tcp(ports, 101, ACK, b"hello")]
}

/// A DNS query with its answer.
fn query(from: [u8; 4], to: [u8; 4], port: u16) -> Vec<Vec<u8>> {
    vec![Ip::new(from, to).udp((port, 53), b"?"), Ip::new(to, from).udp((53, port), b"!")]
}

/// Counts packets.
fn check(guest: &mut Guest, snapshot: &str, file: File, options: &str, packets: &[Vec<u8>]) -> Result<()> {
    let frames: Vec<_> = packets.iter().map(|packet| mirrored(packet)).collect();
    assert_snapshot!(snapshot, count_in(guest, file, options, &frames)?);
    Ok(())
}

guest_test!(connections_per_address, |guest| {
    let packets = [
        pings(614),
        connection(TWO, ONE, (40_000, 22)),
        connection(OUTSIDE, TWO, (40_001, 22)),
        query(OUTSIDE, TWO, 40_002),
        query(OUTSIDE, TWO, 40_003),
    ];
    check(guest, "connections_per_address", File::Ipconn, "--ipconn --net 172.20.0.0/16", &packets.concat())?;
});

guest_test!(connections_per_port, |guest| {
    let packets = [
        pings(313),
        connection(TWO, ONE, (40_000, 22)),
        connection(OUTSIDE, TWO, (40_001, 22)),
        query(OUTSIDE, TWO, 40_002),
        query(TWO, OUTSIDE, 40_003),
    ];
    check(guest, "connections_per_port", File::Portconn, "--portconn --net 172.20.0.0/16", &packets.concat())?;
});

// 193.11.177.9 only receives.
guest_test!(bytes_per_address, |guest| {
    let to =
        |size: usize, protocol: u8| Ip::new([198, 51, 100, 1], [193, 11, 177, 9]).packet(protocol, &vec![0; size - 20]);
    let many = |count: usize, size: usize, protocol: u8| vec![to(size, protocol); count];
    let packets = [many(2, 1500, 6), many(1, 1418, 6), many(1, 76, 17), many(111, 1500, 47), many(1, 727, 50)].concat();
    let options = "--traffic --netmask 255.255.240.0 --netbase 193.11.176.0 --nointernal";
    check(guest, "bytes_per_address", File::Traffic, options, &packets)?;
});
