// SPDX-License-Identifier: GPL-2.0-only
//! Sweeps: packets with far more addresses than a table has room for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use traffic_model::frames::{GRE, IPV4, Ip, SYN, gre, mirrored};
use vm_harness::guest::Guest;
use vm_harness::poll;
use vm_harness::replay::TABLES;
use vm_tests::pktgen::{self, Generating, parse_sum, sum};
use vm_tests::{cgroup, guest_test, row, stat, table};

/// The number of packets in a sweep, all on CPU 0. Nearly each has another address.
const SWEPT: u64 = 12_000;
/// The memory for rows, in bytes. It is enough for less than a third of the addresses.
const MEMORY: u32 = 1 << 18;
/// The length of each packet. All are UDP packets.
const BYTES: u64 = 100;
/// How long a sweep may take. Only one that hangs reaches this.
const TIMEOUT: Duration = Duration::from_secs(240);
/// The time between packets of a host that talks, and between reads.
const PAUSE: Duration = Duration::from_millis(100);

/// A kind of sweep.
struct Sweep {
    program: &'static str,
    net: &'static str,
    /// pktgen commands for the addresses.
    addresses: &'static [&'static str],
    host: fn(u8) -> IpAddr,
    outside: IpAddr,
}

/// The sources are swept.
const V4: Sweep = Sweep {
    program: "iptables",
    net: "10.0.0.0/8",
    addresses: &[
        "flag IPSRC_RND",
        "src_min 10.64.0.0",
        "src_max 10.127.255.255",
        "dst_min 192.0.2.1",
        "dst_max 192.0.2.1",
    ],
    host: |host| Ipv4Addr::new(10, 0, 0, host).into(),
    outside: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
};

/// The destinations are swept: pktgen varies no other IPv6 addresses.
const V6: Sweep = Sweep {
    program: "ip6tables",
    net: "2001:db8::/32",
    addresses: &["src6 3fff::1", "dst6_min 2001:db8:1::", "dst6_max 2001:db8:1:ffff:ffff:ffff:ffff:ffff"],
    host: |host| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()).into(),
    outside: IpAddr::V6(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 1)),
};

impl Sweep {
    fn add_rule(&self, guest: &mut Guest) -> Result<()> {
        let Self { program, net, .. } = self;
        let rule = format!("{program} -A PROMISC -m traffic --traffic --net {net} --hashsize 65536 --name t");
        cgroup::add_rule(guest, &rule, MEMORY)
    }

    /// Generates [`SWEPT`] packets, with pauses in which other programs can run.
    fn start(&self, guest: &mut Guest) -> Result<Generating> {
        // 114 bytes with the Ethernet header.
        let common = ["pkt_size 114", "delay 200000"];
        pktgen::start(guest, 1, SWEPT, &[&common, self.addresses].concat())
    }

    /// Sends a packet from each of these hosts.
    fn send(&self, guest: &mut Guest, hosts: &[u8]) -> Result<()> {
        let headers = if self.outside.is_ipv6() { 48 } else { 28 };
        let data = vec![7; BYTES as usize - headers];
        guest.send(0, hosts.iter().map(|host| mirrored(&Ip::new((self.host)(*host), self.outside).udp((1, 2), &data))))
    }

    /// The number of packets in a host's row.
    fn packets(&self, text: &str, host: u8) -> Result<u64> {
        let bytes = row(text, &(self.host)(host).to_string())?.first().copied().unwrap_or(0);
        Ok(bytes / BYTES)
    }
}

/// The bytes that a table has counted in both directions.
fn total(sums: &[u64]) -> u64 {
    sums.iter().take(2).sum()
}

/// Before the sweep some hosts talk. They go on, and others begin meanwhile. After the sweep, more
/// hosts begin.
fn talk_during(guest: &mut Guest, sweep: &Sweep) -> Result<()> {
    const BEFORE: u64 = 3;
    let [old, late, new]: [Vec<u8>; 3] = [(1..=30).collect(), (101..=110).collect(), (201..=230).collect()];
    sweep.add_rule(guest)?;
    guest.open_port(0)?;
    // The rows of the hosts are on CPU 0, too.
    guest.steer_ports_to_cpus()?;
    for _ in 0..BEFORE {
        sweep.send(guest, &old)?;
    }
    let (generating, mut rounds) = (sweep.start(guest)?, 0);
    poll(TIMEOUT, "the end of the sweep", || {
        sweep.send(guest, &old)?;
        sweep.send(guest, &late)?;
        rounds += 1;
        std::thread::sleep(PAUSE);
        Ok(generating.has_ended(guest)?.then_some(()))
    })?;
    generating.finish(guest)?;
    std::thread::sleep(Duration::from_secs(1));
    sweep.send(guest, &late)?;
    sweep.send(guest, &new)?;

    let (rows, sums, others) = sum(guest, "t")?;
    let talked = [(&old, BEFORE + rounds), (&late, rounds + 1), (&new, 1)];
    let packets = SWEPT + talked.iter().map(|(hosts, packets)| hosts.len() as u64 * packets).sum::<u64>();
    ensure!(total(&sums) == packets * BYTES, "{sums:?} and {others:?} after {packets} packets");
    let (recycled, overflows) = (stat(guest, "t.recycled")?, stat(guest, "t.overflows")?);
    let state = format!("{rounds} rounds, {rows} rows, {recycled} recycled, {overflows} overflows");
    ensure!(rows < SWEPT / 3 && recycled > SWEPT / 3 && overflows < SWEPT / 10, "{state}");
    ensure!(total(&others) >= recycled * BYTES, "{state}: {others:?}");
    let text = table(guest, "t")?;
    for (hosts, packets) in [&talked[0], &talked[2]] {
        for host in *hosts {
            let got = sweep.packets(&text, *host)?;
            ensure!(got == *packets, "host {host} has {got} packets instead of {packets} ({state})");
        }
    }
    for host in &late {
        ensure!(sweep.packets(&text, *host)? > 0, "host {host} has no row ({state})");
    }
    Ok(())
}

guest_test!(hosts_that_talk_keep_their_rows_during_a_sweep, |guest| {
    talk_during(guest, &V4)?;
});

guest_test!(ipv6_hosts_that_talk_keep_their_rows_during_a_sweep, |guest| {
    talk_during(guest, &V6)?;
});

// pktgen counts a packet after the kernel has processed it. The shell reads the header first, which
// makes the snapshot that all rows are from.
guest_test!(a_read_during_a_sweep_returns_what_was_counted_when_it_began, |guest| {
    V4.add_rule(guest)?;
    let generating = V4.start(guest)?;
    let count = "sed -n 's/.*pkts-sofar: \\([0-9]*\\) .*/\\1/p' /proc/net/pktgen/gen0; echo =";
    let (read, copy) = ("IFS= read -r header", "{ echo \"$header\"; cat; } >/tmp/copy");
    let read = format!("{count}; {{ {read}; {count}; {copy}; }} <{TABLES}/t; /init sum /tmp/copy");
    let (mut reads, mut last) = (0, 0);
    poll(TIMEOUT, "the end of the sweep", || {
        let output = guest.must(&read)?;
        let parts: Vec<&str> = output.split("=\n").collect();
        let [before, after, sums] = parts[..] else { anyhow::bail!("{output}") };
        let (_, sums, _) = parse_sum(sums)?;
        let (before, after): (u64, u64) = (before.trim().parse()?, after.trim().parse()?);
        let counted = total(&sums) / BYTES;
        let most = after + 1;
        ensure!((before..=most).contains(&counted), "{counted} packets: not in {before} to {most}");
        ensure!(counted >= last, "{counted} packets, and {last} before");
        reads += u32::from((1..SWEPT).contains(&counted));
        last = counted;
        std::thread::sleep(PAUSE);
        Ok(generating.has_ended(guest)?.then_some(()))
    })
    .with_context(|| format!("{reads} reads, the last of {last} packets"))?;
    generating.finish(guest)?;
    let (rows, sums, _) = sum(guest, "t")?;
    ensure!(total(&sums) == SWEPT * BYTES, "{sums:?}");
    let recycled = stat(guest, "t.recycled")?;
    ensure!(recycled > rows, "{rows} rows, and {recycled} were recycled");
    ensure!(reads > 2, "the sweep was too short for this test");
});

// The sweep takes all memory before the other CPU has its first packet.
guest_test!(a_sweep_on_one_cpu_leaves_the_other_its_first_rows_and_flows, |guest| {
    /// A page has this number of rows of connections.
    const HOSTS: u8 = 32;
    /// On each of two CPUs, each of three files has five pages, and each kind of flow one.
    const FIRST: u64 = 2 * (3 * 5 + 3) * 4096;
    let counts = "--traffic --ipconn --portconn --net 10.0.0.0/8 --hashsize 65536";
    cgroup::add_rule(guest, &format!("iptables -A PROMISC -m traffic {counts} --name t"), MEMORY)?;
    let first = stat(guest, "memory_used")?;
    ensure!(first == FIRST, "{first} bytes are used");
    guest.open_port(1)?;
    guest.steer_ports_to_cpus()?;
    V4.start(guest)?.finish(guest)?;
    let (recycled, used) = (stat(guest, "t.recycled")?, stat(guest, "memory_used")?);
    ensure!(recycled > SWEPT / 4, "{recycled} rows were recycled");

    let packets = (1..=HOSTS).flat_map(|host| {
        let ip = Ip::new((V4.host)(host), V4.outside);
        [ip.tcp((1, 80), 0, SYN, b""), ip.udp((1, 53), b""), ip.packet(GRE, &gre(IPV4, b""))]
    });
    guest.send(1, packets.map(|packet| mirrored(&packet)))?;
    let [traffic, ipconn, portconn] = ["t", "t.ipconn", "t.portconn"].map(|file| table(guest, file));
    let (traffic, ipconn, portconn) = (traffic?, ipconn?, portconn?);
    for host in 1..=HOSTS {
        let key = (V4.host)(host).to_string();
        let (bytes, connections) = (row(&traffic, &key)?, row(&ipconn, &key)?);
        ensure!(bytes.first() == Some(&(40 + 28 + 24)), "host {host}: {bytes:?}");
        ensure!(connections == [3, 0, 1, 0, 1, 0, 0, 0, 1, 0], "host {host}: {connections:?}");
    }
    for port in ["80", "53", "0"] {
        let connections = row(&portconn, port)?;
        ensure!(connections.first() == Some(&HOSTS.into()), "port {port}: {connections:?}");
    }
    let after = stat(guest, "memory_used")?;
    ensure!(after == used, "{after} bytes are used, and {used} before");
});
