// SPDX-License-Identifier: GPL-2.0-only
//! Timeouts of connections. The guests have a virtual clock, so minutes pass at once and exactly.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use traffic_model::frames::{ACK, FIN, GRE, Ip, PSH, RST, SYN, mirrored};
use vm_harness::command::COMMAND_TIMEOUT;
use vm_harness::guest::{Guest, Step};
use vm_harness::replay::{Backend, TABLES};
use vm_tests::{in_virtual_time, iptables, row, table};

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

/// Frames with their times, and the expected number of connections after each.
struct Scenario {
    file: String,
    key: &'static str,
    steps: Vec<Step>,
    wanted: Vec<(&'static str, [u64; 2])>,
}

impl Scenario {
    fn new(name: &str, key: &'static str) -> Self {
        Self { file: format!("{TABLES}/{name}.ipconn"), key, steps: Vec::new(), wanted: Vec::new() }
    }

    /// Adds a frame that arrives some seconds after the last one. `connections` are the expected
    /// counts out and in.
    fn after(&mut self, seconds: f64, frame: Vec<u8>, connections: [u64; 2], why: &'static str) {
        self.steps.push(Step::Sleep(Duration::from_secs_f64(seconds)));
        self.steps.push(Step::Send(vec![frame]));
        self.steps.push(Step::Show(self.file.clone()));
        self.wanted.push((why, connections));
    }

    /// Runs the scenario in a guest with a rule for table `t`.
    fn check(self, backend: Backend) {
        in_virtual_time(|guest| {
            prepare(guest, backend)?;
            self.run(guest)
        });
    }

    fn run(self, guest: &mut Guest) -> Result<()> {
        let shown = guest.play(&self.steps)?;
        ensure!(shown.len() == self.wanted.len(), "{} tables were shown", shown.len());
        for (text, (why, wanted)) in shown.iter().zip(self.wanted) {
            let row = row(text, self.key)?;
            let total = [0, 1].map(|way| row.get(way).copied().unwrap_or(0));
            ensure!(total == wanted, "{why}: expected {wanted:?} connections, the table has\n{text}");
        }
        Ok(())
    }
}

fn prepare(guest: &mut Guest, backend: Backend) -> Result<()> {
    iptables(guest, backend, "-A PROMISC -m traffic --traffic --ipconn --portconn --net 10.0.0.0/8 --name t")?;
    guest.open_inner_port()
}

fn uptime(text: &str) -> Result<f64> {
    Ok(text.split(' ').next().context("uptime")?.parse()?)
}

#[test]
fn virtual_time_passes_at_once() {
    in_virtual_time(|guest| {
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
        Ok(())
    });
}

#[test]
fn udp_flows_end_after_30_idle_seconds() {
    let (short, long) = (30.0 - MARGIN, 30.0 + MARGIN);
    let [to, from] = [out(), back()].map(|ip| move |ports| mirrored(&ip.udp(ports, b"data")));
    let mut scenario = Scenario::new("t", "10.0.0.1");
    scenario.after(0.0, to((1000, 53)), [1, 0], "the first datagram");
    scenario.after(short, to((1000, 53)), [1, 0], "a datagram in time");
    scenario.after(short, from((53, 1000)), [1, 0], "an answer in time");
    scenario.after(short, to((1000, 53)), [1, 0], "the answer restarts the timeout");
    scenario.after(long, to((1000, 53)), [2, 0], "after the timeout");
    scenario.after(short, from((53, 1000)), [2, 0], "an answer in time");
    scenario.after(long, from((53, 1000)), [2, 1], "the first sender after the timeout starts the connection");
    scenario.after(0.0, to((1000, 53)), [2, 1], "an answer");
    scenario.after(0.0, to((1001, 53)), [3, 1], "another port is another connection");
    scenario.after(0.0, to((53, 1000)), [4, 1], "swapped ports are other endpoints");
    scenario.check(Backend::Nft);
}

#[test]
fn incomplete_datagrams_do_not_restart_the_timeout() {
    let ip = out();
    let datagram = mirrored(&ip.udp((1000, 53), b"data"));
    let fragment = Ip { fragment: 5, ..ip.clone() };
    let mut scenario = Scenario::new("t", "10.0.0.1");
    scenario.after(0.0, datagram.clone(), [1, 0], "the first datagram");
    scenario.after(20.0, mirrored(&fragment.udp((1000, 53), b"data")), [1, 0], "a later fragment");
    scenario.after(20.0, datagram.clone(), [2, 0], "the fragment does not restart the timeout");
    scenario.after(20.0, mirrored(&ip.udp((1000, 53), b"")[..27]), [2, 0], "a truncated packet");
    scenario.after(20.0, datagram.clone(), [3, 0], "it does not restart the timeout");
    scenario.after(20.0, mirrored(&ip.packet(17, &[3, 232, 0, 53, 0, 8, 0])), [3, 0], "a truncated header");
    scenario.after(20.0, datagram.clone(), [4, 0], "it does not restart the timeout");
    scenario.after(20.0, mirrored(&ip.tcp((1000, 53), 1, ACK, b"")), [4, 0], "another protocol");
    scenario.after(20.0, datagram, [5, 0], "it does not restart the timeout");
    scenario.check(Backend::Legacy);
}

#[test]
fn a_repeated_syn_is_a_retransmission_for_120_seconds() {
    let (short, long) = (120.0 - MARGIN, 120.0 + MARGIN);
    let syn = |ports, sequence, flags| mirrored(&out().tcp(ports, sequence, flags, b""));
    let ports = (1000, 80);
    let mut scenario = Scenario::new("t", "10.0.0.1");
    scenario.after(0.0, syn(ports, 7, SYN), [1, 0], "the first SYN");
    scenario.after(1.0, syn(ports, 7, SYN), [1, 0], "a retransmission");
    scenario.after(short, syn(ports, 7, SYN), [1, 0], "a late retransmission");
    scenario.after(short, syn(ports, 7, SYN), [1, 0], "each retransmission restarts the timeout");
    scenario.after(long, syn(ports, 7, SYN), [2, 0], "after the timeout");
    scenario.after(100.0, syn(ports, 8, ACK), [2, 0], "data");
    scenario.after(100.0, syn(ports, 7, SYN), [3, 0], "data does not restart the timeout");
    scenario.after(1.0, syn(ports, 8, SYN), [4, 0], "another sequence number");
    scenario.after(1.0, syn((1001, 80), 7, SYN), [5, 0], "another port");
    scenario.after(
        1.0,
        mirrored(&back().tcp((80, 1000), 7, SYN, b"")),
        [5, 1],
        "the other direction is another connection",
    );
    scenario.after(1.0, syn(ports, 8, SYN), [5, 1], "a retransmission in the first direction");
    for (flags, why) in
        [(SYN | ACK, "SYN and ACK"), (SYN | FIN, "SYN and FIN"), (SYN | RST, "SYN and RST"), (0, "no flags")]
    {
        scenario.after(1.0, syn(ports, 100 + u32::from(flags), flags), [5, 1], why);
    }
    scenario.after(1.0, syn(ports, 200, SYN | PSH | 0xc0), [6, 1], "other flags are ignored");
    scenario.check(Backend::Nft);
}

#[test]
fn flows_of_other_protocols_end_after_600_idle_seconds() {
    let (short, long) = (600.0 - MARGIN, 600.0 + MARGIN);
    let [to, from] = [out(), back()].map(|ip| move |protocol| mirrored(&ip.packet(protocol, &[0; 8])));
    let later = Ip { fragment: 5, ..out() };
    let mut scenario = Scenario::new("t", "10.0.0.1");
    scenario.after(0.0, to(GRE), [1, 0], "the first packet");
    scenario.after(short, from(GRE), [1, 0], "an answer in time");
    scenario.after(short, to(GRE), [1, 0], "the answer restarts the timeout");
    scenario.after(short, mirrored(&later.packet(GRE, &[0; 8])), [1, 0], "a fragment");
    scenario.after(short, to(GRE), [1, 0], "the fragment restarts the timeout");
    scenario.after(long, from(GRE), [1, 1], "the first sender after the timeout starts the connection");
    scenario.after(0.0, to(GRE), [1, 1], "an answer");
    scenario.after(0.0, to(50), [2, 1], "another protocol is another connection");
    scenario.after(
        0.0,
        mirrored(&Ip::new(INSIDE, [192, 0, 2, 2]).packet(GRE, b"")),
        [3, 1],
        "another address is another connection",
    );
    scenario.check(Backend::Nft);
}

#[test]
fn each_icmp_request_is_a_connection() {
    let icmp = |kind: u8| mirrored(&out().packet(1, &[kind, 0, 0, 0, 0, 1, 0, 1]));
    let mut scenario = Scenario::new("t", "10.0.0.1");
    for (number, pause) in [0.0, 0.0, 1.0, 1000.0].into_iter().enumerate() {
        scenario.after(pause, icmp(8), [number as u64 + 1, 0], "the same request again");
    }
    scenario.after(
        0.0,
        mirrored(&back().packet(1, &[8, 0, 0, 0, 0, 1, 0, 1])),
        [4, 1],
        "a request in the other direction",
    );
    for (kind, connections) in [(0, 4), (3, 4), (11, 4), (13, 5), (14, 5), (15, 6), (16, 6), (17, 7), (18, 7), (5, 7)] {
        scenario.after(0.0, icmp(kind), [connections, 1], "only requests count");
    }
    scenario.after(0.0, mirrored(&out().packet(1, &[8, 0, 0, 0, 0, 1, 0])), [7, 1], "a truncated header");
    scenario.check(Backend::Nft);
}

#[test]
fn ipv6_has_the_same_timeouts() {
    let to = Ip::between("2001:db8::1", "2001:db8:1::1");
    let from = to.clone().reversed();
    let frame = |packet: Vec<u8>| mirrored(&packet);
    let mut scenario = Scenario::new("six", "2001:db8::1");
    scenario.after(0.0, frame(to.udp((1000, 53), b"")), [1, 0], "the first datagram");
    scenario.after(30.0 - MARGIN, frame(from.udp((53, 1000), b"")), [1, 0], "an answer in time");
    scenario.after(30.0 + MARGIN, frame(to.udp((1000, 53), b"")), [2, 0], "after the timeout");
    scenario.after(0.0, frame(to.packet(GRE, b"x")), [3, 0], "another protocol");
    scenario.after(600.0 - MARGIN, frame(from.packet(GRE, b"x")), [3, 0], "an answer in time");
    scenario.after(600.0 + MARGIN, frame(from.packet(GRE, b"x")), [3, 1], "after the timeout");
    for number in 0..3 {
        scenario.after(0.0, frame(to.packet(58, &[128, 0, 0, 0, 0, 1, 0, 1])), [4 + number, 1], "an echo request");
    }
    scenario.after(0.0, frame(to.packet(58, &[129, 0, 0, 0, 0, 1, 0, 1])), [6, 1], "an echo reply");
    scenario.after(0.0, frame(to.packet(1, &[8, 0, 0, 0, 0, 1, 0, 1])), [7, 1], "the other family's ICMP is OTHER");
    scenario.after(0.0, frame(to.packet(1, &[8, 0, 0, 0, 0, 1, 0, 1])), [7, 1], "it is the same connection");
    in_virtual_time(|guest| {
        let rule = "ip6tables -A PROMISC -m traffic --ipconn --net 2001:db8::/48 --name six";
        iptables(guest, Backend::Nft, rule)?;
        guest.open_inner_port()?;
        scenario.run(guest)
    });
}
