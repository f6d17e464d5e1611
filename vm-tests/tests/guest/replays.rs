// SPDX-License-Identifier: GPL-2.0-only
//! Captures as users have them: made here, replayed, and compared with tables written by hand.

use std::time::Duration;

use Layer::{Label, Pppoe, Snap, TrustSec, Vlan, VnTag};
use anyhow::Result;
use traffic_model::frames::{
    ALICE, BROADCAST, DOT1AD, DOT1Q, Ethernet, Extension, Ip, Layer, Mac, QINQ, SYN, mirrored, padded, wrapped,
};
use traffic_model::model::File;
use vm_harness::artifacts::Artifacts;
use vm_harness::replay::{Backend, Options, Pace, Receiver, Table, replay};
use vm_tests::{BACKENDS, unwrap};

const MIRROR: Receiver = Receiver::Mirror { sliced: false };
const SLICED: Receiver = Receiver::Mirror { sliced: true };
const RULES: [&str; 2] = [
    "-A PROMISC -m traffic --traffic --ipconn --portconn --net 0.0.0.0/0 --name all",
    "ip6tables -A PROMISC -m traffic --traffic --ipconn --portconn --net ::/0 --name six",
];

/// Link types: <https://www.tcpdump.org/linktypes.html>.
const ETHERNET: u16 = 1;
const NULL: u16 = 0;
const RAW: u16 = 101;
const SLL: u16 = 113;
const SLL2: u16 = 276;
const IEEE_802_11: u16 = 105;

/// A captured frame: its time, its link type, its bytes, and how many bytes of its end are missing.
type Captured = (Duration, u16, Vec<u8>, usize);

/// Frames that arrive at one time.
fn at_once(frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<Captured> {
    frames.into_iter().map(|frame| (Duration::ZERO, ETHERNET, frame, 0)).collect()
}

/// A pcapng file with an interface for each frame. Times are in nanoseconds.
fn pcapng(frames: &[Captured]) -> Vec<u8> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let block = |kind: u32, mut body: Vec<u8>| {
        body.resize(body.len().next_multiple_of(4), 0);
        let length = body.len() as u32 + 12;
        [words(&[kind, length]), body, words(&[length])].concat()
    };
    let mut file = block(0x0a0d_0d0a, [words(&[0x1a2b_3c4d, 1]), vec![0xff; 8]].concat());
    for (number, (time, link, frame, cut)) in (0..).zip(frames) {
        // The option with the unit of timestamps: 10^-9 seconds.
        file.extend(block(1, [words(&[(*link).into(), 0, 9 | 1 << 16, 9]), words(&[0])].concat()));
        let time = time.as_nanos() as u64;
        let length = frame.len() as u32;
        let head = words(&[number, (time >> 32) as u32, time as u32, length, length + *cut as u32]);
        file.extend(block(6, [&head[..], frame].concat()));
    }
    file
}

fn replayed(backend: Backend, receiver: Receiver, pace: Pace, frames: &[Captured]) -> Result<Vec<Table>> {
    let folder = tempfile::tempdir()?;
    let capture = folder.path().join("capture.pcapng");
    std::fs::write(&capture, pcapng(frames))?;
    replay(&Options {
        artifacts: Artifacts::from_environment()?,
        backend,
        rules: RULES.map(str::to_owned).to_vec(),
        captures: vec![capture],
        receiver,
        pace,
        check: true,
    })
}

/// Compares the rows of the files of `table` with those wanted. Cells are separated by one space.
fn check_rows(tables: &[Table], table: &str, wanted: [&[&str]; 3]) {
    for (file, rows) in File::ALL.into_iter().zip(wanted) {
        let name = file.name(table);
        let got = tables.iter().find(|table| table.name == name).expect("the guest has the table");
        let rows: String = rows.iter().map(|row| row.replace(' ', "\t") + "\n").collect();
        assert_eq!(String::from_utf8_lossy(&got.text), file.header().to_owned() + &rows, "{name}");
    }
}

/// Replays frames at their own times with both back ends, and compares both tables.
fn check(receiver: Receiver, frames: &[Captured], all: [&[&str]; 3], six: [&[&str]; 3]) {
    for backend in BACKENDS {
        let tables = unwrap(replayed(backend, receiver, Pace::Captured, frames));
        check_rows(&tables, "all", all);
        check_rows(&tables, "six", six);
    }
}

const NOTHING: [&[&str]; 3] = [&[], &[], &[]];

/// A packet of 100 bytes from one address to another.
fn packet(from: &str, to: &str) -> Vec<u8> {
    let ip = Ip::between(from, to);
    ip.udp((1000, 2000), &vec![7; if ip.is_ipv6() { 52 } else { 72 }])
}

#[test]
fn packets_to_groups_count_once() {
    let to = |mac: Mac, from: &str, to: &str| {
        let ethertype = Ip::between(from, to).ethertype();
        Ethernet::new(ALICE, mac).wrap(ethertype, &packet(from, to))
    };
    let frames = at_once([
        to([1, 0, 0x5e, 1, 2, 3], "10.8.0.1", "239.1.2.3"),
        to([1, 0, 0x5e, 1, 2, 3], "10.8.0.1", "239.1.2.3"),
        to(BROADCAST, "10.8.0.2", "10.8.0.255"),
        to(BROADCAST, "0.0.0.0", "255.255.255.255"),
        Ethernet::new(ALICE, [1, 0, 0x5e, 0, 0, 5])
            .wrap(0x0800, &Ip::between("10.8.0.4", "224.0.0.5").packet(89, &[0; 44])),
        to([0x33, 0x33, 0, 0, 0, 8], "2001:db8:8::1", "ff3e::8"),
        to([0x33, 0x33, 0, 0, 0, 1], "fe80::1", "ff02::1"),
    ]);
    let all: [&[&str]; 3] = [
        &[
            "0.0.0.0 100 0 0 0 100 0 0 0",
            "10.8.0.1 200 0 0 0 200 0 0 0",
            "10.8.0.2 100 0 0 0 100 0 0 0",
            "10.8.0.4 64 0 0 0 0 0 64 0",
            "10.8.0.255 0 100 0 0 0 100 0 0",
            "224.0.0.5 0 64 0 0 0 0 0 64",
            "239.1.2.3 0 200 0 0 0 200 0 0",
            "255.255.255.255 0 100 0 0 0 100 0 0",
        ],
        &[
            "0.0.0.0 1 0 0 0 1 0 0 0 0 0",
            "10.8.0.1 1 0 0 0 1 0 0 0 0 0",
            "10.8.0.2 1 0 0 0 1 0 0 0 0 0",
            "10.8.0.4 1 0 0 0 0 0 0 0 1 0",
            "10.8.0.255 0 1 0 0 0 1 0 0 0 0",
            "224.0.0.5 0 1 0 0 0 0 0 0 0 1",
            "239.1.2.3 0 1 0 0 0 1 0 0 0 0",
            "255.255.255.255 0 1 0 0 0 1 0 0 0 0",
        ],
        &["0 1 1 0 0 0 0 0 0 1 1", "2000 3 3 0 0 3 3 0 0 0 0"],
    ];
    let six: [&[&str]; 3] = [
        &[
            "2001:db8:8::1 100 0 0 0 100 0 0 0",
            "fe80::1 100 0 0 0 100 0 0 0",
            "ff02::1 0 100 0 0 0 100 0 0",
            "ff3e::8 0 100 0 0 0 100 0 0",
        ],
        &[
            "2001:db8:8::1 1 0 0 0 1 0 0 0 0 0",
            "fe80::1 1 0 0 0 1 0 0 0 0 0",
            "ff02::1 0 1 0 0 0 1 0 0 0 0",
            "ff3e::8 0 1 0 0 0 1 0 0 0 0",
        ],
        &["2000 2 2 0 0 2 2 0 0 0 0"],
    ];
    check(MIRROR, &frames, all, six);
}

#[test]
fn packets_behind_other_headers_count() {
    let (ctag, stag) = (Vlan(DOT1Q, 5), Vlan(DOT1AD, 6));
    let layers: [&[Layer]; 8] = [
        &[stag, ctag],
        &[Vlan(QINQ[0], 7), ctag],
        &[stag, stag, ctag],
        &[Label, Label],
        &[ctag, Pppoe],
        &[Snap],
        &[VnTag, ctag],
        &[TrustSec(1), ctag],
    ];
    let frames = (1..).zip(layers).flat_map(|(host, layers)| {
        let packets = [
            packet(&format!("10.1.0.{host}"), "10.1.0.100"),
            packet(&format!("2001:db8:1::{host}"), "2001:db8:1::100"),
        ];
        packets.map(|packet| wrapped(layers, &packet))
    });
    let rows = |prefix: &str, to: &str, cells: [&str; 2]| {
        let mut rows: Vec<_> = (1..=8).map(|host| format!("{prefix}{host} {}", cells[0])).collect();
        rows.push(format!("{to} {}", cells[1]));
        rows
    };
    let bytes = ["100 0 0 0 100 0 0 0", "0 800 0 0 0 800 0 0"];
    let connections = ["1 0 0 0 1 0 0 0 0 0", "0 8 0 0 0 8 0 0 0 0"];
    let tables = [("10.1.0.", "10.1.0.100"), ("2001:db8:1::", "2001:db8:1::100")]
        .map(|(prefix, to)| [bytes, connections].map(|cells| rows(prefix, to, cells)));
    let [all, six] =
        tables.each_ref().map(|files| files.each_ref().map(|rows| rows.iter().map(String::as_str).collect::<Vec<_>>()));
    let ports: &[&str] = &["2000 8 8 0 0 8 8 0 0 0 0"];
    check(MIRROR, &at_once(frames), [&all[0], &all[1], ports], [&six[0], &six[1], ports]);
}

#[test]
fn cut_packets_count_with_the_flag() {
    let whole = mirrored(&Ip::between("10.4.0.1", "10.4.0.9").udp((1000, 2000), &[7; 1400]));
    let segment = mirrored(&Ip::between("10.4.0.2", "10.4.0.9").tcp((1000, 80), 1, SYN, &[7; 1000]));
    let cut = |mut frame: Vec<u8>, length: usize| {
        let missing = frame.len() - length;
        frame.truncate(length);
        (Duration::ZERO, ETHERNET, frame, missing)
    };
    // The last one ends within the header of TCP.
    let frames = [cut(whole, 64), cut(segment.clone(), 64), cut(segment, 14 + 20 + 19)];
    check(MIRROR, &frames, NOTHING, NOTHING);
    let all: [&[&str]; 3] = [
        &["10.4.0.1 1428 0 0 0 1428 0 0 0", "10.4.0.2 1040 0 1040 0 0 0 0 0", "10.4.0.9 0 2468 0 1040 0 1428 0 0"],
        &["10.4.0.1 1 0 0 0 1 0 0 0 0 0", "10.4.0.2 1 0 1 0 0 0 0 0 0 0", "10.4.0.9 0 2 0 1 0 1 0 0 0 0"],
        &["80 1 1 1 1 0 0 0 0 0 0", "2000 1 1 0 0 1 1 0 0 0 0"],
    ];
    check(SLICED, &frames, all, NOTHING);
}

#[test]
fn an_ipv6_packet_without_a_length_is_broken() {
    let ip = Ip::between("2001:db8:3::1", "2001:db8:3::9");
    let options = |bytes: &[u8]| {
        let ip = Ip { extensions: vec![Extension::HopByHop(bytes.to_vec())], ..ip.clone() };
        let mut packet = ip.udp((1000, 2000), &[7; 100]);
        packet[4..6].fill(0);
        mirrored(&packet)
    };
    let frames = [
        options(&[1, 4, 0, 0, 0, 0]),
        // Jumbo lengths that are too short: RFC 2675, section 3.
        options(&[0xc2, 4, 0, 0, 0, 116]),
        options(&[0xc2, 4, 0, 0, 0xff, 0xff]),
        // An empty packet, and padding.
        padded(mirrored(&ip.packet(59, b""))),
    ];
    let six: [&[&str]; 3] = [
        &["2001:db8:3::1 40 0 0 0 0 0 40 0", "2001:db8:3::9 0 40 0 0 0 0 0 40"],
        &["2001:db8:3::1 1 0 0 0 0 0 0 0 1 0", "2001:db8:3::9 0 1 0 0 0 0 0 0 0 1"],
        &["0 1 1 0 0 0 0 0 0 1 1"],
    ];
    check(MIRROR, &at_once(frames), NOTHING, six);
}

/// A client asks a time server every 64 seconds for 20 minutes.
#[test]
fn connections_are_those_of_the_captures_own_times() {
    let ask = Ip::between("10.18.0.1", "10.18.0.123");
    let frames: Vec<Captured> = (0..20)
        .flat_map(|number| {
            let time = Duration::from_secs(1_700_000_000 + number * 64);
            let question = mirrored(&ask.udp((123, 123), &[7; 48]));
            let answer = mirrored(&ask.clone().reversed().udp((123, 123), &[7; 48]));
            [(time, ETHERNET, question, 0), (time + Duration::from_millis(20), ETHERNET, answer, 0)]
        })
        .collect();
    let bytes: &[&str] = &["10.18.0.1 1520 1520 0 0 1520 1520 0 0", "10.18.0.123 1520 1520 0 0 1520 1520 0 0"];
    let twenty: [&[&str]; 3] = [
        bytes,
        &["10.18.0.1 20 0 0 0 20 0 0 0 0 0", "10.18.0.123 0 20 0 0 0 20 0 0 0 0"],
        &["123 20 20 0 0 20 20 0 0 0 0"],
    ];
    check(MIRROR, &frames, twenty, NOTHING);
    let plain = unwrap(replayed(Backend::Nft, Receiver::Plain, Pace::Captured, &frames));
    check_rows(&plain, "all", twenty);
    let one: [&[&str]; 3] =
        [bytes, &["10.18.0.1 1 0 0 0 1 0 0 0 0 0", "10.18.0.123 0 1 0 0 0 1 0 0 0 0"], &["123 1 1 0 0 1 1 0 0 0 0"]];
    let fast = unwrap(replayed(Backend::Nft, MIRROR, Pace::Fast, &frames));
    check_rows(&fast, "all", one);
}

/// Link types without an Ethernet header, in one file, among frames that cannot be replayed.
fn mixed_link_types() -> Vec<Captured> {
    let four = packet("10.20.0.1", "10.20.0.9");
    let six = packet("2001:db8:20::1", "2001:db8:20::9");
    let captured = |link, head: &[u8], packet: &[u8]| (Duration::ZERO, link, [head, packet].concat(), 0);
    let sll = [0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 9, 0, 0, 8, 0];
    let sll2 = [0x86, 0xdd, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 9, 0, 0];
    vec![
        captured(ETHERNET, &[], &mirrored(&four)),
        captured(SLL, &sll, &four),
        captured(SLL2, &sll2, &six),
        captured(RAW, &[], &four),
        captured(RAW, &[], &six),
        captured(NULL, &[2, 0, 0, 0], &four),
        captured(NULL, &[0, 0, 0, 30], &six),
        captured(IEEE_802_11, &[8, 0], &four),
        captured(NULL, &[9, 0, 0, 0], &four),
        captured(RAW, &[], &[]),
    ]
}

#[test]
fn other_link_types_count() {
    let all: [&[&str]; 3] = [
        &["10.20.0.1 400 0 0 0 400 0 0 0", "10.20.0.9 0 400 0 0 0 400 0 0"],
        &["10.20.0.1 1 0 0 0 1 0 0 0 0 0", "10.20.0.9 0 1 0 0 0 1 0 0 0 0"],
        &["2000 1 1 0 0 1 1 0 0 0 0"],
    ];
    let six: [&[&str]; 3] = [
        &["2001:db8:20::1 300 0 0 0 300 0 0 0", "2001:db8:20::9 0 300 0 0 0 300 0 0"],
        &["2001:db8:20::1 1 0 0 0 1 0 0 0 0 0", "2001:db8:20::9 0 1 0 0 0 1 0 0 0 0"],
        &["2000 1 1 0 0 1 1 0 0 0 0"],
    ];
    check(MIRROR, &mixed_link_types(), all, six);
}

#[test]
fn a_capture_without_a_frame_that_can_be_replayed_is_refused() {
    let frames = mixed_link_types().split_off(7);
    let error = replayed(Backend::Nft, MIRROR, Pace::Captured, &frames).unwrap_err().to_string();
    for reason in [
        "no frame can be replayed\n3 of 3 frames are skipped\n",
        "frame 1: link type 105 is not supported",
        "frame 2: the address family 9 is neither IPv4 nor IPv6",
        "frame 3: the frame ends within its link-layer header",
    ] {
        assert!(error.contains(reason), "{error}");
    }
}
