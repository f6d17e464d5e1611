// SPDX-License-Identifier: GPL-2.0-only
//! Counts the frames that a network port has received, and waits until the kernel has processed
//! them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::time::Duration;

use crate::poll::poll;
use crate::{context, sys};

/// An interface's receive counters, as in /proc/net/dev.
#[derive(Clone, Copy, Default, PartialEq)]
pub struct Received {
    /// Frames that the driver took from the device, including those that it refused.
    pub packets: u64,
    /// Frames whose length the driver refused (shorter than an Ethernet header).
    pub length_errors: u64,
}

/// Waits until the interface has received `want` frames since boot or the time is over.
pub fn await_received(netns: &str, device: &str, want: u64, timeout: Duration) -> Result<Received, String> {
    let mut now = Received::default();
    // The kernel has no event for counters.
    poll(timeout, Duration::from_millis(1), || {
        now = received(netns, device)?;
        Ok::<_, String>((now.packets >= want).then_some(()))
    })?;
    Ok(now)
}

fn received(netns: &str, device: &str) -> Result<Received, String> {
    if netns.is_empty() {
        return parse(&context("/proc/net/dev", fs::read_to_string("/proc/net/dev"))?, device);
    }
    let path = format!("/run/netns/{netns}");
    let namespace = context(&path, File::open(&path))?;
    // Only a thread that ends afterwards changes its namespace.
    let table = std::thread::spawn(move || {
        sys::enter_netns(&namespace)?;
        fs::read_to_string("/proc/thread-self/net/dev")
    });
    let table = table.join().map_err(|_| "the namespace thread panicked")?;
    parse(&context(&path, table)?, device)
}

fn parse(table: &str, device: &str) -> Result<Received, String> {
    let line = table.lines().find_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        (name.trim() == device).then_some(numbers)
    });
    let line = line.ok_or_else(|| format!("no interface {device}"))?;
    // bytes packets errs drop fifo frame ...; "frame" is the sum of length, overrun, CRC and
    // alignment errors.
    let column = |n: usize| line.split_whitespace().nth(n).and_then(|word| word.parse().ok());
    match (column(1), column(5)) {
        (Some(packets), Some(length_errors)) => Ok(Received { packets, length_errors }),
        _ => Err(format!("cannot read the counters of {device}: {line}")),
    }
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
    pub fn new(cpus: usize) -> Result<Self, String> {
        let index = context("lo", fs::read_to_string("/sys/class/net/lo/ifindex"))?;
        let index = context("lo", index.trim().parse())?;
        let loopback = context("packet socket", sys::packet_socket(index, ETHERTYPE))?;
        Ok(Self { loopback, cpus })
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
    pub fn settle(&mut self) -> Result<(), String> {
        for _ in 0..ROUNDS {
            for cpu in 0..self.cpus {
                context("CPU affinity", sys::run_on(1 << cpu))?;
                context("loopback probe", self.probe())?;
            }
        }
        context("CPU affinity", sys::run_on(u64::MAX))
    }

    fn probe(&mut self) -> io::Result<()> {
        self.loopback.write_all(b"settle")?;
        if sys::wait_for(&self.loopback, PROBE_TIMEOUT)? & sys::POLLIN == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the probe did not arrive"));
        }
        let mut probe = [0; 16];
        self.loopback.read(&mut probe).map(|_| ())
    }
}
