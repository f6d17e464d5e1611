// SPDX-License-Identifier: GPL-2.0
//! The sample tables of the description, by traffic that makes them.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use insta::assert_snapshot;
use traffic_model::frames::{ACK, Ipv4, SYN, mirrored};

use crate::support::{BACKENDS, in_guest, iptables, table};

const ONE: [u8; 4] = [172, 20, 0, 1];
const TWO: [u8; 4] = [172, 20, 0, 2];
const OUTSIDE: [u8; 4] = [192, 0, 2, 53];

fn ip(from: [u8; 4], to: [u8; 4]) -> Ipv4 {
    Ipv4::new(Ipv4Addr::from(from), Ipv4Addr::from(to))
}

/// So many echo requests, with their replies.
fn pings(count: u16) -> Vec<Vec<u8>> {
    let reply = |n: u16| {
        let mut packet = ip(ONE, TWO).ping(n, b"");
        packet[20] = 0;
        packet
    };
    (0..count).flat_map(|n| [ip(TWO, ONE).ping(n, b""), reply(n)]).collect()
}

/// A connection that is answered, and whose first segment comes twice.
fn connection(from: [u8; 4], to: [u8; 4], ports: (u16, u16)) -> Vec<Vec<u8>> {
    let (there, back) = (ip(from, to), ip(to, from));
    let syn = there.tcp(ports, 100, SYN, b"");
    let answer = back.tcp((ports.1, ports.0), 900, SYN | ACK, b"");
    vec![syn.clone(), syn, answer, there.tcp(ports, 101, ACK, b"hello")]
}

/// A question and an answer.
fn query(from: [u8; 4], to: [u8; 4], port: u16) -> Vec<Vec<u8>> {
    vec![ip(from, to).udp((port, 53), b"?"), ip(to, from).udp((53, port), b"!")]
}

/// Counts with both back ends and gives the table that both have.
fn counted(option: &str, file: &str, packets: &[Vec<u8>]) -> Result<String> {
    let mut tables = vec![];
    in_guest(|guest| {
        for backend in BACKENDS {
            let rule = format!("-A PROMISC -m traffic {option} --net 172.20.0.0/16 --name {backend}");
            iptables(guest, backend, &rule)?;
        }
        guest.open_port(0)?;
        guest.send(0, packets.iter().map(|packet| mirrored(packet)))?;
        for backend in BACKENDS {
            tables.push(table(guest, &format!("{backend}{file}"))?);
        }
        Ok(())
    });
    ensure!(tables[0] == tables[1], "nft counts\n{}and legacy counts\n{}", tables[0], tables[1]);
    Ok(tables.remove(0))
}

#[test]
fn connections_per_address() -> Result<()> {
    let packets = [
        pings(614),
        connection(TWO, ONE, (40_000, 22)),
        connection(OUTSIDE, TWO, (40_001, 22)),
        query(OUTSIDE, TWO, 40_002),
        query(OUTSIDE, TWO, 40_003),
    ];
    assert_snapshot!("connections_per_address", counted("--ipconn", ".ipconn", &packets.concat())?);
    Ok(())
}

#[test]
fn connections_per_port() -> Result<()> {
    let packets = [
        pings(313),
        connection(TWO, ONE, (40_000, 22)),
        connection(OUTSIDE, TWO, (40_001, 22)),
        query(OUTSIDE, TWO, 40_002),
        query(TWO, OUTSIDE, 40_003),
    ];
    assert_snapshot!("connections_per_port", counted("--portconn", ".portconn", &packets.concat())?);
    Ok(())
}

/// The bytes of 193.11.177.9, which only receives.
#[test]
fn bytes_per_address() -> Result<()> {
    let to = |size: usize, protocol: u8| ip([198, 51, 100, 1], [193, 11, 177, 9]).packet(protocol, &vec![0; size - 20]);
    let many = |count: usize, size: usize, protocol: u8| vec![to(size, protocol); count];
    let packets = [many(2, 1500, 6), many(1, 1418, 6), many(1, 76, 17), many(111, 1500, 47), many(1, 727, 50)].concat();
    in_guest(|guest| {
        for backend in BACKENDS {
            let rule = "--netmask 255.255.240.0 --netbase 193.11.176.0 --nointernal";
            iptables(guest, backend, &format!("-A PROMISC -m traffic --traffic {rule} --name {backend}"))?;
        }
        guest.open_port(0)?;
        guest.send(0, packets.iter().map(|packet| mirrored(packet)))?;
        for backend in BACKENDS {
            assert_snapshot!("bytes_per_address", table(guest, &backend.to_string())?);
        }
        Ok(())
    });
    Ok(())
}
