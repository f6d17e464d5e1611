// SPDX-License-Identifier: GPL-2.0
//! Connections that depend on how long it was silent before. The guests' clock is a virtual one, so minutes pass in
//! no time, and exactly.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use traffic_model::frames::{ACK, ALICE, BOB, Ethernet, FIN, IPV6, Ipv4, Ipv6, SYN, mirrored};
use vm_harness::guest::{COMMAND_TIME, Guest, Step};
use vm_harness::replay::{Backend, TABLES};

use crate::support::{in_virtual_time, iptables, row, table};

/// The end that is inside the network, and the one that is not.
const INSIDE: [u8; 4] = [10, 0, 0, 1];
const OUTSIDE: [u8; 4] = [192, 0, 2, 1];
const RST: u8 = 4;
const PUSH: u8 = 8;
const GRE: u8 = 47;
/// By so much the tests stay away from the edge of a window, on both sides.
const MARGIN: f64 = 0.2;

fn out() -> Ipv4 {
    Ipv4::new(INSIDE, OUTSIDE)
}

fn back() -> Ipv4 {
    Ipv4::new(OUTSIDE, INSIDE)
}

/// Frames at certain times, and how many connections the table must have after each.
struct Story {
    file: String,
    key: &'static str,
    steps: Vec<Step>,
    wanted: Vec<(&'static str, [u64; 2])>,
}

impl Story {
    fn new(name: &str, key: &'static str) -> Self {
        Self { file: format!("{TABLES}/{name}.ipconn"), key, steps: Vec::new(), wanted: Vec::new() }
    }

    /// So many seconds after the last frame this one comes; then there have been `connections`, out and in.
    fn after(&mut self, seconds: f64, frame: Vec<u8>, connections: [u64; 2], why: &'static str) {
        self.steps.push(Step::Pass(Duration::from_secs_f64(seconds)));
        self.steps.push(Step::Send(vec![frame]));
        self.steps.push(Step::Show(self.file.clone()));
        self.wanted.push((why, connections));
    }

    fn play(self, guest: &mut Guest) -> Result<()> {
        let shown = guest.play(&self.steps)?;
        ensure!(shown.len() == self.wanted.len(), "{} tables were shown", shown.len());
        for (text, (why, wanted)) in shown.iter().zip(self.wanted) {
            let row = row(text, self.key)?;
            let total = [0, 1].map(|way| row.get(way).copied().unwrap_or(0));
            ensure!(total == wanted, "{why}: {wanted:?} connections are right, the table says\n{text}");
        }
        Ok(())
    }
}

fn count(guest: &mut Guest, backend: Backend) -> Result<()> {
    iptables(guest, backend, "-A PROMISC -m traffic --traffic --ipconn --portconn --net 10.0.0.0/8 --name t")?;
    guest.open_inner_port()
}

fn uptime(text: &str) -> Result<f64> {
    Ok(text.split(' ').next().context("uptime")?.parse()?)
}

#[test]
fn the_virtual_clock_takes_no_time() {
    in_virtual_time(|guest| {
        iptables(guest, Backend::Nft, "-A PROMISC -m traffic --traffic --net 10.0.0.0/8 --name t")?;
        guest.open_inner_port()?;
        let start = Instant::now();
        let uptimes = [0, 600, 30].map(|seconds| {
            [
                Step::Pass(Duration::from_secs(seconds)),
                Step::Send(vec![mirrored(&out().udp((1, 2), &[0; 72])); 10]),
                Step::Show("/proc/uptime".into()),
            ]
        });
        let shown = guest.play(uptimes.as_flattened())?;
        ensure!(start.elapsed() < COMMAND_TIME, "it took {:?}", start.elapsed());
        let times = shown.iter().map(|text| uptime(text)).collect::<Result<Vec<_>>>()?;
        for (pair, wanted) in times.windows(2).zip([600.0, 30.0]) {
            let passed = pair[1] - pair[0];
            ensure!((wanted..wanted + MARGIN / 2.0).contains(&passed), "{passed} s instead of {wanted} s have passed");
        }
        let text = table(guest, "t")?;
        ensure!(row(&text, "10.0.0.1")?.first() == Some(&3000), "30 frames of 100 bytes count\n{text}");
        Ok(())
    });
}

#[test]
fn udp_begins_after_30_seconds_of_silence() {
    let (short, long) = (30.0 - MARGIN, 30.0 + MARGIN);
    let [to, from] = [out(), back()].map(|ip| move |ports| mirrored(&ip.udp(ports, b"data")));
    let mut story = Story::new("t", "10.0.0.1");
    story.after(0.0, to((1000, 53)), [1, 0], "the first datagram");
    story.after(short, to((1000, 53)), [1, 0], "another one in time");
    story.after(short, from((53, 1000)), [1, 0], "an answer in time");
    story.after(short, to((1000, 53)), [1, 0], "the answer has ended the silence");
    story.after(long, to((1000, 53)), [2, 0], "silence for too long");
    story.after(short, from((53, 1000)), [2, 0], "an answer again");
    story.after(long, from((53, 1000)), [2, 1], "who speaks first after the silence has begun");
    story.after(0.0, to((1000, 53)), [2, 1], "the other one answers");
    story.after(0.0, to((1001, 53)), [3, 1], "another port is another connection");
    story.after(0.0, to((53, 1000)), [4, 1], "ports the other way round are other endpoints");
    in_virtual_time(|guest| {
        count(guest, Backend::Nft)?;
        story.play(guest)
    });
}

#[test]
fn what_is_no_whole_datagram_ends_no_silence() {
    let ip = out();
    let whole = mirrored(&ip.udp((1000, 53), b"data"));
    let fragment = Ipv4 { fragment: 5, ..ip.clone() };
    let mut story = Story::new("t", "10.0.0.1");
    story.after(0.0, whole.clone(), [1, 0], "the first datagram");
    story.after(20.0, mirrored(&fragment.udp((1000, 53), b"data")), [1, 0], "a later fragment");
    story.after(20.0, whole.clone(), [2, 0], "the fragment has not ended the silence");
    story.after(20.0, mirrored(&ip.udp((1000, 53), b"")[..27]), [2, 0], "a frame that is too short for its packet");
    story.after(20.0, whole.clone(), [3, 0], "it has not ended the silence either");
    story.after(20.0, mirrored(&ip.packet(17, &[3, 232, 0, 53, 0, 8, 0])), [3, 0], "a header that is not whole");
    story.after(20.0, whole.clone(), [4, 0], "nor has that");
    story.after(20.0, mirrored(&ip.tcp((1000, 53), 1, ACK, b"")), [4, 0], "another protocol");
    story.after(20.0, whole, [5, 0], "nor that");
    in_virtual_time(|guest| {
        count(guest, Backend::Legacy)?;
        story.play(guest)
    });
}

#[test]
fn a_repeated_syn_is_a_retransmission_for_120_seconds() {
    let (short, long) = (120.0 - MARGIN, 120.0 + MARGIN);
    let syn = |ports, sequence, flags| mirrored(&out().tcp(ports, sequence, flags, b""));
    let ports = (1000, 80);
    let mut story = Story::new("t", "10.0.0.1");
    story.after(0.0, syn(ports, 7, SYN), [1, 0], "the first one");
    story.after(1.0, syn(ports, 7, SYN), [1, 0], "a retransmission");
    story.after(short, syn(ports, 7, SYN), [1, 0], "a late one");
    story.after(short, syn(ports, 7, SYN), [1, 0], "each one is remembered anew");
    story.after(long, syn(ports, 7, SYN), [2, 0], "too late to be one");
    story.after(100.0, syn(ports, 8, ACK), [2, 0], "data");
    story.after(100.0, syn(ports, 7, SYN), [3, 0], "data is no retransmission of the start");
    story.after(1.0, syn(ports, 8, SYN), [4, 0], "another sequence number");
    story.after(1.0, syn((1001, 80), 7, SYN), [5, 0], "another port");
    story.after(1.0, mirrored(&back().tcp((80, 1000), 7, SYN, b"")), [5, 1], "the other direction is another one");
    story.after(1.0, syn(ports, 8, SYN), [5, 1], "which changes nothing for the first");
    for (flags, why) in [(SYN | ACK, "the answer"), (SYN | FIN, "nonsense"), (SYN | RST, "refused"), (0, "no flag")] {
        story.after(1.0, syn(ports, 100 + u32::from(flags), flags), [5, 1], why);
    }
    story.after(1.0, syn(ports, 200, SYN | PUSH | 0xc0), [6, 1], "other flags say nothing");
    in_virtual_time(|guest| {
        count(guest, Backend::Nft)?;
        story.play(guest)
    });
}

#[test]
fn other_protocols_begin_after_600_seconds_of_silence() {
    let (short, long) = (600.0 - MARGIN, 600.0 + MARGIN);
    let [to, from] = [out(), back()].map(|ip| move |protocol| mirrored(&ip.packet(protocol, &[0; 8])));
    let later = Ipv4 { fragment: 5, ..out() };
    let mut story = Story::new("t", "10.0.0.1");
    story.after(0.0, to(GRE), [1, 0], "the first packet");
    story.after(short, from(GRE), [1, 0], "an answer in time");
    story.after(short, to(GRE), [1, 0], "the answer has ended the silence");
    story.after(short, mirrored(&later.packet(GRE, &[0; 8])), [1, 0], "a fragment is a packet too");
    story.after(short, to(GRE), [1, 0], "it has ended the silence");
    story.after(long, from(GRE), [1, 1], "who speaks first after the silence has begun");
    story.after(0.0, to(GRE), [1, 1], "the other one answers");
    story.after(0.0, to(50), [2, 1], "another protocol is another connection");
    story.after(
        0.0,
        mirrored(&Ipv4::new(INSIDE, [192, 0, 2, 2]).packet(GRE, b"")),
        [3, 1],
        "and so is another address",
    );
    in_virtual_time(|guest| {
        count(guest, Backend::Nft)?;
        story.play(guest)
    });
}

#[test]
fn every_icmp_request_counts() {
    let icmp = |kind: u8| mirrored(&out().packet(1, &[kind, 0, 0, 0, 0, 1, 0, 1]));
    let mut story = Story::new("t", "10.0.0.1");
    for (number, pause) in [0.0, 0.0, 1.0, 1000.0].into_iter().enumerate() {
        story.after(pause, icmp(8), [number as u64 + 1, 0], "the same request again");
    }
    story.after(0.0, mirrored(&back().packet(1, &[8, 0, 0, 0, 0, 1, 0, 1])), [4, 1], "the other one asks");
    for (kind, connections) in [(0, 4), (3, 4), (11, 4), (13, 5), (14, 5), (15, 6), (16, 6), (17, 7), (18, 7), (5, 7)] {
        story.after(0.0, icmp(kind), [connections, 1], "requests count, and nothing else");
    }
    story.after(0.0, mirrored(&out().packet(1, &[8, 0, 0, 0, 0, 1, 0])), [7, 1], "a header that is not whole");
    in_virtual_time(|guest| {
        count(guest, Backend::Nft)?;
        story.play(guest)
    });
}

#[test]
fn ipv6_has_the_same_times() {
    let ends = ["2001:db8::1".parse().unwrap(), "2001:db8:1::1".parse().unwrap()];
    let [to, from] = [(0, 1), (1, 0)].map(|(a, b)| Ipv6 { source: ends[a], destination: ends[b] });
    let frame = |packet: Vec<u8>| Ethernet::new(ALICE, BOB).wrap(IPV6, &packet);
    let mut story = Story::new("six", "2001:db8::1");
    story.after(0.0, frame(to.udp((1000, 53), b"")), [1, 0], "the first datagram");
    story.after(30.0 - MARGIN, frame(from.udp((53, 1000), b"")), [1, 0], "an answer in time");
    story.after(30.0 + MARGIN, frame(to.udp((1000, 53), b"")), [2, 0], "silence for too long");
    story.after(0.0, frame(to.packet(GRE, b"x")), [3, 0], "another protocol");
    story.after(600.0 - MARGIN, frame(from.packet(GRE, b"x")), [3, 0], "an answer in time");
    story.after(600.0 + MARGIN, frame(from.packet(GRE, b"x")), [3, 1], "silence for too long");
    for number in 0..3 {
        story.after(0.0, frame(to.packet(58, &[128, 0, 0, 0, 0, 1, 0, 1])), [4 + number, 1], "an echo request");
    }
    story.after(0.0, frame(to.packet(58, &[129, 0, 0, 0, 0, 1, 0, 1])), [6, 1], "an echo reply");
    story.after(0.0, frame(to.packet(1, &[8, 0, 0, 0, 0, 1, 0, 1])), [7, 1], "the other family's ICMP is OTHER");
    story.after(0.0, frame(to.packet(1, &[8, 0, 0, 0, 0, 1, 0, 1])), [7, 1], "and so it is one connection");
    in_virtual_time(|guest| {
        let rule = "ip6tables -A PROMISC -m traffic --ipconn --net 2001:db8::/48 --name six";
        iptables(guest, Backend::Nft, rule)?;
        guest.open_inner_port()?;
        story.play(guest)
    });
}
