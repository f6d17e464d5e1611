// SPDX-License-Identifier: GPL-2.0
//! What starts a connection, and when.

use super::*;
use crate::frames::{ACK, Extension, FIN, ICMP, ICMPV6, MORE_FRAGMENTS, PSH, RST, SCTP, SYN, TCP, UDP, fragments};

fn both() -> [Ip; 2] {
    [Ip::V4(Ipv4::new(A, B)), Ip::V6(Ipv6 { source: A6, destination: B6 }, vec![])]
}

/// How many connections the packets of one family start, all at once.
fn starts(ip: &Ip, packets: &[Vec<u8>]) -> usize {
    seen(&packets.iter().map(|packet| ip.mirrored(packet)).collect::<Vec<_>>()).1
}

/// Which packets start a connection when they come at these times, in milliseconds.
fn started(ip: &Ip, packets: &[(u64, Vec<u8>)]) -> Vec<usize> {
    let rule = if matches!(ip, Ip::V4(_)) { inside() } else { inside6() };
    let frames = packets.iter().map(|(time, packet)| (Duration::from_millis(*time), ip.mirrored(packet)));
    Expected::at_times(&rule.with(&[File::Ipconn]), BOX, frames).started
}

#[test]
fn flags_of_tcp() {
    for ip in both() {
        for flags in 0..=255 {
            let start = flags & (SYN | ACK | RST | FIN) == SYN;
            assert_eq!(starts(&ip, &[ip.tcp((1, 2), 3, flags, b"")]), usize::from(start), "{flags:08b}");
        }
    }
}

#[test]
fn a_syn_is_known_by_all_of_its_ends_and_its_number() {
    for ip in both() {
        let syn = ip.tcp((1, 2), 3, SYN, b"");
        assert_eq!(starts(&ip, &[syn.clone(), syn.clone(), ip.tcp((1, 2), 3, SYN | PSH, b"data")]), 1);
        let others = [ip.tcp((2, 2), 3, SYN, b""), ip.tcp((1, 3), 3, SYN, b""), ip.tcp((1, 2), 4, SYN, b"")];
        assert_eq!(starts(&ip, &[&[syn.clone()][..], &others].concat()), 4);
        // Both open at once: two connections.
        assert_eq!(starts(&ip, &[syn, ip.clone().reversed().tcp((2, 1), 3, SYN, b"")]), 2);
    }
}

#[test]
fn a_syn_is_repeated_for_two_minutes() {
    for ip in both() {
        let syn = |time: u64| (time, ip.tcp((1, 2), 3, SYN, b""));
        assert_eq!(started(&ip, &[syn(0), syn(120_000)]), [0]);
        assert_eq!(started(&ip, &[syn(0), syn(120_001)]), [0, 1]);
        // Each repeat is remembered anew.
        assert_eq!(started(&ip, &[syn(0), syn(100_000), syn(200_000), syn(320_000), syn(440_001)]), [0, 4]);
        // What follows a SYN does not keep it in memory.
        let ack = |time: u64| (time, ip.tcp((1, 2), 4, ACK, b""));
        assert_eq!(started(&ip, &[syn(0), ack(60_000), ack(119_000), syn(120_001)]), [0, 3]);
    }
}

#[test]
fn a_udp_conversation_ends_by_silence() {
    for ip in both() {
        let there = |time: u64| (time, ip.udp((1, 2), b"?"));
        let back = |time: u64| (time, ip.clone().reversed().udp((2, 1), b"!"));
        assert_eq!(started(&ip, &[there(0), there(29_999), back(59_998)]), [0]);
        assert_eq!(started(&ip, &[there(0), back(30_000), there(60_000)]), [0, 1, 2]);
        let other = [there(0), (0, ip.udp((1, 3), b"")), (0, ip.udp((3, 2), b""))];
        assert_eq!(started(&ip, &other), [0, 1, 2]);
        // Endpoints, not ports, make it the way back.
        assert_eq!(started(&ip, &[there(0), (0, ip.udp((2, 1), b""))]), [0, 1]);
    }
}

#[test]
fn another_protocol_has_more_patience() {
    for ip in both() {
        let there = |time: u64| (time, ip.packet(SCTP, b""));
        let back = |time: u64| (time, ip.clone().reversed().packet(SCTP, b""));
        assert_eq!(started(&ip, &[there(0), back(599_999), there(1_199_998)]), [0]);
        assert_eq!(started(&ip, &[there(0), back(600_000)]), [0, 1]);
        assert_eq!(started(&ip, &[there(0), (0, ip.packet(50, b""))]), [0, 1]);
    }
}

#[test]
fn who_sends_first_has_it_out() {
    let (there, back) = (Ip::new(A6, FAR6), Ip::new(FAR6, A6));
    let answer_first = [(0, back.udp((53, 5000), b"!")), (1, there.udp((5000, 53), b"?"))];
    let later = [(40_000, there.udp((5000, 53), b"?")), (40_001, there.packet(SCTP, b"")), (40_002, back.ping(1, b""))];
    let frames = answer_first.iter().chain(&later).map(|(time, packet)| (Duration::from_millis(*time), packet));
    let frames = frames.map(|(time, packet)| (time, there.mirrored(packet)));
    let expected = Expected::at_times(&inside6().with(&File::ALL), BOX, frames);
    assert_eq!(expected.started, [0, 2, 3, 4]);
    assert_eq!(
        expected.text_of(File::Ipconn),
        "IP\t\tTOTAL\t\tTCP\t\tUDP\t\tICMP\t\tOTHER\n\
         2001:db8::1\t2\t2\t0\t0\t1\t1\t0\t1\t1\t0\n"
    );
    assert_eq!(
        expected.text_of(File::Portconn),
        "PORT\t\tTOTAL\t\tTCP\t\tUDP\t\tICMP\t\tOTHER\n\
         0\t1\t1\t0\t0\t0\t0\t0\t1\t1\t0\n\
         53\t1\t0\t0\t0\t1\t0\t0\t0\t0\t0\n\
         5000\t0\t1\t0\t0\t0\t1\t0\t0\t0\t0\n"
    );
    assert_eq!(expected.packets, 5, "with --traffic all of them match");
}

#[test]
fn requests_of_icmp() {
    let [four, six] = both();
    for kind in 0..=255 {
        let request = [8, 13, 15, 17].contains(&kind);
        assert_eq!(starts(&four, &[four.icmp(kind, [0; 4], b"")]), usize::from(request), "type {kind}");
        assert_eq!(starts(&six, &[six.icmp(kind, [0; 4], b"")]), usize::from(kind == 128), "type {kind} of ICMPv6");
    }
    for ip in both() {
        assert_eq!(starts(&ip, &vec![ip.ping(1, b"again and again"); 3]), 3);
    }
}

#[test]
fn the_icmp_of_the_other_family_is_any_protocol() {
    for (ip, protocol) in both().into_iter().zip([ICMPV6, ICMP]) {
        let (there, back) = (ip.packet(protocol, b""), ip.clone().reversed().packet(protocol, &[128; 8]));
        assert_eq!(starts(&ip, &[there.clone(), back, there]), 1);
    }
}

#[test]
fn transport_headers_that_are_cut_short() {
    for ip in both() {
        let syn = ip.segment((1, 2), 3, SYN, b"");
        let echo = ip.message(if matches!(ip, Ip::V4(_)) { 8 } else { 128 }, [0; 4], b"");
        for (protocol, whole) in [(TCP, syn), (UDP, ip.datagram((1, 2), b"")), (ip.icmp_number(), echo)] {
            assert_eq!(starts(&ip, &[ip.packet(protocol, &whole)]), 1, "protocol {protocol}");
            let cut = ip.packet(protocol, &whole[..whole.len() - 1]);
            assert_eq!(starts(&ip, std::slice::from_ref(&cut)), 0, "protocol {protocol}");
            // The missing byte is in the frame, but not in the packet.
            assert_eq!(starts(&ip, &[[&cut[..], &whole[whole.len() - 1..]].concat()]), 0, "protocol {protocol}");
        }
        assert_eq!(starts(&ip, &[ip.packet(SCTP, b"")]), 1);
    }
}

#[test]
fn nothing_but_the_first_bytes_of_a_transport_header_matters() {
    for ip in both() {
        for offset in 0..16 {
            let mut syn = ip.segment((1, 2), 3, SYN, b"");
            syn[12] = offset << 4 | 1;
            assert_eq!(starts(&ip, &[ip.packet(TCP, &syn)]), 1, "data offset {offset}");
        }
        for length in [0, 7, 9, 0xffff_u16] {
            let mut datagram = ip.datagram((1, 2), b"");
            datagram[4..6].copy_from_slice(&length.to_be_bytes());
            assert_eq!(starts(&ip, &[ip.packet(UDP, &datagram)]), 1, "UDP length {length}");
        }
    }
}

#[test]
fn fragments_count_with_their_first() {
    for ip in both() {
        for payload in [ip.segment((1, 2), 3, SYN, &[0; 40]), ip.segment((1, 2), 3, SYN, &[2; 400])] {
            let parts = ip.fragments(TCP, &payload, 24);
            assert_eq!(started(&ip, &parts.into_iter().map(|part| (0, part)).collect::<Vec<_>>()), [0]);
        }
        // The TCP header is spread over the first three.
        assert_eq!(starts(&ip, &ip.fragments(TCP, &ip.segment((1, 2), 3, SYN, b""), 8)), 0);
        // A later fragment looks like anything, and does not keep a conversation alive.
        let datagram = ip.datagram((1, 2), &ip.datagram((1, 2), b""));
        let parts = ip.fragments(UDP, &datagram, 8);
        let times = [(0, parts[0].clone()), (29_000, parts[1].clone()), (30_000, parts[0].clone())];
        assert_eq!(started(&ip, &times), [0, 2]);
        // For the others each fragment is a packet like all.
        let parts = ip.fragments(SCTP, &[0; 30], 8);
        assert_eq!(started(&ip, &[(0, parts[2].clone()), (599_000, parts[1].clone())]), [0]);
    }
    let ip = Ipv4::new(A, B);
    let frames = fragments(&ip, (1, 2), 3000, 1480);
    assert_eq!(starts(&Ip::V4(ip.clone()), &frames), 1);
    // An offset alone makes a later fragment, and the flag alone the first.
    let with = |fragment| Ipv4 { fragment, ..ip.clone() }.udp((1, 2), b"");
    assert_eq!([1, MORE_FRAGMENTS | 1, MORE_FRAGMENTS].map(|f| starts(&Ip::V4(ip.clone()), &[with(f)])), [0, 0, 1]);
}

#[test]
fn behind_extension_headers() {
    let extensions = vec![Extension::HopByHop(vec![]), Extension::ATOMIC, Extension::Routing(vec![0; 6])];
    let (plain, extended) = (Ip::new(A6, B6), Ip::V6(Ipv6 { source: A6, destination: B6 }, extensions));
    assert_eq!(starts(&plain, &[plain.udp((1, 2), b""), extended.clone().reversed().udp((2, 1), b"")]), 1);
    assert_eq!(starts(&plain, &[extended.tcp((1, 2), 3, SYN, b""), plain.tcp((1, 2), 3, SYN, b"")]), 1);
    assert_eq!(starts(&plain, &[extended.ping(1, b"")]), 1);
    // A chain that cannot be walked is a conversation in the protocol where it ends.
    let many = Ip::V6(Ipv6 { source: A6, destination: B6 }, vec![Extension::Destination(vec![]); 17]);
    assert_eq!(starts(&plain, &[many.tcp((1, 2), 3, ACK, b""), plain.packet(60, b"")]), 1);
}

#[test]
fn only_what_a_rule_accounts_for_is_remembered() {
    let rule = |internal| Rule::new(A.into(), 8, internal).with(&[File::Portconn]);
    let (there, leaving) = (Ipv4::new(A, B), Ipv4::new(A, FAR));
    let frames = [there.udp((1, 2), b""), leaving.udp((1, 2), b""), Ipv4::new(FAR, FAR).udp((1, 2), b"")];
    let frames = frames.map(|packet| crate::frames::mirrored(&packet));
    for (internal, started) in [(Internal::Count, vec![0, 1]), (Internal::Skip, vec![1]), (Internal::Only, vec![0])] {
        assert_eq!(Expected::of(&rule(internal), BOX, &frames).started, started, "{internal:?}");
    }
}
