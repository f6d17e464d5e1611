// SPDX-License-Identifier: GPL-2.0
//! How long it takes to read a table.

use anyhow::{Result, bail, ensure};
use serde::Serialize;
use vm_harness::guest::Guest;

use super::{
    instructions::{ADDRESSES, PACKETS, RULE_TRAFFIC},
    lab::Lab,
    source::{Kind, Pace, Source, Traffic},
};
use crate::workshop::Workshop;

/// How often it is read.
const TIMES: u32 = 20;

/// What reading a table costs.
#[derive(Clone, Debug, Serialize)]
pub struct Reading {
    /// Rows in the table.
    pub rows: u32,
    /// Instructions until all of it has been read: in nanoseconds, if each takes one.
    pub instructions: f64,
}

/// Reads a table with a row for each of the most addresses.
pub fn measure(ws: &Workshop, lab: &Lab) -> Result<Reading> {
    let step = ws.step("bench-reading", "reading a table")?;
    let mut guest = Guest::boot(&lab.config()?)?;
    let source = Source::new(&mut guest)?;
    guest.must(RULE_TRAFFIC)?;
    let rows = ADDRESSES.into_iter().max().unwrap_or_default();
    let packets = PACKETS.max(rows);
    source.send(&mut guest, Traffic { addresses: rows, packets, pace: Pace::Each, kind: Kind::Ipv4 })?;
    let lines = guest.must("wc -l </proc/net/xt_traffic/t")?;
    ensure!(lines.trim() == (rows + 1).to_string(), "the table has {} lines", lines.trim());
    let times = guest.must(&format!(
        "read begun rest </proc/uptime; n=0; \
         while [ $n -lt {TIMES} ]; do cat /proc/net/xt_traffic/t >/dev/null; n=$((n + 1)); done; \
         read ended rest </proc/uptime; echo $begun $ended"
    ))?;
    guest.finish()?;
    step.finish();
    let times: Vec<f64> = times.split_whitespace().filter_map(|time| time.parse().ok()).collect();
    let &[begun, ended] = &times[..] else { bail!("the guest has no clock") };
    Ok(Reading { rows, instructions: (ended - begun) * 1e9 / f64::from(TIMES) })
}
