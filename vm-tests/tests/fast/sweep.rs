// SPDX-License-Identifier: GPL-2.0-only
//! A sweep of a large network at full speed, while hosts talk. All packets are on CPU 0.

use std::env;
use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vm_harness::guest::Guest;
use vm_harness::replay::Backend;
use vm_tests::pktgen::sum;
use vm_tests::sweep::{BYTES, Sweep, V4, V6};
use vm_tests::{guest_test, iptables, set_memory, stat, table};

/// The rows that the table has room for on each CPU.
const ROWS: u64 = 1 << 16;
/// The hosts that talk during the sweep. As many others begin after it.
const HOSTS: u16 = 1000;
/// The time between two packets of a host.
const PAUSE: Duration = Duration::from_secs(1);

/// The number of packets of the sweep. `XT_TRAFFIC_SWEEP` changes it for longer runs.
fn swept() -> Result<u64> {
    env::var("XT_TRAFFIC_SWEEP").map_or(Ok(500_000), |text| text.parse().context("XT_TRAFFIC_SWEEP"))
}

/// The hosts that have exactly this number of packets in their rows.
fn with_packets(sweep: &Sweep, text: &str, hosts: Range<u16>, packets: u64) -> Result<usize> {
    let mut all = 0;
    for host in hosts {
        all += usize::from(sweep.bytes(text, host)? == packets * BYTES);
    }
    Ok(all)
}

fn talk_during(guest: &mut Guest, sweep: &Sweep) -> Result<()> {
    let Sweep { program, net, .. } = sweep;
    // The first table gets a third of it, for two CPUs, and a row takes at most 102 bytes.
    set_memory(guest, &(ROWS * 102 * 3 * 2).to_string())?;
    let rule = format!("{program} -A PROMISC -m traffic --traffic --net {net} --name t");
    iptables(guest, Backend::Nft, &rule)?;
    guest.open_port(0)?;
    guest.steer_ports_to_cpus()?;
    let (old, new) = (1..1 + HOSTS, 20_001..20_001 + HOSTS);
    sweep.send(guest, old.clone())?;
    sweep.send(guest, old.clone())?;

    let (start, mut rounds, mut last) = (Instant::now(), 2, 0);
    let generating = sweep.start(guest, swept()?, &[])?;
    while !generating.has_ended(guest)? {
        sweep.send(guest, old.clone())?;
        rounds += 1;
        // A table never loses what it has counted.
        let (_, sums, _) = sum(guest, "t")?;
        let counted = sums[0] + sums[1];
        ensure!(counted >= last + u64::from(HOSTS) * BYTES, "{counted} after {last}");
        last = counted;
        sleep(PAUSE);
    }
    generating.finish(guest)?;
    let seconds = start.elapsed().as_secs();
    // A second after the sweep.
    sleep(Duration::from_secs(1));
    sweep.send(guest, new.clone())?;

    let packets = swept()? + u64::from(HOSTS) * (rounds + 1);
    let (rows, sums, others) = sum(guest, "t")?;
    ensure!(sums[0] + sums[1] == packets * BYTES, "{sums:?} and {others:?} after {packets} packets");
    let text = table(guest, "t")?;
    let kept = with_packets(sweep, &text, old, rounds)?;
    let found = with_packets(sweep, &text, new, 1)?;
    let (recycled, overflows) = (stat(guest, "t.recycled")?, stat(guest, "t.overflows")?);
    eprintln!(
        "{net}: {packets} packets in {seconds} s, {rounds} packets of each host; {kept} hosts kept their rows, \
         {found} new hosts have one; {rows} rows, {recycled} recycled, {overflows} overflows"
    );
    ensure!(kept == usize::from(HOSTS) && found == usize::from(HOSTS));
    ensure!(rows == ROWS && recycled + overflows + rows >= swept()? / 10 * 9);
    Ok(())
}

guest_test!(hosts_keep_their_rows_during_a_sweep_at_full_speed, |guest| {
    talk_during(guest, &V4)?;
});

guest_test!(ipv6_hosts_keep_their_rows_during_a_sweep_at_full_speed, |guest| {
    talk_during(guest, &V6)?;
});
