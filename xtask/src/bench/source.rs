// SPDX-License-Identifier: GPL-2.0
//! pktgen, which hands packets for others to the receive path of a device in a guest.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Result, ensure};
use vm_harness::guest::Guest;

/// The first address, 10.0.0.0.
const FIRST: u32 = 0x0a00_0000;
/// The first of IPv6, fd00::.
const FIRST_IPV6: u128 = 0xfd << 120;
/// Bytes of the header of the frame around a packet.
const ETHERNET: u32 = 14;
/// How often a packet is handed over before the next one is made, where the source is not to take much of the time. It
/// sends no part of a burst.
pub const BURST: u32 = 64;
/// How many addresses send IPv6, if there are so many. Where a sender's row is among others in its bucket is a matter of
/// luck, and of one sender alone it would be in the figure.
const IPV6_SENDERS: u32 = 32;
/// Where it is told what to send from the device, and says what it has sent.
const DEVICE: &str = "/proc/net/pktgen/mirror0";
/// Has it send, and waits until all is sent.
const START: &str = "echo start >/proc/net/pktgen/pgctrl";
/// What sending may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// How packets follow each other.
#[derive(Clone, Copy)]
pub enum Pace {
    /// Each is made anew, as a network card's driver does it, and comes when the one before has been received.
    Each,
    /// In bursts of the same packet, so many packets a second, or as fast as they are received.
    Bursts(Option<u32>),
}

/// What is sent.
#[derive(Clone, Copy)]
pub enum Kind {
    /// IPv4. All packets between two addresses belong together.
    Ipv4,
    /// The same, but each packet belongs to no other: it has ports of its own.
    Ipv4Flows,
    /// IPv6. Some addresses send, one after the other, each to its share of as many others as there are to be, drawn at
    /// random: pktgen can do nothing else.
    Ipv6,
}

impl Kind {
    /// Bytes of a packet at the IP layer. With less, pktgen has no room for what it writes into each.
    const fn size(self) -> u32 {
        match self {
            Self::Ipv4 | Self::Ipv4Flows => 46,
            Self::Ipv6 => 64,
        }
    }

    /// How many packets it takes at least for so many addresses to become known.
    pub fn to_all(self, addresses: u32) -> u32 {
        match self {
            Self::Ipv4 | Self::Ipv4Flows => 2 * addresses,
            // The odds that one of 65,536 is left out are 1 to 135.
            Self::Ipv6 => 16 * addresses,
        }
    }
}

/// UDP datagrams. Of IPv4, one half of the addresses sends to the other, each as often as any other and always to the
/// same, one after the other. A single one sends to itself.
#[derive(Clone, Copy)]
pub struct Traffic {
    /// How many addresses send and receive: a power of two.
    pub addresses: u32,
    /// How many packets are sent in a run.
    pub packets: u32,
    /// How they follow each other.
    pub pace: Pace,
    /// What they are.
    pub kind: Kind,
}

impl Traffic {
    /// How many pairs of addresses there are.
    pub fn pairs(self) -> u32 {
        match self.kind {
            Kind::Ipv4 | Kind::Ipv4Flows => (self.addresses / 2).max(1),
            Kind::Ipv6 => self.addresses,
        }
    }

    /// What pktgen is told, once and for all.
    fn lines(self) -> Vec<String> {
        let (burst, delay) = match self.pace {
            Pace::Each => (1, 0),
            Pace::Bursts(None) => (BURST, 0),
            // From one burst to the next, in nanoseconds.
            Pace::Bursts(Some(rate)) => (BURST, u64::from(BURST) * 1_000_000_000 / u64::from(rate)),
        };
        let shared = if burst > 1 { "SHARED" } else { "!SHARED" };
        // Ports, from the first to the one before the last, come with the addresses, but end elsewhere.
        let ports = match self.kind {
            Kind::Ipv4 | Kind::Ipv6 => (9, 9),
            Kind::Ipv4Flows => (1024, 65533),
        };
        vec![
            "xmit_mode netif_receive".to_owned(),
            format!("pkt_size {}", self.kind.size() + ETHERNET),
            "dst_mac 02:00:00:00:00:99".to_owned(),
            format!("burst {burst}"),
            format!("flag {shared}"),
            format!("udp_src_min {}", ports.0),
            format!("udp_src_max {}", ports.1),
            format!("delay {delay}"),
        ]
    }

    /// What it is told before each part of the packets.
    fn parts(self) -> Vec<Vec<String>> {
        match self.kind {
            Kind::Ipv4 | Kind::Ipv4Flows => vec![self.ipv4_part()],
            Kind::Ipv6 => {
                let senders = self.addresses.min(IPV6_SENDERS);
                (0..senders).map(|sender| self.ipv6_part(sender, senders)).collect()
            }
        }
    }

    fn ipv4_part(self) -> Vec<String> {
        let (pairs, last) = (self.pairs(), self.addresses - 1);
        let address = |n| Ipv4Addr::from(FIRST + n);
        vec![
            format!("count {}", self.packets),
            format!("src_min {}", address(0)),
            format!("src_max {}", address(pairs - 1)),
            format!("dst_min {}", address(last + 1 - pairs)),
            format!("dst_max {}", address(last)),
        ]
    }

    fn ipv6_part(self, sender: u32, senders: u32) -> Vec<String> {
        let share = u128::from(self.addresses / senders);
        // Not the receivers that another number of addresses has, whose flows would be known already.
        let first = FIRST_IPV6 + (u128::from(self.addresses) << 32) + u128::from(sender) * share;
        vec![
            format!("count {}", self.packets / senders),
            format!("src6 {}", Ipv6Addr::from(FIRST_IPV6 + u128::from(sender))),
            format!("dst6_min {}", Ipv6Addr::from(first)),
            format!("dst6_max {}", Ipv6Addr::from(first + share - 1)),
        ]
    }
}

/// The dummy device `mirror0`, and pktgen on its first thread.
pub struct Source(());

impl Source {
    /// Makes the device, up and promiscuous, and tells pktgen about it.
    pub fn new(guest: &mut Guest) -> Result<Self> {
        guest.must("ip link add mirror0 type dummy && ip link set mirror0 up promisc on")?;
        guest.must("echo add_device mirror0 >/proc/net/pktgen/kpktgend_0")?;
        Ok(Self(()))
    }

    /// Lets it send, and gives the microseconds that it took.
    pub fn send(&self, guest: &mut Guest, traffic: Traffic) -> Result<f64> {
        self.send_by(guest, traffic, "all")
    }

    /// Lets it send once for all addresses to become known, and once more. Gives the microseconds of the second time.
    ///
    /// Flows of addresses are remembered then: the guest waits for nobody between the two, as its clock would run away
    /// meanwhile. Those of packets, which are the same both times, are not: it is silent for so long.
    pub fn send_twice(&self, guest: &mut Guest, traffic: Traffic) -> Result<f64> {
        let between = match traffic.kind {
            Kind::Ipv4 | Kind::Ipv6 => "",
            Kind::Ipv4Flows => "sleep 31 && ",
        };
        self.send_by(guest, traffic, &format!("all >/dev/null && {between}all"))
    }

    /// `command` is what has `all` parts sent.
    fn send_by(&self, guest: &mut Guest, traffic: Traffic, command: &str) -> Result<f64> {
        let arguments = |lines: &Vec<String>| format!("'{}'", lines.join("' '"));
        let parts: Vec<_> = traffic.parts().iter().map(|lines| format!("part {}", arguments(lines))).collect();
        let script = format!(
            "tell() {{ for line; do echo $line >{DEVICE} || {{ echo \"$line\" >&2; return 1; }}; done; }}\n\
             part() {{ tell \"$@\" && {START} && grep ^Result: {DEVICE}; }}\n\
             all() {{ {}; }}\n\
             tell {} && {command}",
            parts.join(" && "),
            arguments(&traffic.lines())
        );
        let output = guest.run_for(&script, PATIENCE)?;
        ensure!(output.status == 0, "pktgen does not start: {}", output.stderr);
        let times: Vec<_> = output.stdout.lines().filter_map(microseconds).collect();
        ensure!(times.len() == parts.len(), "pktgen has not sent: {}", output.stdout);
        Ok(times.iter().sum())
    }
}

/// What sending took, from what pktgen says of it: `Result: OK: 52(c50+d2) usec, ...`.
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

    /// What follows a word, in each part that has it.
    fn values<'a>(parts: &'a [Vec<String>], word: &'a str) -> impl Iterator<Item = &'a str> {
        parts.iter().flatten().filter_map(move |line| line.strip_prefix(word)?.strip_prefix(' '))
    }

    #[test]
    fn parts_are_all_packets() {
        for kind in [Kind::Ipv4, Kind::Ipv4Flows, Kind::Ipv6] {
            for addresses in ADDRESSES {
                let packets = PACKETS.max(kind.to_all(addresses));
                let parts = traffic(kind, addresses, packets).parts();
                let counts: u32 = values(&parts, "count").map(|count| count.parse::<u32>().unwrap()).sum();
                assert_eq!(counts, packets);
            }
        }
    }

    #[test]
    fn shares_of_ipv6_lie_side_by_side() {
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
    fn what_pktgen_says() {
        assert_eq!(microseconds("Result: OK: 52(c50+d2) usec, 20 (60byte,0frags)"), Some(52.0));
        assert_eq!(microseconds("Result: Idle"), None);
    }
}
