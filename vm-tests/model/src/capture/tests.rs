// SPDX-License-Identifier: GPL-2.0-only
//! Captures that the tests write themselves.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// A byte order: whether it is big-endian.
type Order = bool;

const ORDERS: [Order; 2] = [false, true];
const MICROS: u32 = 0xa1b2_c3d4;
const NANOS: u32 = 0xa1b2_3c4d;

fn u32s(big: Order, numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| if big { n.to_be_bytes() } else { n.to_le_bytes() }).collect()
}

fn u16s(big: Order, numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|n| if big { n.to_be_bytes() } else { n.to_le_bytes() }).collect()
}

fn pcap(order: Order, magic: u32, snaplen: u32, link: u32, frames: &[&[u8]]) -> Vec<u8> {
    let mut file = [u32s(order, &[magic]), u16s(order, &[2, 4]), u32s(order, &[0, 0, snaplen, link])].concat();
    for frame in frames {
        let length = frame.len() as u32;
        file.extend(u32s(order, &[1, 2, length, length]));
        file.extend(*frame);
    }
    file
}

fn block(order: Order, kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let length = body.len() as u32 + 12;
    [u32s(order, &[kind, length]), body, u32s(order, &[length])].concat()
}

fn section(order: Order) -> Vec<u8> {
    block(order, 0x0a0d_0d0a, &[u32s(order, &[0x1a2b_3c4d]), u16s(order, &[1, 0]), vec![0xff; 8]].concat())
}

fn interface(order: Order, link: u16, snaplen: u32) -> Vec<u8> {
    block(order, 1, &[u16s(order, &[link, 0]), u32s(order, &[snaplen])].concat())
}

fn enhanced(order: Order, interface: u32, frame: &[u8], original: u32, options: &[u8]) -> Vec<u8> {
    let mut body = u32s(order, &[interface, 0, 0, frame.len() as u32, original]);
    body.extend(frame);
    body.resize(body.len().next_multiple_of(4), 0);
    body.extend(options);
    block(order, 6, &body)
}

fn simple(order: Order, frame: &[u8], original: u32) -> Vec<u8> {
    block(order, 3, &[&u32s(order, &[original]), frame].concat())
}

fn frames_of(file: &[u8]) -> Vec<Vec<u8>> {
    Capture::read(file).unwrap().frames().map(<[u8]>::to_vec).collect()
}

fn error_of(file: &[u8]) -> String {
    format!("{:#}", Capture::read(file).unwrap_err())
}

#[test]
fn pcap_in_every_byte_order_and_resolution() {
    for order in ORDERS {
        for magic in [MICROS, NANOS] {
            let file = pcap(order, magic, 65535, 1, &[b"first", b"", b"third frame"]);
            assert_eq!(frames_of(&file), [b"first".to_vec(), b"".to_vec(), b"third frame".to_vec()]);
        }
    }
}

#[test]
fn snap_length_does_not_matter() {
    for snaplen in [0, 3, 0x7fff_ffff, u32::MAX] {
        assert_eq!(frames_of(&pcap(ORDERS[0], MICROS, snaplen, 1, &[b"longer than three"])).len(), 1);
    }
}

#[test]
fn frames_of_64_kib() {
    let frame = vec![7; 65_549];
    assert_eq!(frames_of(&pcap(ORDERS[1], NANOS, 262_144, 1, &[&frame])), [frame]);
}

#[test]
fn empty_captures() {
    for order in ORDERS {
        assert_eq!(Capture::read(&*pcap(order, MICROS, 65535, 1, &[])).unwrap().frames().len(), 0);
        assert_eq!(Capture::read(&*section(order)).unwrap().frames().len(), 0);
        assert!(Capture::read(&*section(order)).unwrap().warnings().is_empty());
    }
}

#[test]
fn frame_check_sequence_bits_are_not_part_of_the_link_type() {
    assert_eq!(frames_of(&pcap(ORDERS[0], MICROS, 65535, 0x4400_0001, &[b"frame"])).len(), 1);
}

#[test]
fn other_link_types_are_refused() {
    let error = error_of(&pcap(ORDERS[0], MICROS, 65535, 101, &[b"packet"]));
    assert_eq!(error, "the file has link type 101; only Ethernet (link type 1) can be replayed");
    let file = [section(ORDERS[1]), interface(ORDERS[1], 1, 0), interface(ORDERS[1], 276, 0)].concat();
    assert_eq!(Capture::read(&*file).unwrap().frames().len(), 0, "an interface without frames may have any link type");
    let file = [file, enhanced(ORDERS[1], 1, b"packet", 6, &[])].concat();
    let error = error_of(&file);
    assert!(error.contains("interface 1 has link type 276;"), "{error}");
}

#[test]
fn frames_before_an_incomplete_record_are_used() {
    let file = pcap(ORDERS[0], MICROS, 65535, 1, &[b"whole", b"incomplete"]);
    for cut in [1, 8, 9, 20] {
        let capture = Capture::read(&file[..file.len() - cut]).unwrap();
        assert_eq!(capture.frames().collect::<Vec<_>>(), [b"whole"]);
        assert_eq!(capture.warnings(), ["the file ends within a record; the 1 frames before it are used"]);
    }
    let parts = [section(ORDERS[0]), interface(ORDERS[0], 1, 0), simple(ORDERS[0], b"whole", 5)].concat();
    let file = [parts, simple(ORDERS[0], b"incomplete", 10)].concat();
    for cut in [1, 4, 20] {
        let capture = Capture::read(&file[..file.len() - cut]).unwrap();
        assert_eq!(capture.frames().collect::<Vec<_>>(), [b"whole"]);
        assert_eq!(capture.warnings().len(), 1);
    }
}

#[test]
fn truncated_frames_cause_a_warning() {
    let mut file = pcap(ORDERS[0], MICROS, 64, 1, &[b"cut"]);
    file[24 + 12] = 200;
    let capture = Capture::read(&*file).unwrap();
    assert_eq!(capture.frames().collect::<Vec<_>>(), [b"cut"]);
    assert!(capture.warnings()[0].starts_with("1 frames were truncated"));
}

#[test]
fn pcapng_sections_interfaces_and_blocks() {
    let mut file = Vec::new();
    let options = [1, 0, 3, 0, b'h', b'i', b'!', 0, 0, 0, 0, 0];
    for order in [ORDERS[0], ORDERS[1], ORDERS[0]] {
        file.extend(section(order));
        file.extend(interface(order, 1, 4));
        file.extend(block(order, 0x0bad_cafe, b"something new"));
        file.extend(interface(order, 1, 0));
        file.extend(enhanced(order, 1, b"enhanced", 8, &options));
        file.extend(simple(order, b"simp", 6));
    }
    let once = [&b"enhanced"[..], b"simp"];
    assert_eq!(frames_of(&file), once.repeat(3));
}

#[test]
fn simple_packets_without_snap_length_lose_their_padding() {
    let file = [section(ORDERS[1]), interface(ORDERS[1], 1, 0), simple(ORDERS[1], b"seven b", 7)].concat();
    assert_eq!(frames_of(&file), [b"seven b"]);
}

#[test]
fn gzip_with_several_members_incomplete_and_with_trailing_garbage() {
    let file = pcap(ORDERS[0], MICROS, 65535, 1, &[b"first", b"second"]);
    let pack = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(frames_of(&pack(&file)).len(), 2);
    let (one, two) = file.split_at(30);
    assert_eq!(frames_of(&[pack(one), pack(two)].concat()).len(), 2);
    assert_eq!(frames_of(&[pack(&file), vec![0; 512]].concat()).len(), 2);
    let packed = pack(&file);
    let incomplete = Capture::read(&packed[..packed.len() - 9]).unwrap();
    assert!(incomplete.frames().len() <= 2);
    assert!(incomplete.warnings()[0].contains("too early") || incomplete.warnings()[0].contains("ends within"));
    let ng = [section(ORDERS[1]), interface(ORDERS[1], 1, 0), simple(ORDERS[1], b"frame", 5)].concat();
    assert_eq!(frames_of(&pack(&ng)), [b"frame"]);
}

#[test]
fn files_that_are_not_captures_are_refused() {
    assert!(error_of(b"").contains("neither"));
    assert!(error_of(b"#!/bin/sh\n").contains("neither"));
    assert!(error_of(&[0x1f, 0x8b, 9, 9, 9, 9, 9, 9, 9, 9, 9]).contains("gzip"));
    assert!(error_of(&pcap(ORDERS[0], MICROS, 0, 1, &[])[..20]).contains("ends within its header"));
    let mut file = pcap(ORDERS[0], MICROS, 65535, 1, &[b"frame"]);
    file[24 + 8..24 + 12].copy_from_slice(&[0xff; 4]);
    assert!(error_of(&file).contains("frame 1 is longer than"), "{}", error_of(&file));
    let file = [section(ORDERS[0]), enhanced(ORDERS[0], 0, b"frame", 5, &[])].concat();
    assert!(error_of(&file).contains("interface 0, which is not described"));
}
