// SPDX-License-Identifier: GPL-2.0-only
//! Which packets start a connection.

use super::*;
use crate::frames::{ACK, Extension, FIN, ICMP, ICMPV6, MORE_FRAGMENTS, PSH, RST, SCTP, SYN, TCP, UDP};

fn both() -> [Ip; 2] {
    [Ip::new(A, B), Ip::new(A6, B6)]
}

/// The number of connections that packets start when they arrive at the same time.
fn starts(packets: &[Vec<u8>]) -> usize {
    seen(&packets.iter().map(|packet| mirrored(packet)).collect::<Vec<_>>()).1
}

/// The indexes of the packets that start a connection. Times are in milliseconds.
fn started(ip: &Ip, packets: &[(u64, Vec<u8>)]) -> Vec<usize> {
    let rule = if ip.is_ipv6() { inside6() } else { inside() };
    let frames = packets.iter().map(|(time, packet)| (Duration::from_millis(*time), mirrored(packet)));
    Expected::at_times(&rule.with(&[File::Ipconn]), PORT, frames).started
}

#[test]
fn a_syn_without_other_flags_starts_a_connection() {
    for ip in both() {
        for flags in 0..=255 {
            let start = flags & (SYN | ACK | RST | FIN) == SYN;
            assert_eq!(starts(&[ip.tcp((1, 2), 3, flags, b"")]), usize::from(start), "{flags:08b}");
        }
    }
}

#[test]
fn addresses_ports_and_sequence_number_identify_a_syn() {
    for ip in both() {
        let syn = ip.tcp((1, 2), 3, SYN, b"");
        assert_eq!(starts(&[syn.clone(), syn.clone(), ip.tcp((1, 2), 3, SYN | PSH, b"data")]), 1);
        let others = [ip.tcp((2, 2), 3, SYN, b""), ip.tcp((1, 3), 3, SYN, b""), ip.tcp((1, 2), 4, SYN, b"")];
        assert_eq!(starts(&[&[syn.clone()][..], &others].concat()), 4);
        // A simultaneous open: two connections.
        assert_eq!(starts(&[syn, ip.clone().reversed().tcp((2, 1), 3, SYN, b"")]), 2);
    }
}

#[test]
fn a_syn_is_a_retransmission_for_two_minutes() {
    for ip in both() {
        let syn = |time: u64| (time, ip.tcp((1, 2), 3, SYN, b""));
        assert_eq!(started(&ip, &[syn(0), syn(120_000)]), [0]);
        assert_eq!(started(&ip, &[syn(0), syn(120_001)]), [0, 1]);
        // Each retransmission restarts the time.
        assert_eq!(started(&ip, &[syn(0), syn(100_000), syn(200_000), syn(320_000), syn(440_001)]), [0, 4]);
        // Other segments do not restart it.
        let ack = |time: u64| (time, ip.tcp((1, 2), 4, ACK, b""));
        assert_eq!(started(&ip, &[syn(0), ack(60_000), ack(119_000), syn(120_001)]), [0, 3]);
    }
}

#[test]
fn a_udp_flow_ends_after_30_idle_seconds() {
    for ip in both() {
        let there = |time: u64| (time, ip.udp((1, 2), b"?"));
        let back = |time: u64| (time, ip.clone().reversed().udp((2, 1), b"!"));
        assert_eq!(started(&ip, &[there(0), there(29_999), back(59_998)]), [0]);
        assert_eq!(started(&ip, &[there(0), back(30_000), there(60_000)]), [0, 1, 2]);
        let other = [there(0), (0, ip.udp((1, 3), b"")), (0, ip.udp((3, 2), b""))];
        assert_eq!(started(&ip, &other), [0, 1, 2]);
        // The same addresses with swapped ports are another flow.
        assert_eq!(started(&ip, &[there(0), (0, ip.udp((2, 1), b""))]), [0, 1]);
    }
}

#[test]
fn a_flow_of_another_protocol_ends_after_600_idle_seconds() {
    for ip in both() {
        let there = |time: u64| (time, ip.packet(SCTP, b""));
        let back = |time: u64| (time, ip.clone().reversed().packet(SCTP, b""));
        assert_eq!(started(&ip, &[there(0), back(599_999), there(1_199_998)]), [0]);
        assert_eq!(started(&ip, &[there(0), back(600_000)]), [0, 1]);
        assert_eq!(started(&ip, &[there(0), (0, ip.packet(50, b""))]), [0, 1]);
    }
}

#[test]
fn the_first_sender_starts_the_connection() {
    let (there, back) = (Ip::new(A6, FAR6), Ip::new(FAR6, A6));
    let answer_first = [(0, back.udp((53, 5000), b"!")), (1, there.udp((5000, 53), b"?"))];
    let later = [(40_000, there.udp((5000, 53), b"?")), (40_001, there.packet(SCTP, b"")), (40_002, back.ping(1, b""))];
    let frames = answer_first.iter().chain(&later).map(|(time, packet)| (Duration::from_millis(*time), packet));
    let frames = frames.map(|(time, packet)| (time, mirrored(packet)));
    let expected = Expected::at_times(&inside6().with(&File::ALL), PORT, frames);
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
fn each_icmp_request_is_a_connection() {
    let [ipv4, ipv6] = both();
    for kind in 0..=255 {
        let request = [8, 13, 15, 17, 42].contains(&kind);
        let request6 = [128, 160].contains(&kind);
        assert_eq!(starts(&[ipv4.icmp(kind, [0; 4], b"")]), usize::from(request), "type {kind}");
        assert_eq!(starts(&[ipv6.icmp(kind, [0; 4], b"")]), usize::from(request6), "type {kind} of ICMPv6");
    }
    for ip in both() {
        assert_eq!(starts(&vec![ip.ping(1, b"again and again"); 3]), 3);
    }
}

#[test]
fn the_other_familys_icmp_counts_as_other() {
    for (ip, protocol) in both().into_iter().zip([ICMPV6, ICMP]) {
        let (there, back) = (ip.packet(protocol, b""), ip.clone().reversed().packet(protocol, &[128; 8]));
        assert_eq!(starts(&[there.clone(), back, there]), 1);
    }
}

#[test]
fn truncated_transport_headers_start_nothing() {
    for ip in both() {
        let syn = ip.segment((1, 2), 3, SYN, b"");
        let echo = ip.message(if ip.is_ipv6() { 128 } else { 8 }, [0; 4], b"");
        for (protocol, whole) in [(TCP, syn), (UDP, ip.datagram((1, 2), b"")), (ip.icmp_number(), echo)] {
            assert_eq!(starts(&[ip.packet(protocol, &whole)]), 1, "protocol {protocol}");
            let cut = ip.packet(protocol, &whole[..whole.len() - 1]);
            assert_eq!(starts(std::slice::from_ref(&cut)), 0, "protocol {protocol}");
            // The missing byte follows as padding.
            assert_eq!(starts(&[[&cut[..], &whole[whole.len() - 1..]].concat()]), 0, "protocol {protocol}");
        }
        assert_eq!(starts(&[ip.packet(SCTP, b"")]), 1);
    }
}

#[test]
fn data_offset_and_udp_length_are_ignored() {
    for ip in both() {
        for offset in 0..16 {
            let mut syn = ip.segment((1, 2), 3, SYN, b"");
            syn[12] = offset << 4 | 1;
            assert_eq!(starts(&[ip.packet(TCP, &syn)]), 1, "data offset {offset}");
        }
        for length in [0, 7, 9, 0xffff_u16] {
            let mut datagram = ip.datagram((1, 2), b"");
            datagram[4..6].copy_from_slice(&length.to_be_bytes());
            assert_eq!(starts(&[ip.packet(UDP, &datagram)]), 1, "UDP length {length}");
        }
    }
}

#[test]
fn a_fragmented_packet_starts_one_connection() {
    for ip in both() {
        for payload in [ip.segment((1, 2), 3, SYN, &[0; 40]), ip.segment((1, 2), 3, SYN, &[2; 400])] {
            let parts = ip.fragments(TCP, &payload, 24);
            assert_eq!(started(&ip, &parts.into_iter().map(|part| (0, part)).collect::<Vec<_>>()), [0]);
        }
        // The first three fragments hold parts of the TCP header.
        assert_eq!(starts(&ip.fragments(TCP, &ip.segment((1, 2), 3, SYN, b""), 8)), 0);
        // A later fragment does not keep a flow alive, even if its payload is a UDP header.
        let datagram = ip.datagram((1, 2), &ip.datagram((1, 2), b""));
        let parts = ip.fragments(UDP, &datagram, 8);
        let times = [(0, parts[0].clone()), (29_000, parts[1].clone()), (30_000, parts[0].clone())];
        assert_eq!(started(&ip, &times), [0, 2]);
        // The same holds for other protocols.
        let parts = ip.fragments(SCTP, &[0; 30], 8);
        let times = [(0, 2), (1, 0), (599_000, 1), (600_001, 0)];
        let times = times.map(|(time, part)| (time, parts[part].clone()));
        assert_eq!(started(&ip, &times), [1, 3]);
    }
    let ip = Ip::new(A, B);
    assert_eq!(starts(&ip.fragments(UDP, &ip.datagram((1, 2), &[0; 3000]), 1480)), 1);
    // A packet with an offset is a later fragment; one with the flag alone is the first.
    let with = |fragment| Ip { fragment, ..ip.clone() }.udp((1, 2), b"");
    assert_eq!([1, MORE_FRAGMENTS | 1, MORE_FRAGMENTS].map(|fragment| starts(&[with(fragment)])), [0, 0, 1]);
}

#[test]
fn connections_after_extension_headers() {
    let extensions = vec![Extension::HopByHop(vec![]), Extension::ATOMIC, Extension::Routing(vec![0; 6])];
    let (plain, extended) = (Ip::new(A6, B6), Ip { extensions, ..Ip::new(A6, B6) });
    assert_eq!(starts(&[plain.udp((1, 2), b""), extended.clone().reversed().udp((2, 1), b"")]), 1);
    assert_eq!(starts(&[extended.tcp((1, 2), 3, SYN, b""), plain.tcp((1, 2), 3, SYN, b"")]), 1);
    assert_eq!(starts(&[extended.ping(1, b"")]), 1);
    // After 16 extension headers, the number of the next one is the protocol of the flow.
    let many = Ip { extensions: vec![Extension::Destination(vec![]); 17], ..Ip::new(A6, B6) };
    assert_eq!(starts(&[many.tcp((1, 2), 3, ACK, b""), plain.packet(60, b"")]), 1);
}

#[test]
fn only_packets_that_a_rule_counts_start_connections() {
    let rule = |internal| Rule::new(A, 8, internal).with(&[File::Portconn]);
    let (there, leaving) = (Ip::new(A, B), Ip::new(A, FAR));
    let frames = [there.udp((1, 2), b""), leaving.udp((1, 2), b""), Ip::new(FAR, FAR).udp((1, 2), b"")];
    let frames = frames.map(|packet| mirrored(&packet));
    for (internal, started) in [(Internal::Count, vec![0, 1]), (Internal::Skip, vec![1]), (Internal::Only, vec![0])] {
        assert_eq!(Expected::of(&rule(internal), PORT, &frames).started, started, "{internal:?}");
    }
}
