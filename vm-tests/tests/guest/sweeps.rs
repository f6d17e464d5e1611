// SPDX-License-Identifier: GPL-2.0-only
//! Sweeps: packets with far more addresses than a table has room for.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use traffic_model::frames::{GRE, IPV4, Ip, SYN, gre, mirrored};
use vm_harness::guest::Guest;
use vm_harness::poll;
use vm_harness::replay::TABLES;
use vm_tests::pktgen::{Generating, parse_sum, sum};
use vm_tests::sweep::{BYTES, Sweep, V4, V6};
use vm_tests::{cgroup, guest_test, row, stat, table};

/// The number of packets in a sweep, all on CPU 0. Nearly each has another address.
const SWEPT: u64 = 12_000;
/// The memory for rows, in bytes. It is enough for less than a third of the addresses.
const MEMORY: u32 = 1 << 18;
/// How long a sweep may take. Only one that hangs reaches this.
const TIMEOUT: Duration = Duration::from_secs(240);
/// The time between packets of a host that talks, and between reads.
const PAUSE: Duration = Duration::from_millis(100);

/// Makes a table whose memory is too small for a sweep.
fn add_rule(guest: &mut Guest, sweep: &Sweep) -> Result<()> {
    let Sweep { program, net, .. } = sweep;
    let rule = format!("{program} -A PROMISC -m traffic --traffic --net {net} --hashsize 65536 --name t");
    cgroup::add_rule(guest, &rule, MEMORY)
}

/// Generates [`SWEPT`] packets, with pauses in which other programs can run.
fn start(guest: &mut Guest, sweep: &Sweep) -> Result<Generating> {
    sweep.start(guest, SWEPT, &["delay 200000"])
}

/// The bytes that a table has counted in both directions.
fn total(sums: &[u64]) -> u64 {
    sums.iter().take(2).sum()
}

/// Before the sweep some hosts talk. They go on, and others begin meanwhile. After the sweep, more
/// hosts begin.
fn talk_during(guest: &mut Guest, sweep: &Sweep) -> Result<()> {
    const BEFORE: u64 = 3;
    let [old, late, new]: [Vec<u16>; 3] = [(1..=30).collect(), (101..=110).collect(), (201..=230).collect()];
    add_rule(guest, sweep)?;
    guest.open_port(0)?;
    // The rows of the hosts are on CPU 0, too.
    guest.steer_ports_to_cpus()?;
    for _ in 0..BEFORE {
        sweep.send(guest, old.clone())?;
    }
    let (generating, mut rounds) = (start(guest, sweep)?, 0);
    poll(TIMEOUT, "the end of the sweep", || {
        sweep.send(guest, old.clone())?;
        sweep.send(guest, late.clone())?;
        rounds += 1;
        std::thread::sleep(PAUSE);
        Ok(generating.has_ended(guest)?.then_some(()))
    })?;
    generating.finish(guest)?;
    std::thread::sleep(Duration::from_secs(1));
    sweep.send(guest, late.clone())?;
    sweep.send(guest, new.clone())?;

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
            let (got, sent) = (sweep.bytes(&text, *host)?, packets * BYTES);
            ensure!(got == sent, "host {host} has {got} bytes instead of {sent} ({state})");
        }
    }
    for host in &late {
        ensure!(sweep.bytes(&text, *host)? > 0, "host {host} has no row ({state})");
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
    add_rule(guest, &V4)?;
    let generating = start(guest, &V4)?;
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
    const HOSTS: u16 = 32;
    /// On each of two CPUs, each of three files has five pages, and each kind of flow one.
    const FIRST: u64 = 2 * (3 * 5 + 3) * 4096;
    let counts = "--traffic --ipconn --portconn --net 10.0.0.0/8 --hashsize 65536";
    cgroup::add_rule(guest, &format!("iptables -A PROMISC -m traffic {counts} --name t"), MEMORY)?;
    let first = stat(guest, "memory_used")?;
    ensure!(first == FIRST, "{first} bytes are used");
    guest.open_port(1)?;
    guest.steer_ports_to_cpus()?;
    start(guest, &V4)?.finish(guest)?;
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
