// SPDX-License-Identifier: GPL-2.0-only
//! Traffic of the kernel's packet generator, passed to the receive path of a device in a guest:
//! <https://docs.kernel.org/networking/pktgen.html>

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Result, ensure};
use vm_harness::guest::Guest;

/// The first address, 10.0.0.0.
const FIRST: u32 = 0x0a00_0000;
/// The first of IPv6, fd00::.
const FIRST_IPV6: u128 = 0xfd << 120;
/// The length of an Ethernet header.
const ETHERNET: u32 = 14;
/// The length of a burst. pktgen sends whole bursts only.
pub const BURST: u32 = 64;
/// The most addresses that send IPv6. The cost depends on the position of the sender's row in its
/// bucket. Many senders average this out: with 32, runs differed by 12 instructions. pktgen waits
/// 125 ms before each sender, and the flows must not expire in a run.
const IPV6_SENDERS: u32 = 128;
/// The device's file, for settings and results.
const DEVICE: &str = "/proc/net/pktgen/mirror0";
/// The longest time that sending may take.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The time between packets.
#[derive(Clone, Copy)]
pub enum Pace {
    /// Each packet has a buffer of its own, as from a driver. It is sent when the one before has
    /// been received.
    Each,
    /// Bursts of the same packet, so that making packets takes little time: this number of packets
    /// per second, or as fast as they are received.
    Bursts(Option<u32>),
}

/// The kind of the packets: UDP datagrams.
#[derive(Clone, Copy)]
pub enum Kind {
    /// IPv4. One half of the addresses sends to the other half, each to the same one, in turn. A
    /// single address sends to itself. Each pair of addresses is one flow.
    Ipv4,
    /// The same with different ports, so that each packet is a flow.
    Ipv4Flows,
    /// IPv6. The senders send one after the other, each to randomly chosen receivers of its own,
    /// because pktgen offers nothing else.
    Ipv6,
}

impl Kind {
    /// The number of packets after which all addresses have occurred.
    pub fn min_packets(self, addresses: u32) -> u32 {
        // With 16, one of 65,536 receivers of IPv6 is left out with a probability of 1 in 136.
        addresses * if let Self::Ipv6 = self { 16 } else { 2 }
    }
}

/// The packets of one run.
#[derive(Clone, Copy)]
pub struct Traffic {
    /// The number of addresses, a power of two. IPv6 has this number of receivers, and the senders.
    pub addresses: u32,
    /// The number of packets.
    pub packets: u32,
    /// The time between them.
    pub pace: Pace,
    /// Their kind.
    pub kind: Kind,
}

impl Traffic {
    /// The number of pairs of addresses.
    pub fn pairs(self) -> u32 {
        if let Kind::Ipv6 = self.kind { self.addresses } else { (self.addresses / 2).max(1) }
    }

    /// The settings of all parts, as words for a shell.
    fn settings(self) -> String {
        let (burst, delay, shared) = match self.pace {
            Pace::Each => (1, 0, "!SHARED"),
            Pace::Bursts(None) => (BURST, 0, "SHARED"),
            // The delay is from one burst to the next, in nanoseconds.
            Pace::Bursts(Some(rate)) => (BURST, u64::from(BURST) * 1_000_000_000 / u64::from(rate), "SHARED"),
        };
        // The length of a packet, which includes pktgen's own header, and the ports. pktgen
        // excludes the last port. Ports and addresses advance together, but wrap at different
        // numbers.
        let (length, first, end) = match self.kind {
            Kind::Ipv4 => (46, 9, 9),
            Kind::Ipv4Flows => (46, 1024, 65533),
            Kind::Ipv6 => (64, 9, 9),
        };
        format!(
            "'xmit_mode netif_receive' 'pkt_size {}' 'dst_mac 02:00:00:00:00:99' 'burst {burst}' 'flag {shared}' \
             'udp_src_min {first}' 'udp_src_max {end}' 'delay {delay}'",
            length + ETHERNET
        )
    }

    /// The settings of each part of the packets.
    fn parts(self) -> Vec<String> {
        if let Kind::Ipv4 | Kind::Ipv4Flows = self.kind {
            let (pairs, last) = (self.pairs(), self.addresses - 1);
            let range = |side, from, to| {
                let [from, to] = [from, to].map(|n| Ipv4Addr::from(FIRST + n));
                format!("'{side}_min {from}' '{side}_max {to}'")
            };
            let (sources, destinations) = (range("src", 0, pairs - 1), range("dst", last + 1 - pairs, last));
            return vec![format!("'count {}' {sources} {destinations}", self.packets)];
        }
        let senders = (self.addresses / 8).clamp(1, IPV6_SENDERS);
        let (packets, share) = (self.packets / senders, self.addresses / senders);
        let part = |number| {
            let sender = Ipv6Addr::from(FIRST_IPV6 + u128::from(number));
            // Each number of addresses has receivers of its own: the flows of the others are known
            // already.
            let first = FIRST_IPV6 + (u128::from(self.addresses) << 32) + u128::from(number * share);
            let [first, last] = [first, first + u128::from(share) - 1].map(Ipv6Addr::from);
            format!("'count {packets}' 'src6 {sender}' 'dst6_min {first}' 'dst6_max {last}'")
        };
        (0..senders).map(part).collect()
    }

    /// Sends the packets and returns the time in microseconds.
    pub fn send(self, guest: &mut Guest) -> Result<f64> {
        self.run(guest, "all")
    }

    /// Sends the packets [`Self::runs`] times, at first to make the addresses known, and returns
    /// the time of the last run in microseconds.
    ///
    /// The guest must not wait for the host between the runs: its clock would advance, and it would
    /// forget the flows of addresses. The flows of [`Kind::Ipv4Flows`] must be new in all runs, so
    /// the guest sleeps until it has forgotten them.
    pub fn send_known(self, guest: &mut Guest) -> Result<f64> {
        let pause = if let Kind::Ipv4Flows = self.kind { "sleep 31 && " } else { "" };
        let before = "all >/dev/null && ".repeat(self.runs() as usize - 1);
        self.run(guest, &format!("{before}{pause}all"))
    }

    /// How often [`Self::send_known`] sends the packets. With 65,536 receivers of IPv6, the index
    /// doubles its buckets at the end of the first run. They get their rows in one run more.
    pub fn runs(self) -> u32 {
        if let Kind::Ipv6 = self.kind { 3 } else { 2 }
    }

    /// Runs a shell command, in which the function `all` sends all parts.
    fn run(self, guest: &mut Guest, command: &str) -> Result<f64> {
        let parts = self.parts();
        let script = format!(
            "configure() {{ for line; do echo $line >{DEVICE} || {{ echo \"$line\" >&2; return 1; }}; done; }}\n\
             part() {{ configure \"$@\" && echo start >/proc/net/pktgen/pgctrl && grep ^Result: {DEVICE}; }}\n\
             all() {{ part {}; }}\n\
             configure {} && {command}",
            parts.join(" && part "),
            self.settings()
        );
        let output = guest.run_for(&script, TIMEOUT)?;
        ensure!(output.status == 0, "failed to start pktgen: {}", output.stderr);
        let times: Vec<_> = output.stdout.lines().filter_map(microseconds).collect();
        ensure!(times.len() == parts.len(), "pktgen did not send everything: {}", output.stdout);
        Ok(times.iter().sum())
    }
}

/// Creates the dummy device `mirror0`, up and promiscuous, and adds it to the first thread of
/// pktgen.
pub fn prepare(guest: &mut Guest) -> Result<()> {
    guest.must("ip link add mirror0 type dummy && ip link set mirror0 up promisc on")?;
    guest.must("echo add_device mirror0 >/proc/net/pktgen/kpktgend_0").map(drop)
}

/// The time in a result of pktgen: `Result: OK: 52(c50+d2) usec, ...`.
fn microseconds(result: &str) -> Option<f64> {
    result.split_once("OK: ")?.1.split_once('(')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::instructions::{ADDRESSES, PACKETS};

    fn traffic(kind: Kind, addresses: u32, packets: u32) -> Traffic {
        Traffic { addresses, packets, pace: Pace::Each, kind }
    }

    /// The values of one setting in all parts.
    fn values<'a>(parts: &'a [String], word: &'a str) -> impl Iterator<Item = &'a str> {
        let words = parts.iter().flat_map(|part| part.split('\''));
        words.filter_map(move |setting| setting.strip_prefix(word)?.strip_prefix(' '))
    }

    #[test]
    fn the_parts_have_all_packets() {
        for kind in [Kind::Ipv4, Kind::Ipv4Flows, Kind::Ipv6] {
            for &addresses in ADDRESSES {
                let packets = PACKETS.max(kind.min_packets(addresses));
                let parts = traffic(kind, addresses, packets).parts();
                let counts: u32 = values(&parts, "count").map(|count| count.parse::<u32>().unwrap()).sum();
                assert_eq!(counts, packets);
            }
        }
    }

    #[test]
    fn the_receivers_of_ipv6_senders_are_adjacent() {
        let parts = traffic(Kind::Ipv6, 256, 20_000).parts();
        let addresses = |word| values(&parts, word).map(|address| address.parse::<Ipv6Addr>().unwrap().to_bits());
        let (mut firsts, lasts) = (addresses("dst6_min"), addresses("dst6_max"));
        let first = firsts.next().unwrap();
        let end = lasts.fold(first, |start, last| {
            assert_eq!(last + 1 - start, 8);
            assert!(firsts.next().is_none_or(|next| next == last + 1));
            last + 1
        });
        assert_eq!(end - first, 256);
        let mut senders: Vec<_> = addresses("src6").collect();
        senders.dedup();
        assert_eq!(senders.len(), 32);
    }

    #[test]
    fn the_time_is_parsed() {
        assert_eq!(microseconds("Result: OK: 52(c50+d2) usec, 20 (60byte,0frags)"), Some(52.0));
        assert_eq!(microseconds("Result: Idle"), None);
    }
}
