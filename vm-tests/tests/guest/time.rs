// SPDX-License-Identifier: GPL-2.0-only
//! Timeouts of connections. The guests have a virtual clock, so minutes pass at once and exactly.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use traffic_model::frames::{ACK, FIN, GRE, Ip, PSH, RST, SYN, mirrored};
use vm_harness::command::COMMAND_TIMEOUT;
use vm_harness::guest::{Guest, Step};
use vm_harness::replay::{Backend, TABLES};
use vm_tests::{guest_test, iptables, row, table};

const RULE: &str = "-A PROMISC -m traffic --traffic --ipconn --portconn --net 10.0.0.0/8 --name t";
/// The addresses inside and outside the network.
const INSIDE: [u8; 4] = [10, 0, 0, 1];
const OUTSIDE: [u8; 4] = [192, 0, 2, 1];
/// The distance between the tested times and a timeout, in seconds.
const MARGIN: f64 = 0.2;

fn out() -> Ip {
    Ip::new(INSIDE, OUTSIDE)
}

fn back() -> Ip {
    Ip::new(OUTSIDE, INSIDE)
}

/// A frame that arrives some seconds after the last one, the expected counts of connections out and
/// in after it, and the reason.
type Case = (f64, Vec<u8>, [u64; 2], &'static str);

/// Adds a rule, sends the frames and compares the counts in the row `key` of table `t`.
fn check(guest: &mut Guest, backend: Backend, rule: &str, key: &str, cases: &[Case]) -> Result<()> {
    iptables(guest, backend, rule)?;
    guest.open_inner_port()?;
    let steps = cases.iter().flat_map(|(seconds, frame, ..)| {
        let sleep = Step::Sleep(Duration::from_secs_f64(*seconds));
        [sleep, Step::Send(vec![frame.clone()]), Step::Show(format!("{TABLES}/t.ipconn"))]
    });
    let shown = guest.play(&steps.collect::<Vec<_>>())?;
    ensure!(shown.len() == cases.len(), "{} tables were shown", shown.len());
    for (text, (.., wanted, why)) in shown.iter().zip(cases) {
        let row = row(text, key)?;
        let total = [0, 1].map(|way| row.get(way).copied().unwrap_or(0));
        ensure!(total == *wanted, "{why}: expected {wanted:?} connections, the table has\n{text}");
    }
    Ok(())
}

fn uptime(text: &str) -> Result<f64> {
    Ok(text.split(' ').next().context("uptime")?.parse()?)
}

guest_test!(virtual_time_passes_at_once, in_virtual_time, |guest| {
    iptables(guest, Backend::Nft, "-A PROMISC -m traffic --traffic --net 10.0.0.0/8 --name t")?;
    guest.open_inner_port()?;
    let start = Instant::now();
    let uptimes = [0, 600, 30].map(|seconds| {
        [
            Step::Sleep(Duration::from_secs(seconds)),
            Step::Send(vec![mirrored(&out().udp((1, 2), &[0; 72])); 10]),
            Step::Show("/proc/uptime".into()),
        ]
    });
    let shown = guest.play(uptimes.as_flattened())?;
    ensure!(start.elapsed() < COMMAND_TIMEOUT, "it took {:?}", start.elapsed());
    let times = shown.iter().map(|text| uptime(text)).collect::<Result<Vec<_>>>()?;
    for (pair, wanted) in times.windows(2).zip([600.0, 30.0]) {
        let passed = pair[1] - pair[0];
        ensure!((wanted..wanted + MARGIN / 2.0).contains(&passed), "{passed} s instead of {wanted} s have passed");
    }
    let text = table(guest, "t")?;
    ensure!(row(&text, "10.0.0.1")?.first() == Some(&3000), "expected 30 frames of 100 bytes\n{text}");
});

guest_test!(udp_flows_end_after_30_idle_seconds, in_virtual_time, |guest| {
    let (short, long) = (30.0 - MARGIN, 30.0 + MARGIN);
    let [to, from] = [out(), back()].map(|ip| move |ports| mirrored(&ip.udp(ports, b"data")));
    let cases = [
        (0.0, to((1000, 53)), [1, 0], "the first datagram"),
        (short, to((1000, 53)), [1, 0], "a datagram in time"),
        (short, from((53, 1000)), [1, 0], "an answer in time"),
        (short, to((1000, 53)), [1, 0], "the answer restarts the timeout"),
        (long, to((1000, 53)), [2, 0], "after the timeout"),
        (short, from((53, 1000)), [2, 0], "an answer in time"),
        (long, from((53, 1000)), [2, 1], "the first sender after the timeout starts the connection"),
        (0.0, to((1000, 53)), [2, 1], "an answer"),
        (0.0, to((1001, 53)), [3, 1], "another port is another connection"),
        (0.0, to((53, 1000)), [4, 1], "swapped ports are other endpoints"),
    ];
    check(guest, Backend::Nft, RULE, "10.0.0.1", &cases)?;
});

guest_test!(incomplete_datagrams_do_not_restart_the_timeout, in_virtual_time, |guest| {
    let ip = out();
    let datagram = mirrored(&ip.udp((1000, 53), b"data"));
    let fragment = Ip { fragment: 5, ..ip.clone() };
    let cases = [
        (0.0, datagram.clone(), [1, 0], "the first datagram"),
        (20.0, mirrored(&fragment.udp((1000, 53), b"data")), [1, 0], "a later fragment"),
        (20.0, datagram.clone(), [2, 0], "the fragment does not restart the timeout"),
        (20.0, mirrored(&ip.udp((1000, 53), b"")[..27]), [2, 0], "a truncated packet"),
        (20.0, datagram.clone(), [3, 0], "it does not restart the timeout"),
        (20.0, mirrored(&ip.packet(17, &[3, 232, 0, 53, 0, 8, 0])), [3, 0], "a truncated header"),
        (20.0, datagram.clone(), [4, 0], "it does not restart the timeout"),
        (20.0, mirrored(&ip.tcp((1000, 53), 1, ACK, b"")), [4, 0], "another protocol"),
        (20.0, datagram, [5, 0], "it does not restart the timeout"),
    ];
    check(guest, Backend::Legacy, RULE, "10.0.0.1", &cases)?;
});

guest_test!(a_repeated_syn_is_a_retransmission_for_120_seconds, in_virtual_time, |guest| {
    let (short, long) = (120.0 - MARGIN, 120.0 + MARGIN);
    let syn = |ports, sequence, flags| mirrored(&out().tcp(ports, sequence, flags, b""));
    let ports = (1000, 80);
    let back = mirrored(&back().tcp((80, 1000), 7, SYN, b""));
    let with_flags = |flags| syn(ports, 100 + u32::from(flags), flags);
    let cases = [
        (0.0, syn(ports, 7, SYN), [1, 0], "the first SYN"),
        (1.0, syn(ports, 7, SYN), [1, 0], "a retransmission"),
        (short, syn(ports, 7, SYN), [1, 0], "a late retransmission"),
        (short, syn(ports, 7, SYN), [1, 0], "each retransmission restarts the timeout"),
        (long, syn(ports, 7, SYN), [2, 0], "after the timeout"),
        (100.0, syn(ports, 8, ACK), [2, 0], "data"),
        (100.0, syn(ports, 7, SYN), [3, 0], "data does not restart the timeout"),
        (1.0, syn(ports, 8, SYN), [4, 0], "another sequence number"),
        (1.0, syn((1001, 80), 7, SYN), [5, 0], "another port"),
        (1.0, back, [5, 1], "the other direction is another connection"),
        (1.0, syn(ports, 8, SYN), [5, 1], "a retransmission in the first direction"),
        (1.0, with_flags(SYN | ACK), [5, 1], "SYN and ACK"),
        (1.0, with_flags(SYN | FIN), [5, 1], "SYN and FIN"),
        (1.0, with_flags(SYN | RST), [5, 1], "SYN and RST"),
        (1.0, with_flags(0), [5, 1], "no flags"),
        (1.0, syn(ports, 200, SYN | PSH | 0xc0), [6, 1], "other flags are ignored"),
    ];
    check(guest, Backend::Nft, RULE, "10.0.0.1", &cases)?;
});

guest_test!(flows_of_other_protocols_end_after_600_idle_seconds, in_virtual_time, |guest| {
    let (short, long) = (600.0 - MARGIN, 600.0 + MARGIN);
    let [to, from] = [out(), back()].map(|ip| move |protocol| mirrored(&ip.packet(protocol, &[0; 8])));
    let later = Ip { fragment: 5, ..out() };
    let other_address = mirrored(&Ip::new(INSIDE, [192, 0, 2, 2]).packet(GRE, b""));
    let cases = [
        (0.0, to(GRE), [1, 0], "the first packet"),
        (short, from(GRE), [1, 0], "an answer in time"),
        (short, to(GRE), [1, 0], "the answer restarts the timeout"),
        (short, mirrored(&later.packet(GRE, &[0; 8])), [1, 0], "a later fragment"),
        (short, to(GRE), [2, 0], "the fragment does not restart the timeout"),
        (long, from(GRE), [2, 1], "the first sender after the timeout starts the connection"),
        (0.0, to(GRE), [2, 1], "an answer"),
        (0.0, to(50), [3, 1], "another protocol is another connection"),
        (0.0, other_address, [4, 1], "another address is another connection"),
    ];
    check(guest, Backend::Nft, RULE, "10.0.0.1", &cases)?;
});

guest_test!(each_icmp_request_is_a_connection, in_virtual_time, |guest| {
    let icmp = |ip: Ip, kind: u8| mirrored(&ip.packet(1, &[kind, 0, 0, 0, 0, 1, 0, 1]));
    let mut cases = vec![
        (0.0, icmp(out(), 8), [1, 0], "a request"),
        (0.0, icmp(out(), 8), [2, 0], "the same request again"),
        (1.0, icmp(out(), 8), [3, 0], "the same request again"),
        (1000.0, icmp(out(), 8), [4, 0], "the same request again"),
        (0.0, icmp(back(), 8), [4, 1], "a request in the other direction"),
    ];
    let kinds = [(0, 4), (3, 4), (11, 4), (13, 5), (14, 5), (15, 6), (16, 6), (17, 7), (18, 7), (5, 7)];
    cases.extend(kinds.map(|(kind, count)| (0.0, icmp(out(), kind), [count, 1], "only requests count")));
    cases.push((0.0, mirrored(&out().packet(1, &[8, 0, 0, 0, 0, 1, 0])), [7, 1], "a truncated header"));
    check(guest, Backend::Nft, RULE, "10.0.0.1", &cases)?;
});

guest_test!(ipv6_has_the_same_timeouts, in_virtual_time, |guest| {
    let to = Ip::between("2001:db8::1", "2001:db8:1::1");
    let from = to.clone().reversed();
    let echo = |protocol, kind| mirrored(&to.packet(protocol, &[kind, 0, 0, 0, 0, 1, 0, 1]));
    let cases = [
        (0.0, mirrored(&to.udp((1000, 53), b"")), [1, 0], "the first datagram"),
        (30.0 - MARGIN, mirrored(&from.udp((53, 1000), b"")), [1, 0], "an answer in time"),
        (30.0 + MARGIN, mirrored(&to.udp((1000, 53), b"")), [2, 0], "after the timeout"),
        (0.0, mirrored(&to.packet(GRE, b"x")), [3, 0], "another protocol"),
        (600.0 - MARGIN, mirrored(&from.packet(GRE, b"x")), [3, 0], "an answer in time"),
        (600.0 + MARGIN, mirrored(&from.packet(GRE, b"x")), [3, 1], "after the timeout"),
        (0.0, echo(58, 128), [4, 1], "an echo request"),
        (0.0, echo(58, 128), [5, 1], "the same echo request again"),
        (0.0, echo(58, 128), [6, 1], "the same echo request again"),
        (0.0, echo(58, 129), [6, 1], "an echo reply"),
        (0.0, echo(1, 8), [7, 1], "the other family's ICMP is OTHER"),
        (0.0, echo(1, 8), [7, 1], "it is the same connection"),
    ];
    let rule = "ip6tables -A PROMISC -m traffic --ipconn --net 2001:db8::/48 --name t";
    check(guest, Backend::Nft, rule, "2001:db8::1", &cases)?;
});
