// SPDX-License-Identifier: GPL-2.0
//! pktgen, which hands packets for others to the receive path of a device in a guest.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, ensure};
use vm_tests::guest::Guest;

/// The first address, 10.0.0.0.
const FIRST: u32 = 0x0a00_0000;
/// Bytes of a packet at the IP layer, and of the header of the frame around it.
const SIZE: u32 = 46;
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

/// What belongs together.
#[derive(Clone, Copy)]
pub enum Flows {
    /// All packets between two addresses.
    Addresses,
    /// Each packet alone: it has ports of its own.
    Packets,
}

/// UDP datagrams: one half of the addresses sends to the other, each as often as any other and always to the same, one
/// after the other. A single one sends to itself.
#[derive(Clone, Copy)]
pub struct Traffic {
    /// How many addresses send and receive.
    pub addresses: u32,
    /// How many packets are sent in a run.
    pub packets: u32,
    /// How they follow each other.
    pub pace: Pace,
    /// What belongs together.
    pub flows: Flows,
}

impl Traffic {
    /// How many pairs of addresses there are.
    pub fn pairs(self) -> u32 {
        (self.addresses / 2).max(1)
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
        let ports = match traffic.flows {
            Flows::Addresses => (9, 9),
            Flows::Packets => (1024, 65533),
        };
        let Traffic { addresses, packets, .. } = traffic;
        let address = |n| Ipv4Addr::from(FIRST + n);
        let lines = [
            "xmit_mode netif_receive".to_owned(),
            format!("pkt_size {}", SIZE + ETHERNET),
            "dst_mac 02:00:00:00:00:99".to_owned(),
            format!("burst {burst}"),
            format!("flag {shared}"),
            format!("udp_src_min {}", ports.0),
            format!("udp_src_max {}", ports.1),
            format!("delay {delay}"),
            format!("count {packets}"),
            format!("src_min {}", address(0)),
            format!("src_max {}", address(traffic.pairs() - 1)),
            format!("dst_min {}", address(addresses - traffic.pairs())),
            format!("dst_max {}", address(addresses - 1)),
        ];
        for line in lines {
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
    pub fn run_twice(&self, guest: &mut Guest, flows: Flows) -> Result<f64> {
        let between = match flows {
            Flows::Addresses => "",
            Flows::Packets => "sleep 31 && ",
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
