// SPDX-License-Identifier: GPL-2.0-only
//! The highest rate of packets that a counter counts without loss, compared with programs in user
//! space.
//!
//! The guest has one CPU, which does everything. Its clock counts instructions: the CPU executes
//! 10^9 per second. A rate is kept if all packets of some seconds have been counted.

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use serde::{Deserialize, Serialize};
use vm_harness::guest::{Config, Guest};

use super::env::BenchEnv;
use super::instructions::{RULE_TRAFFIC, TABLE, TRAFFIC};
use super::pktgen::{self, BURST, Kind, Pace, Traffic};
use crate::ui::Step;
use crate::workspace::Workspace;

/// The number of addresses that send and receive.
const ADDRESSES: u32 = 1 << 8;
/// The time for which packets are sent at a rate.
const SECONDS: u32 = 2;
/// The lowest rate, in packets per second. Every counter must keep it.
const LOWEST: u32 = 8_000;
/// More packets per second than the guest can receive.
const MANY: u32 = 1_000_000;
/// The number of times that the last step is halved, when a rate that is not kept is known.
const HALVINGS: u32 = 4;

/// A counter under test.
struct Counter {
    name: &'static str,
    /// A shell command that prints a text with the version; empty for our own.
    version: &'static str,
    /// The shell commands that start it.
    setup: &'static str,
    /// The most packets that it may have counted but shows only after the next ones.
    pending: u64,
    /// A shell command that prints the number of packets counted since the start; twice if it
    /// counts sent and received packets separately.
    counted: &'static str,
}

/// The counter that has a target.
pub const PMACCTD: &str = "pmacctd";
const IPFM: &str = "ipfm";

const COUNTERS: &[Counter] = &[
    Counter { name: TRAFFIC, version: "", setup: RULE_TRAFFIC, pending: 0, counted: TABLE },
    // It counts each packet for the sender and for the receiver. The sizes are those that its
    // documentation recommends for high rates:
    // <https://sources.debian.org/src/pmacct/latest/CONFIG-KEYS/>
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
        // The records in the buffer of 64 KiB have more than 128 bytes.
        pending: 512,
        counted: "pmacct -s -p /tmp/pmacctd.pipe | awk '$2 ~ /^[0-9]+$/ { sum += $2 } END { printf \"%d\", sum / 2 }'",
    },
    // It prints the bytes of each host: in, out, total. It writes its file when a packet arrives at
    // least a second after the last write. The ping is such a packet, and writing takes a moment.
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
        counted: "ping -c 1 -W 1 192.0.2.2 >/dev/null; sleep 1; awk '/^10\\./ { sum += $3 } END { printf \"%d\", sum / 46 }' /tmp/ipfm.log",
    },
];

/// The highest rate of a counter.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Rate {
    /// The name of the counter.
    pub counter: String,
    /// Its version; empty for our own.
    pub version: String,
    /// Packets per second.
    pub packets: f64,
    /// Whether the receive path of the kernel was the limit.
    pub receive_limit: bool,
}

/// Measures every counter.
pub fn measure(ws: &Workspace, env: &BenchEnv) -> Result<Vec<Rate>> {
    let (config, ipfm) = env.config_with_programs(ws)?;
    let ipfm = fs::read(ipfm)?;
    let mut step = ws.step("bench-rates", "sending packets")?;
    let rate = |counter| measure_counter(&config, &ipfm, counter, &mut step).with_context(|| counter.name.to_owned());
    let rates = COUNTERS.iter().map(rate).collect::<Result<_>>()?;
    step.finish();
    Ok(rates)
}

fn measure_counter(config: &Config, ipfm: &[u8], counter: &Counter, step: &mut Step) -> Result<Rate> {
    let mut guest = Guest::boot(config)?;
    guest.write("/ipfm.deb", ipfm)?;
    pktgen::prepare(&mut guest)?;
    guest.must(counter.setup)?;
    let version = version_in(&guest.must(counter.version)?).to_owned();
    let (mut sent, mut lost) = (0, 0);
    let (packets, receive_limit) = highest(|rate| {
        let packets = (rate.unwrap_or(MANY) * SECONDS).next_multiple_of(BURST);
        let traffic = Traffic { addresses: ADDRESSES, packets, pace: Pace::Bursts(rate), kind: Kind::Ipv4 };
        let rate = f64::from(packets) / traffic.send(&mut guest)? * 1e6;
        sent += u64::from(packets);
        let mut missing = missing_of(sent, &mut guest, counter)?;
        let kept = missing <= lost + counter.pending;
        step.line(&format!("{}: {packets} packets at {rate:.0}/s, {missing} missing", counter.name));
        // Wait until the number of missing packets no longer decreases.
        while !kept && lost != missing {
            lost = missing;
            missing = missing_of(sent, &mut guest, counter)?;
        }
        Ok((rate, kept))
    })?;
    guest.finish()?;
    Ok(Rate { counter: counter.name.into(), version, packets, receive_limit })
}

/// How many of the packets sent have not been counted after two seconds for buffered ones.
fn missing_of(sent: u64, guest: &mut Guest, counter: &Counter) -> Result<u64> {
    guest.must("sleep 2")?;
    let printed = guest.must(counter.counted)?;
    let mut numbers = printed.split_whitespace().map(str::parse);
    let Some(Ok(first)) = numbers.next() else { bail!("it printed {}, expected a number", printed.trim()) };
    ensure!(numbers.all(|number| number == Ok(first)), "it counted {}, expected equal numbers", printed.trim());
    sent.checked_sub(first).with_context(|| format!("it counted {first} of {sent} packets"))
}

/// The first number with a dot in a text, or nothing.
fn version_in(text: &str) -> &str {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit() && c != '.').map(|number| number.trim_matches('.'));
    numbers.find(|number| number.contains('.')).unwrap_or_default()
}

/// The highest rate that is kept, and whether the receive path is the limit. Doubles the rate until
/// it is not kept, then halves the last step. `send_at` sends at a rate, or as fast as possible. It
/// returns the actual rate, and whether all packets were counted.
fn highest(mut send_at: impl FnMut(Option<u32>) -> Result<(f64, bool)>) -> Result<(f64, bool)> {
    let (mut highest, true) = send_at(Some(LOWEST))? else {
        bail!("it does not keep the lowest rate, {LOWEST} packets per second")
    };
    if let (actual, true) = send_at(None)? {
        return Ok((actual, true));
    }
    let (mut low, mut high) = (LOWEST, 2 * LOWEST);
    while let (actual, true) = send_at(Some(high))? {
        (highest, low, high) = (actual, high, 2 * high);
    }
    for _ in 0..HALVINGS {
        let middle = low.midpoint(high);
        match send_at(Some(middle))? {
            (actual, true) => (highest, low) = (actual, middle),
            (_, false) => high = middle,
        }
    }
    Ok((highest, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_first_number_with_a_dot() {
        assert_eq!(version_in("Promiscuous Mode Accounting Daemon, pmacctd 1.7.8-git [20221231]"), "1.7.8");
        assert_eq!(version_in("Version: 0.11.5-4.3"), "0.11.5");
        assert_eq!(version_in(""), "");
    }
}
