// SPDX-License-Identifier: GPL-2.0
//! What arrived at a network port, and when all of it has been dealt with.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use crate::{failed, sys};

/// An interface's receive counters, as in /proc/net/dev.
#[derive(Clone, Copy, Default, PartialEq)]
pub struct Received {
    /// Frames that the driver took from the device, the ones it then refused included.
    pub packets: u64,
    /// Frames whose length the driver refused (shorter than an Ethernet header).
    pub length_errors: u64,
}

/// Waits until the interface has received `want` frames since boot, at most for `patience`.
///
/// The kernel tells nobody when a counter moves, so this has to look again and again.
pub fn await_received(netns: &str, device: &str, want: u64, patience: Duration) -> Result<Received, String> {
    let deadline = Instant::now() + patience;
    loop {
        let now = received(netns, device)?;
        if now.packets >= want || Instant::now() >= deadline {
            return Ok(now);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn received(netns: &str, device: &str) -> Result<Received, String> {
    if netns.is_empty() {
        return parse(&failed("/proc/net/dev", fs::read_to_string("/proc/net/dev"))?, device);
    }
    let path = format!("/run/netns/{netns}");
    let namespace = failed(&path, File::open(&path))?;
    // A thread can change its own namespace alone, and there is no way back worth the trouble.
    let table = std::thread::spawn(move || {
        sys::enter_netns(&namespace)?;
        fs::read_to_string("/proc/thread-self/net/dev")
    });
    let table = table.join().map_err(|_| "the namespace thread panicked")?;
    parse(&failed(&path, table)?, device)
}

fn parse(table: &str, device: &str) -> Result<Received, String> {
    let line = table.lines().find_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        (name.trim() == device).then_some(numbers)
    });
    let line = line.ok_or_else(|| format!("no interface {device}"))?;
    // bytes packets errs drop fifo frame ...; "frame" sums the length, overrun, CRC and alignment errors.
    let column = |n: usize| line.split_whitespace().nth(n).and_then(|word| word.parse().ok());
    match (column(1), column(5)) {
        (Some(packets), Some(length_errors)) => Ok(Received { packets, length_errors }),
        _ => Err(format!("cannot read the counters of {device}: {line}")),
    }
}

/// An EtherType for local experiments (IEEE 802): nothing else in the guest speaks it.
const ETHERTYPE: u16 = 0x88b5;
/// How often a probe goes round each CPU. See [`Settler::settle`].
const ROUNDS: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(30);

/// Knows when the kernel is done with every frame that a port has already counted.
pub struct Settler {
    loopback: File,
    cpus: usize,
}

impl Settler {
    pub fn new(cpus: usize) -> Result<Self, String> {
        let index = failed("lo", fs::read_to_string("/sys/class/net/lo/ifindex"))?;
        let index = failed("lo", index.trim().parse())?;
        let loopback = failed("packet socket", sys::packet_socket(index, ETHERTYPE))?;
        Ok(Self { loopback, cpus })
    }

    /// Returns when each frame that a port had counted before the call has been through the whole receive path.
    ///
    /// A driver counts a frame in its NAPI poll, when the frame can still be in one of three places:
    ///
    /// 1. on its way up, in the softirq that is running. The poll runs with bottom halves off, so once another
    ///    thread runs on that CPU, that softirq is over.
    /// 2. held back by GRO, if the poll used its whole budget. Then the NAPI stays on its CPU's poll list, and
    ///    the next poll finds an empty ring, completes, and flushes GRO up the stack.
    /// 3. on the backlog of another CPU, where RPS (or a virtual device such as veth) has put it.
    ///
    /// So a probe goes through the loopback interface on each CPU: sending it puts it at the end of that CPU's
    /// backlog, and the backlog's own NAPI at the end of the poll list. When the probe is back, the frames that
    /// were before it on the backlog are through, and the NAPIs that were before the backlog on the poll list
    /// have been polled. The backlog may have been ahead of the driver's NAPI in the first round (it was busy
    /// already); then it is behind it in the second. What that poll handed to other CPUs is behind them in the
    /// third. The probe is no IP packet, and so leaves no trace in any counter that a test looks at.
    pub fn settle(&mut self) -> Result<(), String> {
        for _ in 0..ROUNDS {
            for cpu in 0..self.cpus {
                failed("CPU affinity", sys::run_on(1 << cpu))?;
                failed("loopback probe", self.probe())?;
            }
        }
        failed("CPU affinity", sys::run_on(u64::MAX))
    }

    fn probe(&mut self) -> io::Result<()> {
        self.loopback.write_all(b"settle")?;
        if sys::wait_for(&self.loopback, PATIENCE)? & sys::POLLIN == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the probe did not come back"));
        }
        let mut probe = [0; 16];
        self.loopback.read(&mut probe).map(|_| ())
    }
}
