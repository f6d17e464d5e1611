// SPDX-License-Identifier: GPL-2.0-only
//! The cost of reading a table.

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};
use vm_harness::guest::Guest;

use super::env::BenchEnv;
use super::instructions::{MOST, PACKETS, RULE_TRAFFIC};
use super::pktgen::{self, Kind, Pace, Traffic};
use crate::workspace::Workspace;

/// The number of reads.
const READS: u32 = 20;

/// The cost of reading a table once.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Reading {
    /// The rows of the table.
    pub rows: u32,
    /// Instructions for the whole table.
    pub instructions: f64,
}

/// Reads a table with a row for each of [`MOST`] addresses.
pub fn measure(ws: &Workspace, env: &BenchEnv) -> Result<Reading> {
    let step = ws.step("bench-reading", "reading a table")?;
    let mut guest = Guest::boot(&env.config()?)?;
    pktgen::prepare(&mut guest)?;
    guest.must(RULE_TRAFFIC)?;
    let packets = PACKETS.max(MOST);
    Traffic { addresses: MOST, packets, pace: Pace::Each, kind: Kind::Ipv4 }.send(&mut guest)?;
    let lines = guest.must("wc -l </proc/net/xt_traffic/t")?;
    ensure!(lines.trim() == (MOST + 1).to_string(), "the table has {} lines, expected {}", lines.trim(), MOST + 1);
    let times = guest.must(&format!(
        "read begun rest </proc/uptime; n=0; \
         while [ $n -lt {READS} ]; do cat /proc/net/xt_traffic/t >/dev/null; n=$((n + 1)); done; \
         read ended rest </proc/uptime; echo $begun $ended"
    ))?;
    guest.finish()?;
    step.finish();
    let seconds: Vec<f64> = times.split_whitespace().filter_map(|time| time.parse().ok()).collect();
    let &[begun, ended] = &seconds[..] else { bail!("/proc/uptime has no numbers: {}", times.trim()) };
    Ok(Reading { rows: MOST, instructions: (ended - begun) * 1e9 / f64::from(READS) })
}
