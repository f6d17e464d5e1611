// SPDX-License-Identifier: GPL-2.0
//! What the tests in QEMU need from the generator: nothing that they are to compare may be missing.

use super::*;
use crate::frames::Extension;
use crate::model::{Expected, File, Rule};

const BOX: Mac = [2; 6];

/// As many of each family.
fn people() -> Vec<IpAddr> {
    let four = (0..40).map(|n| Ipv4Addr::new(172, 20, 0, n).into());
    four.chain((0..40).map(|n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n).into())).collect()
}

fn frames(seed: u64, count: usize) -> Vec<Vec<u8>> {
    Generator::new(seed, BOX, people()).take(count).collect()
}

#[test]
fn the_same_seed_gives_the_same_frames() {
    assert_eq!(frames(1, 500), frames(1, 500));
    assert_ne!(frames(1, 500), frames(2, 500));
}

#[test]
fn no_frame_is_empty_and_most_are_whole() {
    let frames = frames(7, 5000);
    assert!(frames.iter().all(|frame| !frame.is_empty()));
    let whole = frames.iter().filter(|frame| etherparse::SlicedPacket::from_ethernet(frame).is_ok()).count();
    assert!((2000..4900).contains(&whole), "{whole} of 5000 are whole");
}

#[test]
fn one_family_talks_alone() {
    let kind = |frame: &Vec<u8>| (frame.len() > 14).then(|| u16::from_be_bytes([frame[12], frame[13]]));
    let kinds = |address: IpAddr| {
        let frames: Vec<_> = Generator::new(7, BOX, vec![address]).take(2000).collect();
        [IPV4, IPV6].map(|ethertype| frames.iter().filter(|frame| kind(frame) == Some(ethertype)).count())
    };
    let ([four, few], [fewer, six]) = (kinds(people()[0]), kinds(people()[40]));
    assert!(four > 600 && few < 100, "{four} and {few}");
    assert!(six > 600 && fewer < 100, "{six} and {fewer}");
}

/// Each column of each file gets something in both families, and for each class there are packets that start
/// nothing.
#[test]
fn connections_of_all_kinds() {
    let frames = frames(3, 6000);
    for rule in [Rule::everything(), Rule::everything6()] {
        let expected = Expected::of(&rule.with(&File::ALL), BOX, &frames);
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
                // Only port 0 has connections of ICMP and other protocols.
                let few = file == File::Portconn && column >= 6;
                assert!(many >= if few { 1 } else { 10 }, "{many} rows with column {column} in {file:?}");
            }
        }
    }
}

/// Of the flows that are talked on, many are answered.
#[test]
fn conversations_have_two_directions() {
    let frames = frames(5, 6000);
    let rule = Rule::everything().with(&[File::Portconn]);
    let together = Expected::of(&rule, BOX, &frames).started.len();
    // Without memory of each other's frames, every packet of UDP and others would be the first.
    let apart = frames.iter().filter(|frame| !Expected::of(&rule, BOX, [frame]).started.is_empty()).count();
    assert!(apart > together * 11 / 10, "{together} together, {apart} apart");
}

#[test]
fn every_extension_header_comes() {
    let mut generator = Generator::new(9, BOX, vec![Ipv6Addr::LOCALHOST]);
    let chains: Vec<Vec<Extension>> = (0..2000).map(|_| generator.extensions()).collect();
    for number in [0, 43, 44, 51, 60] {
        assert!(chains.iter().filter(|chain| chain.iter().any(|header| header.number() == number)).count() > 50);
    }
    for count in [0, 1, 15, 16, 17] {
        assert!(chains.iter().any(|chain| chain.len() == count), "no chain of {count}");
    }
}
