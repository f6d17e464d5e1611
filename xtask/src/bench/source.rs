// SPDX-License-Identifier: GPL-2.0
//! pktgen, which hands packets for others to the receive path of a device in a guest.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use vm_tests::guest::Guest;

/// The first address, 10.0.0.0.
const FIRST: u32 = 0x0a00_0000;
/// The first of IPv6, fd00::.
const FIRST_IPV6: u128 = 0xfd << 120;
/// Bytes of the header of the frame around a packet.
const ETHERNET: u32 = 14;
/// How often a packet is handed over before the next one is made, where the source is not to take much of the time. It
/// sends no part of a burst.
pub const BURST: u32 = 64;
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
    /// IPv6. One address sends to as many others, drawn at random: pktgen can do nothing else.
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

    /// The lines for pktgen that are about addresses.
    fn addresses(self) -> [String; 4] {
        let (pairs, last) = (self.pairs(), self.addresses - 1);
        let ipv4 = |n| Ipv4Addr::from(FIRST + n);
        // Not the receivers that another number of addresses has, whose flows would be known already.
        let receivers = FIRST_IPV6 + (u128::from(self.addresses) << 32);
        match self.kind {
            Kind::Ipv4 | Kind::Ipv4Flows => [
                format!("src_min {}", ipv4(0)),
                format!("src_max {}", ipv4(pairs - 1)),
                format!("dst_min {}", ipv4(last + 1 - pairs)),
                format!("dst_max {}", ipv4(last)),
            ],
            Kind::Ipv6 => [
                "flag IPV6".to_owned(),
                format!("src6 {}", Ipv6Addr::from(FIRST_IPV6)),
                format!("dst6_min {}", Ipv6Addr::from(receivers)),
                format!("dst6_max {}", Ipv6Addr::from(receivers + u128::from(last))),
            ],
        }
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

    /// Says what it is to send.
    pub fn set_up(&self, guest: &mut Guest, traffic: Traffic) -> Result<()> {
        let (burst, delay) = match traffic.pace {
            Pace::Each => (1, 0),
            Pace::Bursts(None) => (BURST, 0),
            // From one burst to the next, in nanoseconds.
            Pace::Bursts(Some(rate)) => (BURST, u64::from(BURST) * 1_000_000_000 / u64::from(rate)),
        };
        let shared = if burst > 1 { "SHARED" } else { "!SHARED" };
        // Ports, from the first to the one before the last, come with the addresses, but end elsewhere.
        let ports = match traffic.kind {
            Kind::Ipv4 | Kind::Ipv6 => (9, 9),
            Kind::Ipv4Flows => (1024, 65533),
        };
        let lines = [
            "xmit_mode netif_receive".to_owned(),
            format!("pkt_size {}", traffic.kind.size() + ETHERNET),
            "dst_mac 02:00:00:00:00:99".to_owned(),
            format!("burst {burst}"),
            format!("flag {shared}"),
            format!("udp_src_min {}", ports.0),
            format!("udp_src_max {}", ports.1),
            format!("delay {delay}"),
            format!("count {}", traffic.packets),
        ];
        for line in lines.into_iter().chain(traffic.addresses()) {
            guest.must(&format!("echo {line} >/proc/net/pktgen/mirror0"))?;
        }
        Ok(())
    }

    /// Lets it send, and gives the microseconds that it took.
    pub fn run(&self, guest: &mut Guest) -> Result<f64> {
        self.run_line(guest, START)
    }

    /// Lets it send once for all addresses to become known, and once more. Gives the microseconds of the second time.
    ///
    /// Flows of addresses are remembered then: the guest waits for nobody between the two, as its clock would run away
    /// meanwhile. Those of packets, which are the same both times, are not: it is silent for so long.
    pub fn run_twice(&self, guest: &mut Guest, kind: Kind) -> Result<f64> {
        let between = match kind {
            Kind::Ipv4 | Kind::Ipv6 => "",
            Kind::Ipv4Flows => "sleep 31 && ",
        };
        self.run_line(guest, &format!("{START} && {between}{START}"))
    }

    fn run_line(&self, guest: &mut Guest, line: &str) -> Result<f64> {
        let started = guest.run_for(line, PATIENCE)?;
        ensure!(started.status == 0, "pktgen does not start: {}", started.stderr);
        let result = guest.read_text("/proc/net/pktgen/mirror0")?;
        let time = result.split("OK: ").nth(1).and_then(|rest| rest.split('(').next());
        time.and_then(|time| time.trim().parse().ok()).with_context(|| format!("pktgen has not sent: {result}"))
    }
}
