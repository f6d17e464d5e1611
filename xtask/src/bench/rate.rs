// SPDX-License-Identifier: GPL-2.0
//! How many packets a second are counted without losing one, beside a program that is sent copies of them.
//!
//! The guest has one CPU, which has to do everything, and its clock counts instructions: it is a CPU that executes 10^9 of
//! them in a second. A rate is kept when everything that was sent at it, for some seconds, has been counted.

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use vm_harness::guest::Guest;

use super::{
    instructions::{RULE_TRAFFIC, TABLE, TRAFFIC, read},
    lab::{Lab, Programs},
    source::{BURST, Kind, Pace, Source, Traffic},
};
use crate::{ui::Step, workshop::Workshop};

/// How many addresses send and receive.
const ADDRESSES: u32 = 1 << 8;
/// How long packets are sent at a rate.
const SECONDS: u32 = 2;
/// Packets a second of which nobody can take more.
const MANY: u32 = 1_000_000;
/// The lowest rate, which anybody has to keep.
const LOWEST: u32 = 8_000;
/// Halvings of the last step, when the rate that is not kept is known.
const HALVINGS: u32 = 4;

/// Somebody who counts.
struct Counter {
    name: &'static str,
    /// Prints its version, if it is not ours.
    version: &'static str,
    setup: &'static str,
    /// How many packets it may have taken that it shows only when the next ones come.
    pending: u64,
    /// Prints how many packets it has counted since it was set up; twice, if it tells those sent from those received.
    counted: &'static str,
}

/// The program's name.
pub const PMACCTD: &str = "pmacctd";
const IPFM: &str = "ipfm";

const COUNTERS: [Counter; 3] = [
    Counter { name: TRAFFIC, version: "", setup: RULE_TRAFFIC, pending: 0, counted: TABLE },
    // Each packet is one of its sender's and one of its receiver's. The sizes are what its documentation advises for
    // many packets.
    Counter {
        name: PMACCTD,
        version: "pmacctd -V 2>&1 | head -n 1",
        setup: "echo 67108864 >/proc/sys/net/core/rmem_max && cat >/tmp/pmacctd.conf <<END
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
        version: "ar -p /ipfm.deb control.tar.xz | unxz | tar -xO ./control | grep '^Version'",
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
    /// What it says of its version, if it is not ours.
    pub version: String,
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
    let version = guest.must(counter.version)?.trim().to_owned();
    let mut trial = Trial { guest, source, counter, step, sent: 0, lost: 0 };
    let (packets, all) = highest(&mut trial)?;
    trial.guest.finish()?;
    Ok(Rate { counter: counter.name.into(), version, packets, all })
}

/// The highest rate, and whether that is as fast as packets can be received: doubles it while it is kept, then halves the
/// last step.
fn highest(trial: &mut Trial) -> Result<(f64, bool)> {
    let (mut kept, true) = trial.at(Some(LOWEST))? else { bail!("not even {LOWEST} packets a second are counted") };
    if let (sent, true) = trial.at(None)? {
        return Ok((sent, true));
    }
    let (mut low, mut high) = (LOWEST, 2 * LOWEST);
    while let (sent, true) = trial.at(Some(high))? {
        (kept, low, high) = (sent, high, 2 * high);
    }
    for _ in 0..HALVINGS {
        let middle = low.midpoint(high);
        match trial.at(Some(middle))? {
            (sent, true) => (kept, low) = (sent, middle),
            (_, false) => high = middle,
        }
    }
    Ok((kept, false))
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
        let packets = (rate.unwrap_or(MANY) * SECONDS).next_multiple_of(BURST);
        let traffic = Traffic { addresses: ADDRESSES, packets, pace: Pace::Bursts(rate), kind: Kind::Ipv4 };
        let microseconds = self.source.send(&mut self.guest, traffic)?;
        self.sent += u64::from(packets);
        let missing = self.missing_after_a_while()?;
        let whole = missing <= self.lost + self.counter.pending;
        let rate = f64::from(packets) / microseconds * 1e6;
        let Counter { name, .. } = self.counter;
        self.step.line(&format!("{name}: {packets} packets at {rate:.0} a second, {missing} are missing by now"));
        if !whole {
            self.lost = self.lost_for_good(missing)?;
        }
        Ok((rate, whole))
    }

    /// How many have not been counted, when what is in buffers has had some time.
    fn missing_after_a_while(&mut self) -> Result<u64> {
        self.guest.must("sleep 2")?;
        let counted = self.guest.must(self.counter.counted)?;
        let mut numbers = counted.split_whitespace().map(str::parse);
        let Some(Ok(first)) = numbers.next() else { bail!("it says it has counted {}", counted.trim()) };
        ensure!(numbers.all(|number| number == Ok(first)), "it has counted {} packets", counted.trim());
        self.sent.checked_sub(first).with_context(|| format!("it has counted {first} packets of {}", self.sent))
    }

    /// How many are still missing when no more come out of buffers.
    fn lost_for_good(&mut self, mut missing: u64) -> Result<u64> {
        loop {
            match self.missing_after_a_while()? {
                same if same == missing => return Ok(same),
                other => missing = other,
            }
        }
    }
}
