// SPDX-License-Identifier: GPL-2.0
//! How many packets a second are counted without losing one, beside a program that is sent copies of them.
//!
//! The guest has one CPU, which has to do everything, and its clock counts instructions: it is a CPU that executes 10^9 of
//! them in a second. A rate is kept when everything that was sent at it, for some seconds, has been counted.

use anyhow::{Context, Result};
use serde::Serialize;
use vm_tests::guest::Guest;

use super::{
    instructions::{RULE_TRAFFIC, TABLE, TRAFFIC, read},
    lab::{Lab, Programs},
    source::{Pace, Source},
};
use crate::{ui::Step, workshop::Workshop};

/// How many addresses send and receive.
const ADDRESSES: u32 = 1 << 8;
/// How long packets are sent at a rate.
const SECONDS: u32 = 2;
/// Packets a second of which nobody can take more.
const MANY: u32 = 1_000_000;
/// The lowest rate that is tried.
const LOWEST: u32 = 16_000;
/// Halvings of the last step, when the rate that is not kept is known.
const HALVINGS: u32 = 4;

/// Somebody who counts.
struct Counter {
    name: &'static str,
    setup: &'static str,
    /// How many packets it has taken, and still shows only when the next ones come.
    pending: u64,
    /// Prints how many packets it has counted since it was set up.
    counted: &'static str,
}

/// The program's name.
pub const PMACCTD: &str = "pmacctd";
const IPFM: &str = "ipfm";

const COUNTERS: [Counter; 3] = [
    Counter { name: TRAFFIC, setup: RULE_TRAFFIC, pending: 0, counted: TABLE },
    // Each packet is one of its sender's and one of its receiver's. The sizes are what its documentation advises for
    // many packets.
    Counter {
        name: PMACCTD,
        setup: "cat >/tmp/pmacctd.conf <<END
daemonize: true
pcap_interface: mirror0
promisc: true
aggregate: sum_host
plugins: memory
imt_path: /tmp/pmacctd.pipe
plugin_pipe_size: 67108864
plugin_buffer_size: 65536
pmacctd_pipe_size: 67108864
END
pmacctd -f /tmp/pmacctd.conf && sleep 2",
        // A buffer of 64 KiB for the plugin: its records have more than 128 bytes.
        pending: 512,
        counted: "pmacct -s -p /tmp/pmacctd.pipe | awk '$2 ~ /^[0-9]+$/ { sum += $2 } END { printf \"%d\", sum / 2 }'",
    },
    // Its file has each host's bytes in, out and in all. It is written when a packet comes, if that is a second or more
    // after the last time: a ping that leaves through the port is one.
    Counter {
        name: IPFM,
        setup: "ar -p /ipfm.deb data.tar.xz | unxz | tar -xC / ./usr && mkdir -p /var/run && cat >/tmp/ipfm.conf <<END
DEVICE mirror0
LOG 10.0.0.0/255.255.0.0
FILENAME \"/tmp/ipfm.log\"
DUMP EVERY 1 second
CLEAR NEVER
END
ip address add 192.0.2.1/24 dev mirror0 && ipfm -c /tmp/ipfm.conf && sleep 2",
        pending: 0,
        counted: "ping -c 1 -W 1 192.0.2.2 >/dev/null; awk '/^10\\./ { sum += $3 } END { printf \"%d\", sum / 46 }' /tmp/ipfm.log",
    },
];

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    /// Who counts.
    pub counter: String,
    /// Packets a second, the highest rate that was kept.
    pub packets: f64,
    /// Whether that is as fast as they could be received.
    pub all: bool,
}

/// Looks for the rate of each.
pub fn measure(ws: &Workshop, lab: &Lab) -> Result<Vec<Rate>> {
    let programs = lab.with_programs(ws)?;
    let mut step = ws.step("bench-rates", "sending packets")?;
    let rate = |counter: &Counter| rate_of(&programs, counter, &mut step).with_context(|| counter.name.to_owned());
    let rates = COUNTERS.iter().map(rate).collect::<Result<_>>()?;
    step.finish();
    Ok(rates)
}

fn rate_of(programs: &Programs, counter: &Counter, step: &mut Step) -> Result<Rate> {
    let mut guest = Guest::boot(&programs.config)?;
    guest.write("/ipfm.deb", &read(&programs.ipfm)?)?;
    let source = Source::new(&mut guest)?;
    guest.must(counter.setup)?;
    let mut trial = Trial { guest, source, counter, step, sent: 0, lost: 0 };
    let rate = |packets, all| Rate { counter: counter.name.into(), packets, all };
    if let (sent, true) = trial.at(None)? {
        return Ok(rate(sent, true));
    }
    let (mut kept, mut low) = (0.0, LOWEST);
    while let (sent, true) = trial.at(Some(low))? {
        (kept, low) = (sent, low * 2);
    }
    let (mut low, mut high) = (low / 2, low);
    for _ in 0..HALVINGS {
        let middle = low.midpoint(high);
        match trial.at(Some(middle))? {
            (sent, true) => (kept, low) = (sent, middle),
            (_, false) => high = middle,
        }
    }
    Ok(rate(kept, false))
}

/// A counter at work.
struct Trial<'a> {
    guest: Guest,
    source: Source,
    counter: &'a Counter,
    step: &'a mut Step,
    /// Packets that were sent, and that have been lost.
    sent: u64,
    lost: u64,
}

impl Trial<'_> {
    /// Sends at a rate, or as fast as it can. Gives the rate at which packets were really sent, and whether all were counted.
    fn at(&mut self, rate: Option<u32>) -> Result<(f64, bool)> {
        let packets = rate.unwrap_or(MANY) * SECONDS;
        self.source.set_up(&mut self.guest, ADDRESSES, packets, Pace::Bursts(rate))?;
        let microseconds = self.source.run(&mut self.guest)?;
        // For what is still in buffers.
        self.guest.must("sleep 2")?;
        let counted = self.guest.must(self.counter.counted)?;
        let counted: u64 = counted.trim().parse().with_context(|| format!("it says it has counted {counted}"))?;
        self.sent += u64::from(packets);
        let missing = self.sent.saturating_sub(counted);
        let whole = missing <= self.lost + self.counter.pending;
        let rate = f64::from(packets) / microseconds * 1e6;
        let Counter { name, .. } = self.counter;
        self.step.line(&format!("{name}: {packets} packets at {rate:.0} a second, {missing} are missing by now"));
        if !whole {
            self.lost = missing;
        }
        Ok((rate, whole))
    }
}
