// SPDX-License-Identifier: GPL-2.0-only
//! Counts the frames that a network port has received, and waits until the kernel has processed
//! them.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use rustix::event::PollFlags;
use rustix::net::SocketType;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use vm_agent::poll::{INTERVAL, poll_every};

use crate::sys;

/// Waits until the interface has received `want` frames since boot or the time is over. Returns how
/// many frames the driver has taken from the device, and how many of them it has refused because
/// they are shorter than an Ethernet header.
pub fn await_received(netns: &str, device: &str, want: u64, timeout: Duration) -> Result<[u64; 2]> {
    let mut table = open_table(netns)?;
    let mut counts = [0; 2];
    // The kernel has no event for counters.
    poll_every(INTERVAL, timeout, || {
        let mut text = String::new();
        table.rewind()?;
        table.read_to_string(&mut text)?;
        counts = parse(&text, device)?;
        Ok((counts[0] >= want).then_some(()))
    })?;
    Ok(counts)
}

/// Opens /proc/net/dev of a network namespace; an empty name is the agent's own one.
fn open_table(netns: &str) -> Result<fs::File> {
    let path = if netns.is_empty() { "/proc/self/ns/net".into() } else { format!("/run/netns/{netns}") };
    let namespace = fs::File::open(path)?;
    // Only a thread that ends afterwards changes its namespace.
    let table = std::thread::spawn(move || -> Result<_> {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(fs::File::open("/proc/thread-self/net/dev")?)
    });
    table.join().expect("the thread does not panic")
}

fn parse(table: &str, device: &str) -> Result<[u64; 2]> {
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix(device)?.strip_prefix(':'));
    let line = line.with_context(|| format!("no interface {device}"))?;
    // bytes packets errs drop fifo frame ...; "frame" is the sum of length, overrun, CRC and
    // alignment errors.
    let numbers = line.split_whitespace().map(str::parse).collect::<Result<Vec<_>, _>>();
    let numbers = numbers.with_context(|| format!("cannot read the counters of {device}: {line}"))?;
    Ok([numbers[1], numbers[5]])
}

/// An EtherType for local experiments (IEEE 802), which nothing else in the guest uses.
const ETHERTYPE: u16 = 0x88b5;
/// How often a probe is sent on each CPU. See [`Settler::settle`].
const ROUNDS: u32 = 3;
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits until the kernel has processed every frame that a port has counted.
pub struct Settler {
    loopback: File,
    cpus: usize,
}

impl Settler {
    pub fn new() -> Result<Self> {
        let loopback = sys::packet_socket(SocketType::DGRAM, "lo", ETHERTYPE).context("lo")?;
        Ok(Self { loopback, cpus: std::thread::available_parallelism()?.get() })
    }

    /// Returns when each frame that a port had counted before the call has passed the whole receive
    /// path.
    ///
    /// A driver counts a frame in its NAPI poll. The frame can then be in one of three places:
    ///
    /// 1. in the softirq that is running. The poll runs with bottom halves disabled, so when
    ///    another thread runs on that CPU, the softirq has ended.
    /// 2. held by GRO, if the poll used its whole budget. Then the NAPI stays on its CPU's poll
    ///    list. The next poll finds an empty ring, completes, and flushes GRO.
    /// 3. on the backlog of another CPU, where RPS (or a virtual device such as veth) has put it.
    ///
    /// So a probe is sent through the loopback interface on each CPU. Sending it puts it at the end
    /// of that CPU's backlog, and the backlog's NAPI at the end of the poll list. When the probe
    /// arrives, the kernel has processed the frames before it on the backlog and polled the NAPIs
    /// before the backlog on the poll list. In the first round the backlog may precede the driver's
    /// NAPI on the poll list (if it was busy already); in the second round it follows it. The third
    /// round covers frames that this poll put on other CPUs' backlogs. The probe is not an IP
    /// packet, so it changes no counter that a test reads.
    pub fn settle(&mut self) -> Result<()> {
        for _ in 0..ROUNDS {
            for cpu in 0..self.cpus {
                sys::run_on([cpu]).context("CPU affinity")?;
                self.probe().context("loopback probe")?;
            }
        }
        sys::run_on(0..self.cpus).context("CPU affinity")
    }

    fn probe(&mut self) -> Result<()> {
        self.loopback.write_all(b"settle")?;
        let events = sys::wait_for(&self.loopback, PROBE_TIMEOUT)?;
        ensure!(events.contains(PollFlags::IN), "the probe did not arrive");
        Ok(self.loopback.read(&mut [0; 16]).map(drop)?)
    }
}
