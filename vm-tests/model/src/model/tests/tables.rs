// SPDX-License-Identifier: GPL-2.0-only
//! The text of the files.

use std::iter::repeat_n;

use super::*;
use crate::frames::{ACK, SYN, TCP, UDP};

#[test]
fn rows_are_sorted_and_split_by_protocol() {
    let (a, b) = ([10, 0, 0, 1], [9, 0, 0, 2]);
    let packets = [Ip::new(a, b).udp((1, 2), b"1234"), Ip::new(b, a).tcp((1, 2), 0, SYN, b"")];
    let frames = packets.into_iter().chain([Ip::new(a, FAR).ping(1, b"12345678")]);
    let expected = Expected::of(&Rule::ALL_IPV4, PORT, frames.map(|packet| mirrored(&packet)));
    assert_eq!(
        expected.text(),
        "IP\t\tTOTAL\t\tTCP\t\tUDP\t\tOTHER\n\
         9.0.0.2\t40\t32\t40\t0\t0\t32\t0\t0\n\
         10.0.0.1\t68\t40\t0\t40\t32\t0\t36\t0\n\
         192.0.2.7\t0\t36\t0\t0\t0\t0\t0\t36\n"
    );
    assert_eq!((expected.packets, expected.bytes), (3, 108));
    assert!(expected.started.is_empty(), "the rule does not count connections");
}

#[test]
fn with_a_prefix_networks_have_rows() {
    let packets = [Ip::new(A, B).udp((1, 2), b"1234"), Ip::new([10, 0, 1, 9], A).udp((1, 2), b"")];
    let frames = packets.into_iter().map(|packet| mirrored(&packet));
    let expected = Expected::of(&inside().with_prefix(24).with(&File::ALL), PORT, frames);
    assert_eq!(
        expected.text(),
        "IP\t\tTOTAL\t\tTCP\t\tUDP\t\tOTHER\n\
         10.0.0.0/24\t32\t60\t0\t0\t32\t60\t0\t0\n\
         10.0.1.0/24\t28\t0\t0\t0\t28\t0\t0\t0\n"
    );
    assert_eq!(
        expected.text_of(File::Ipconn).lines().skip(1).collect::<Vec<_>>(),
        ["10.0.0.0/24\t1\t2\t0\t0\t1\t2\t0\t0\t0\t0", "10.0.1.0/24\t1\t0\t0\t0\t1\t0\t0\t0\t0\t0"]
    );
    assert_eq!(expected.text_of(File::Portconn).lines().nth(1), Some("2\t2\t2\t0\t0\t2\t2\t0\t0\t0\t0"));
}

#[test]
fn tables_without_rows() {
    let frames: [&[u8]; 0] = [];
    let texts = texts("none", &Rule::ALL_IPV6.with(&File::ALL), PORT, frames);
    let connections = "TOTAL\t\tTCP\t\tUDP\t\tICMP\t\tOTHER\n";
    let want = [
        ("none", "IP\t\tTOTAL\t\tTCP\t\tUDP\t\tOTHER\n".to_owned()),
        ("none.ipconn", format!("IP\t\t{connections}")),
        ("none.portconn", format!("PORT\t\t{connections}")),
    ];
    assert_eq!(texts, want.map(|(name, text)| (name.to_owned(), text)));
}

#[test]
fn a_table_has_the_files_of_its_options() {
    let frames: [&[u8]; 0] = [];
    let names = |files: &[File]| {
        texts("t", &Rule::ALL_IPV4.with(files), PORT, frames).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(names(&[File::Traffic]), ["t"]);
    assert_eq!(names(&[File::Portconn, File::Ipconn]), ["t.ipconn", "t.portconn"]);
}

/// The sample of bytes per address: an address of a network with `--nointernal` receives.
#[test]
fn sample_of_bytes() {
    let to = |source| Ip::new(source, [193, 11, 177, 9]);
    let far = to(FAR);
    let packets = [
        far.packet(TCP, &[0; 1480]),
        far.packet(TCP, &[0; 1480]),
        far.packet(TCP, &[0; 1398]),
        far.packet(UDP, &[0; 56]),
        to([193, 11, 176, 1]).packet(UDP, &[0; 100]),
    ];
    // 167227 bytes of ESP.
    let esp = repeat_n(far.packet(50, &[0; 1480]), 111).chain([far.packet(50, &[0; 707])]);
    let frames = packets.into_iter().chain(esp).map(|packet| mirrored(&packet));
    let rule = Rule::new([193, 11, 176, 0], 20, Internal::Skip);
    assert_eq!(
        Expected::of(&rule, PORT, frames).text(),
        "IP\t\tTOTAL\t\tTCP\t\tUDP\t\tOTHER\n\
         193.11.177.9\t0\t171721\t0\t4418\t0\t76\t0\t167227\n"
    );
}

/// The sample of connections per address: two hosts of a network, and others that connect to the
/// second.
#[test]
fn sample_of_connections_per_address() {
    let (one, two) = ([172, 20, 0, 1], [172, 20, 0, 2]);
    let between = Ip::new(two, one);
    let mut packets: Vec<_> = (0..614).map(|n| between.ping(n, b"")).collect();
    packets.extend([
        between.tcp((40000, 22), 1, SYN, b""),
        Ip::new(one, two).tcp((22, 40000), 1, SYN | ACK, b""),
        Ip::new(FAR, two).tcp((40000, 80), 1, SYN, b""),
        Ip::new(FAR, two).udp((40000, 53), b"?"),
        Ip::new(two, FAR).udp((53, 40000), b"!"),
        Ip::new(FAR, two).udp((40001, 53), b"?"),
    ]);
    let rule = Rule::new([172, 20, 0, 0], 16, Internal::Count).with(&[File::Ipconn]);
    let expected = Expected::of(&rule, PORT, packets.iter().map(|packet| mirrored(packet)));
    assert_eq!(
        expected.text_of(File::Ipconn),
        "IP\t\tTOTAL\t\tTCP\t\tUDP\t\tICMP\t\tOTHER\n\
         172.20.0.1\t0\t615\t0\t1\t0\t0\t0\t614\t0\t0\n\
         172.20.0.2\t615\t3\t1\t1\t0\t2\t614\t0\t0\t0\n"
    );
    assert_eq!(expected.packets, 618, "a rule without --traffic matches packets that start a connection");
    assert_eq!(expected.bytes, 614 * 28 + 2 * 40 + 2 * 29);
}

/// The sample of connections per port: pings inside, one connection to port 22 inside, one from
/// outside.
#[test]
fn sample_of_connections_per_port() {
    let between = Ip::new(A, B);
    let mut packets: Vec<_> = (0..313).map(|n| between.ping(n, b"")).collect();
    packets.push(between.tcp((40000, 22), 1, SYN, b""));
    packets.push(Ip::new(FAR, B).tcp((40000, 22), 1, SYN, b""));
    let frames = packets.iter().map(|packet| mirrored(packet));
    let expected = Expected::of(&inside().with(&[File::Portconn]), PORT, frames);
    assert_eq!(
        expected.text_of(File::Portconn),
        "PORT\t\tTOTAL\t\tTCP\t\tUDP\t\tICMP\t\tOTHER\n\
         0\t313\t313\t0\t0\t0\t0\t313\t313\t0\t0\n\
         22\t1\t2\t1\t2\t0\t0\t0\t0\t0\t0\n"
    );
}

/// The rules of RFC 5952: a single zero group is not shortened, the longest run of zeros is, of
/// equal runs the first one; lower case; no leading zeros; IPv4 notation in mapped addresses.
#[test]
fn ipv6_addresses_are_printed_as_in_rfc_5952() {
    let forms = [
        "::",
        "::1",
        "::100:0:1",
        "::ffff:0.0.0.0",
        "::ffff:192.0.2.33",
        "0:0:0:1::",
        "::1:0:0:0",
        "64:ff9b::c000:221",
        "2001:0:0:1::2",
        "2001:db8::1",
        "2001:db8::1:0:0:1",
        "2001:db8:0:1:1:1:1:1",
        "2001:db8:a::",
        "fe80::a0b:c0d",
        "ff02::1",
    ];
    let frames = forms.map(|form| {
        let source: Ipv6Addr = form.parse().unwrap();
        mirrored(&Ip::new(source, FAR6).packet(59, b""))
    });
    let text = Expected::of(&Rule::ALL_IPV6, PORT, frames).text();
    let rows: Vec<_> = text.lines().skip(1).filter_map(|line| line.split('\t').next()).collect();
    let mut want = forms.map(|form| (form.parse::<Ipv6Addr>().unwrap(), form)).to_vec();
    want.push((FAR6, "2001:db9::7"));
    want.sort();
    assert_eq!(rows, want.into_iter().map(|(_, form)| form).collect::<Vec<_>>());
}
