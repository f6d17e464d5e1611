// SPDX-License-Identifier: GPL-2.0-only
//! A sweep of a large network at full speed, while hosts talk. All packets are on CPU 0.

use std::env;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use traffic_model::frames::{Ip, mirrored};
use vm_harness::guest::Guest;
use vm_harness::replay::Backend;
use vm_tests::pktgen::{self, sum};
use vm_tests::{guest_test, iptables, row, set_memory, stat, table};

/// The rows that the table has room for on each CPU.
const ROWS: u64 = 1 << 16;
/// The hosts that talk during the sweep. As many others begin after it.
const HOSTS: u16 = 1000;
/// The length of each packet. All are UDP packets.
const BYTES: u64 = 100;
/// The time between two packets of a host.
const PAUSE: Duration = Duration::from_secs(1);

/// The number of packets of the sweep. `XT_TRAFFIC_SWEEP` changes it for longer runs.
fn swept() -> Result<u64> {
    env::var("XT_TRAFFIC_SWEEP").map_or(Ok(500_000), |text| text.parse().context("XT_TRAFFIC_SWEEP"))
}

struct Sweep {
    program: &'static str,
    net: &'static str,
    /// pktgen commands for the addresses.
    addresses: &'static [&'static str],
    host: fn(u16) -> IpAddr,
    outside: IpAddr,
}

/// The sources are swept. The hosts are in the first quarter of the network.
const V4: Sweep = Sweep {
    program: "iptables",
    net: "10.0.0.0/8",
    addresses: &[
        "flag IPSRC_RND",
        "src_min 10.64.0.0",
        "src_max 10.255.255.255",
        "dst_min 192.0.2.1",
        "dst_max 192.0.2.1",
    ],
    host: |host| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + u32::from(host))),
    outside: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
};

/// The destinations are swept: pktgen varies no other IPv6 addresses.
const V6: Sweep = Sweep {
    program: "ip6tables",
    net: "2001:db8::/32",
    addresses: &["src6 3fff::1", "dst6_min 2001:db8:1::", "dst6_max 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"],
    host: |host| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host)),
    outside: IpAddr::V6(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 1)),
};

impl Sweep {
    /// Sends a packet from each of these hosts.
    fn send(&self, guest: &mut Guest, hosts: std::ops::Range<u16>) -> Result<()> {
        let headers = if self.outside.is_ipv6() { 48 } else { 28 };
        let data = vec![7; BYTES as usize - headers];
        guest.send(0, hosts.map(|host| mirrored(&Ip::new((self.host)(host), self.outside).udp((1, 2), &data))))
    }

    /// The hosts that have exactly this number of packets in their rows.
    fn with_packets(&self, text: &str, hosts: std::ops::Range<u16>, packets: u64) -> Result<usize> {
        let mut all = 0;
        for host in hosts {
            all += usize::from(row(text, &(self.host)(host).to_string())?.first() == Some(&(packets * BYTES)));
        }
        Ok(all)
    }
}

fn talk_during(guest: &mut Guest, sweep: &Sweep) -> Result<()> {
    let Sweep { program, net, addresses, .. } = sweep;
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
    let generating = pktgen::start(guest, 1, swept()?, &[&["pkt_size 114"], *addresses].concat())?;
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
    let kept = sweep.with_packets(&text, old, rounds)?;
    let found = sweep.with_packets(&text, new, 1)?;
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
