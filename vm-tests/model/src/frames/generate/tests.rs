// SPDX-License-Identifier: GPL-2.0-only
//! The generator covers everything that the tests in QEMU compare.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::frames::Extension;
use crate::model::{Expected, File, Rule};

const PORT: Mac = [2; 6];

/// 40 addresses of each family.
fn addresses() -> Vec<IpAddr> {
    let ipv4 = (0..40).map(|n| Ipv4Addr::new(172, 20, 0, n).into());
    ipv4.chain((0..40).map(|n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n).into())).collect()
}

fn frames(seed: u64, count: usize) -> Vec<Vec<u8>> {
    Generator::new(seed, PORT, addresses()).take(count).collect()
}

#[test]
fn the_same_seed_gives_the_same_frames() {
    assert_eq!(frames(1, 500), frames(1, 500));
    assert_ne!(frames(1, 500), frames(2, 500));
}

#[test]
fn no_frame_is_empty_and_most_are_valid() {
    let frames = frames(7, 5000);
    assert!(frames.iter().all(|frame| !frame.is_empty()));
    let valid = frames.iter().filter(|frame| etherparse::SlicedPacket::from_ethernet(frame).is_ok()).count();
    assert!((2000..4900).contains(&valid), "{valid} of 5000 are valid");
}

#[test]
fn addresses_of_one_family_make_frames_of_that_family() {
    let kind = |frame: &Vec<u8>| (frame.len() > 14).then(|| u16::from_be_bytes([frame[12], frame[13]]));
    let kinds = |address: IpAddr| {
        let frames: Vec<_> = Generator::new(7, PORT, vec![address]).take(2000).collect();
        [IPV4, IPV6].map(|ethertype| frames.iter().filter(|frame| kind(frame) == Some(ethertype)).count())
    };
    let ([four, few], [fewer, six]) = (kinds(addresses()[0]), kinds(addresses()[40]));
    assert!(four > 600 && few < 100, "{four} and {few}");
    assert!(six > 600 && fewer < 100, "{six} and {fewer}");
}

/// In both families each column of each file has counts, and most packets do not start a
/// connection.
#[test]
fn connections_of_all_kinds() {
    let frames = frames(3, 6000);
    for rule in [Rule::ALL_IPV4, Rule::ALL_IPV6] {
        let expected = Expected::of(&rule.with(&File::ALL), PORT, &frames);
        let started = expected.started.len();
        assert!(started > 400 && 3 * started < expected.packets as usize, "{started} of {}", expected.packets);
        for file in File::ALL {
            let text = expected.text_of(file);
            let rows: Vec<Vec<u64>> = text
                .lines()
                .skip(1)
                .map(|row| row.split('\t').skip(1).map(|cell| cell.parse().unwrap()).collect())
                .collect();
            for column in 0..rows[0].len() {
                let many = rows.iter().filter(|row| row[column] > 0).count();
                // Only port 0 has connections of ICMP and of other protocols.
                let few = file == File::Portconn && column >= 6;
                assert!(many >= if few { 1 } else { 10 }, "{many} rows with column {column} in {file:?}");
            }
        }
    }
}

/// Many packets belong to flows that have started before.
#[test]
fn conversations_have_two_directions() {
    let frames = frames(5, 6000);
    let rule = Rule::ALL_IPV4.with(&[File::Portconn]);
    let together = Expected::of(&rule, PORT, &frames).started.len();
    // Alone, each whole packet of UDP and of other protocols starts a connection.
    let apart = frames.iter().filter(|frame| !Expected::of(&rule, PORT, [frame]).started.is_empty()).count();
    assert!(apart > together + 10, "{together} together, {apart} apart");
}

#[test]
fn all_extension_headers_occur() {
    let mut generator = Generator::new(9, PORT, vec![Ipv6Addr::LOCALHOST]);
    let chains: Vec<Vec<Extension>> = (0..2000).map(|_| generator.extensions()).collect();
    for number in [0, 43, 44, 51, 60] {
        assert!(chains.iter().filter(|chain| chain.iter().any(|header| header.number() == number)).count() > 50);
    }
    for count in [0, 1, 15, 16, 17] {
        assert!(chains.iter().any(|chain| chain.len() == count), "no chain of {count}");
    }
}
