// SPDX-License-Identifier: GPL-2.0

//! Compares the accounting with the independent model, for packets of every kind.

use crate::{
    comparison::bytes,
    support::{check, few_under_miri},
};
use core::net::{IpAddr, Ipv6Addr};
use proptest::{collection::vec, prelude::any};
use std::{fs, path::Path};
use traffic_model::frames::{Generator, DOT1AD, DOT1Q, IPV4, IPV6};

/// The EtherType and the payload of a frame, after its VLAN tags.
fn packet(frame: &[u8]) -> (u16, &[u8]) {
    let mut at = 12;
    loop {
        let kind = frame
            .get(at..at + 2)
            .map_or(0, |kind| u16::from_be_bytes([kind[0], kind[1]]));
        match kind {
            DOT1Q | DOT1AD => at += 4,
            kind => return (kind, frame.get(at + 2..).unwrap_or_default()),
        }
    }
}

/// An input for [`bytes::check`] with generated packets of one family, valid and broken ones.
fn generated(seed: u64, six: bool) -> Vec<u8> {
    let four = (1..6).map(|n| IpAddr::from([10, 0, 0, n]));
    let all = four.chain((1..6).map(|n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n).into()));
    let frames: Vec<_> = Generator::new(seed, [2, 0, 0, 0, 0, 9], all.collect())
        .take(50)
        .collect();
    let kind = if six { IPV6 } else { IPV4 };
    let packets = frames
        .iter()
        .map(|frame| packet(frame))
        .filter(|(other, _)| *other == kind);
    bytes::input_of(six, packets.map(|(_, packet)| packet))
}

#[test]
fn generated_packets_count_as_in_the_model() {
    for seed in 0..few_under_miri(300).into() {
        bytes::check(&generated(seed, false));
        bytes::check(&generated(seed, true));
    }
}

/// The rule, the times and the packets of a generated input are changed at random.
#[test]
fn damaged_inputs_count_as_in_the_model() {
    let random = &mut fastrand::Rng::with_seed(7);
    for seed in 0..few_under_miri(600).into() {
        let mut input = generated(seed, random.bool());
        random.fill(&mut input[1..4]);
        for _ in 0..random.usize(..60) {
            let place = random.usize(..input.len());
            input[place] = random.u8(..);
        }
        bytes::check(&input);
    }
}

#[test]
fn any_bytes_count_as_in_the_model() {
    check(512, vec(any::<u8>(), 0..400), |input| bytes::check(&input));
}

/// The inputs with which the fuzzer reached new code.
#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn seeds_of_the_fuzzer_count_as_in_the_model() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    let files = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let inputs: Vec<_> = files.map(|file| fs::read(file).unwrap()).collect();
    assert!(
        inputs.len() > 10,
        "only {} inputs in {}",
        inputs.len(),
        folder.display()
    );
    inputs.iter().for_each(|input| bytes::check(input));
}
