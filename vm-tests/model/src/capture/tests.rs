// SPDX-License-Identifier: GPL-2.0-only
//! Captures that the tests write themselves.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;
use crate::frames::{ALICE, BOB, Ip, mirrored};

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

/// The timestamps are 1 s and two units.
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
    interface_with(order, link, snaplen, &[])
}

fn interface_with(order: Order, link: u16, snaplen: u32, options: &[u8]) -> Vec<u8> {
    block(order, 1, &[&u16s(order, &[link, 0])[..], &u32s(order, &[snaplen]), options].concat())
}

fn enhanced_at(order: Order, interface: u32, time: u64, frame: &[u8]) -> Vec<u8> {
    let length = frame.len() as u32;
    let body = u32s(order, &[interface, (time >> 32) as u32, time as u32, length, length]);
    block(order, 6, &[&body, frame].concat())
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
            let file = pcap(order, magic, 65535, 1, &[b"the first frame", b"", b"the third frame"]);
            assert_eq!(frames_of(&file), [b"the first frame", b"the third frame"]);
            let records = Capture::read(&*file).unwrap().records;
            assert_eq!(records[1].frame, Err(Unsendable::Incomplete));
            let fraction = if magic == MICROS { 2000 } else { 2 };
            assert_eq!(records[2].timestamp, Some(1_000_000_000 + fraction));
        }
    }
}

#[test]
fn snap_length_does_not_matter() {
    for snaplen in [0, 3, 0x7fff_ffff, u32::MAX] {
        assert_eq!(frames_of(&pcap(ORDERS[0], MICROS, snaplen, 1, &[b"longer than three bytes"])).len(), 1);
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
        assert_eq!(Capture::read(&*pcap(order, MICROS, 65535, 1, &[])).unwrap().records().len(), 0);
        assert_eq!(Capture::read(&*section(order)).unwrap().records().len(), 0);
        assert!(Capture::read(&*section(order)).unwrap().warnings().is_empty());
    }
}

#[test]
fn frame_check_sequence_bits_are_not_part_of_the_link_type() {
    assert_eq!(frames_of(&pcap(ORDERS[0], MICROS, 65535, 0x4400_0001, &[b"an Ethernet frame"])).len(), 1);
}

/// What is made of a record with a link type.
fn record(link: u32, captured: &[u8]) -> Result<Vec<u8>, Unsendable> {
    Capture::read(&*pcap(ORDERS[0], MICROS, 65535, link, &[captured])).unwrap().records.remove(0).frame
}

#[test]
fn frames_of_other_link_types_get_an_ethernet_header() {
    let four = Ip::new([10, 0, 0, 1], [10, 0, 0, 2]).udp((1, 2), b"data");
    let six = Ip::between("2001:db8::1", "2001:db8::2").udp((1, 2), b"data");
    let header = [&BOB[..], &ALICE].concat();
    let sll = |protocol: [u8; 2]| [&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 9, 0, 0][..], &protocol].concat();
    let sll2 = |protocol: [u8; 2]| [&protocol[..], &[0; 6], &[0, 1, 0, 6, 2, 0, 0, 0, 0, 9, 0, 0]].concat();
    let tag = [0, 5, 8, 0];
    let cases = [
        (12, vec![], &four, [8, 0]),
        (14, vec![], &six, [0x86, 0xdd]),
        (101, vec![], &four, [8, 0]),
        (101, vec![], &six, [0x86, 0xdd]),
        (228, vec![], &four, [8, 0]),
        (229, vec![], &six, [0x86, 0xdd]),
        (0, vec![2, 0, 0, 0], &four, [8, 0]),
        (0, vec![0, 0, 0, 2], &four, [8, 0]),
        (0, vec![24, 0, 0, 0], &six, [0x86, 0xdd]),
        (0, vec![0, 0, 0, 28], &six, [0x86, 0xdd]),
        (0, vec![30, 0, 0, 0], &six, [0x86, 0xdd]),
        (108, vec![0, 0, 0, 24], &six, [0x86, 0xdd]),
        (113, sll([8, 0]), &four, [8, 0]),
        (113, [sll([0x81, 0]), tag.to_vec()].concat(), &four, [0x81, 0]),
        (276, sll2([8, 0]), &four, [8, 0]),
        (276, sll2([0x86, 0xdd]), &six, [0x86, 0xdd]),
    ];
    for (link, before, packet, kind) in cases {
        let tag: &[u8] = if kind == [0x81, 0] { &tag } else { &[] };
        let want = [&header[..], &kind, tag, packet].concat();
        assert_eq!(record(link, &[before, packet.clone()].concat()), Ok(want), "link type {link}");
    }
    assert_eq!(record(101, &four), Ok(mirrored(&four)));
    assert_eq!(record(1, &mirrored(&six)), Ok(mirrored(&six)));
}

#[test]
fn what_cannot_be_sent_has_a_reason() {
    let cases: [(u32, &[u8], &str); 12] = [
        (105, b"802.11", "link type 105 is not supported"),
        (1, &[0; 13], "the frame ends within its link-layer header"),
        (101, &[], "the frame ends within its link-layer header"),
        (0, &[2, 0, 0], "the frame ends within its link-layer header"),
        (113, &[0; 15], "the frame ends within its link-layer header"),
        (276, &[8; 19], "the frame ends within its link-layer header"),
        (101, &[0x50; 20], "the IP version 5 is neither 4 nor 6"),
        (0, &[7, 0, 0, 0], "the address family 7 is neither IPv4 nor IPv6"),
        (0, &[0, 0, 0, 7], "the address family 7 is neither IPv4 nor IPv6"),
        (108, &[0, 0, 0, 10], "the address family 10 is neither IPv4 nor IPv6"),
        (113, &[4; 20], "the protocol 0x0404 is not an EtherType"),
        (276, &[0; 20], "the protocol 0x0000 is not an EtherType"),
    ];
    for (link, captured, want) in cases {
        assert_eq!(record(link, captured).unwrap_err().to_string(), want, "link type {link}");
    }
}

#[test]
fn interfaces_of_one_file_have_their_own_link_types_and_times() {
    let packet = Ip::new([10, 0, 0, 1], [10, 0, 0, 2]).udp((1, 2), b"data");
    for order in ORDERS {
        let offset = if order { 100_i64.to_be_bytes() } else { 100_i64.to_le_bytes() };
        let resolution = |value| [u16s(order, &[9, 1]), vec![value, 0, 0, 0]].concat();
        let shifted = [u16s(order, &[14, 8]), offset.to_vec(), u16s(order, &[0, 0])].concat();
        let file = [
            section(order),
            interface_with(order, 1, 0, &[]),
            interface_with(order, 276, 0, &[resolution(9), u16s(order, &[0, 0])].concat()),
            interface_with(order, 101, 0, &[resolution(0x80 | 10), shifted].concat()),
            interface_with(order, 105, 0, &resolution(200)),
            enhanced_at(order, 0, 5_000_001, &mirrored(&packet)),
            enhanced_at(order, 1, 5_000_000_001, &[&[8, 0][..], &[0; 18], &packet].concat()),
            enhanced_at(order, 2, 3 << 10 | 1 << 9, &packet),
            simple(order, &mirrored(&packet), packet.len() as u32 + 14),
            enhanced_at(order, 3, 1 << 40, b"802.11"),
        ];
        let records = Capture::read(&*file.concat()).unwrap().records;
        let times: Vec<_> = records.iter().map(|record| record.timestamp).collect();
        let wanted = [5_000_001_000, 5_000_000_001, 103_500_000_000].map(Some);
        assert_eq!(times[..3], wanted);
        assert_eq!(times[3..], [None, Some(0)]);
        assert!(records[..4].iter().all(|record| record.frame.as_ref() == Ok(&mirrored(&packet))), "{records:02x?}");
        assert_eq!(records[4].frame, Err(Unsendable::LinkType(105)));
    }
}

#[test]
fn obsolete_packet_blocks_cause_a_warning() {
    let file = [section(ORDERS[0]), interface(ORDERS[0], 1, 0), block(ORDERS[0], 2, &[0; 32])].concat();
    let warnings = Capture::read(&*file).unwrap().warnings();
    assert_eq!(warnings, ["1 frames are skipped: they are in the obsolete packet blocks of pcapng"]);
}

#[test]
fn frames_before_an_incomplete_record_are_used() {
    let file = pcap(ORDERS[0], MICROS, 65535, 1, &[b"the whole frame", b"an incomplete frame"]);
    for cut in [1, 8, 9, 20] {
        let capture = Capture::read(&file[..file.len() - cut]).unwrap();
        assert_eq!(capture.frames().collect::<Vec<_>>(), [b"the whole frame"]);
        assert_eq!(capture.warnings(), ["the file ends within a record; the 1 frames before it are used"]);
    }
    let parts = [section(ORDERS[0]), interface(ORDERS[0], 1, 0), simple(ORDERS[0], b"the whole frame", 15)].concat();
    let file = [parts, simple(ORDERS[0], b"an incomplete frame", 19)].concat();
    for cut in [1, 4, 20] {
        let capture = Capture::read(&file[..file.len() - cut]).unwrap();
        assert_eq!(capture.frames().collect::<Vec<_>>(), [b"the whole frame"]);
        assert_eq!(capture.warnings().len(), 1);
    }
}

#[test]
fn frames_that_the_capture_has_cut() {
    let mut file = pcap(ORDERS[0], MICROS, 64, 1, &[b"the end is cut", b"the end is there"]);
    file[24 + 12] = 200;
    let records = Capture::read(&*file).unwrap().records;
    assert_eq!(records[0].frame.as_deref(), Ok(&b"the end is cut"[..]));
    assert_eq!(records.iter().map(|record| record.is_cut).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn pcapng_sections_interfaces_and_blocks() {
    let mut file = Vec::new();
    let options = [1, 0, 3, 0, b'h', b'i', b'!', 0, 0, 0, 0, 0];
    for order in [ORDERS[0], ORDERS[1], ORDERS[0]] {
        file.extend(section(order));
        file.extend(interface(order, 1, 16));
        file.extend(block(order, 0x0bad_cafe, b"something new"));
        file.extend(interface(order, 1, 0));
        file.extend(enhanced(order, 1, b"an enhanced block", 17, &options));
        file.extend(simple(order, b"the simple block", 18));
    }
    let once = [&b"an enhanced block"[..], b"the simple block"];
    assert_eq!(frames_of(&file), once.repeat(3));
}

#[test]
fn simple_packets_without_snap_length_lose_their_padding() {
    let file = [section(ORDERS[1]), interface(ORDERS[1], 1, 0), simple(ORDERS[1], b"fifteen of data", 15)].concat();
    assert_eq!(frames_of(&file), [b"fifteen of data"]);
}

#[test]
fn gzip_with_several_members_incomplete_and_with_trailing_garbage() {
    let file = pcap(ORDERS[0], MICROS, 65535, 1, &[b"the first frame", b"the second frame"]);
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
    assert!(incomplete.records().len() <= 2);
    assert!(incomplete.warnings()[0].contains("too early") || incomplete.warnings()[0].contains("ends within"));
    let ng = [section(ORDERS[1]), interface(ORDERS[1], 1, 0), simple(ORDERS[1], b"the only frame", 14)].concat();
    assert_eq!(frames_of(&pack(&ng)), [b"the only frame"]);
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
