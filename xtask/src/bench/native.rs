// SPDX-License-Identifier: GPL-2.0
//! How long a packet takes this machine's own CPU, without a kernel around it: `module/benches/packet.rs`.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use xshell::{Shell, cmd};

use crate::workshop::{Workshop, remove_tree};

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Time {
    /// `hot`, `cold`, `threads`, `read` while the table is being read, or `draw`, which is what all others contain: making
    /// the packet.
    pub group: String,
    /// What is counted, and the length of the network's prefix: 16 for direct rows, 8 for hashed ones. Where threads are
    /// counted, also how many addresses send and receive.
    pub case: String,
    /// How many addresses do, or how many threads count.
    pub number: u32,
    /// Nanoseconds for a packet: the median.
    pub nanoseconds: f64,
}

/// What it takes to know an address.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// As for a time.
    pub case: String,
    /// How many addresses are known.
    pub addresses: u32,
    /// Bytes for each of them, on each CPU that has seen it: the row, and what finds it.
    pub bytes: f64,
}

/// All figures of this machine.
#[derive(Clone, Debug, Default)]
pub struct Native {
    /// What packets take.
    pub times: Vec<Time>,
    /// What addresses take.
    pub memory: Vec<Memory>,
}

/// What criterion writes into `benchmark.json`.
#[derive(Deserialize)]
struct Benchmark {
    group_id: String,
    function_id: Option<String>,
    value_str: Option<String>,
}

/// The part of `estimates.json` that is of interest, in nanoseconds.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

/// Runs the benchmark, for a short time if it is to be `quick`.
pub fn measure(ws: &Workshop, quick: bool) -> Result<Native> {
    let sh = Shell::new()?;
    sh.change_dir(ws.repo());
    let results = ws.target("criterion");
    // Benchmarks that are no more must not be found.
    remove_tree(&results)?;
    let time: &[&str] = if quick { &["--warm-up-time", "0.2", "--measurement-time", "0.5"] } else { &[] };
    let mut step = ws.step("bench-native", "timing the accounting on this machine")?;
    let bench = cmd!(sh, "cargo bench --quiet --package xt-traffic-accounting --bench packet -- --noplot {time...}");
    let mut memory = Vec::new();
    step.run_watching(bench.into(), |line| memory.extend(Memory::from_line(line)))?;
    step.finish();
    ensure!(!memory.is_empty(), "the benchmark says nothing about memory");
    let mut times = Vec::new();
    collect(&results, &mut times)?;
    times.sort_by(|a, b| (&a.group, &a.case, a.number).cmp(&(&b.group, &b.case, b.number)));
    memory.sort_by(|a, b| (&a.case, a.addresses).cmp(&(&b.case, b.addresses)));
    Ok(Native { times, memory })
}

impl Memory {
    /// Reads a line of the benchmark, if it is about memory: "memory", the case, addresses, bytes.
    fn from_line(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("memory ")?.split_whitespace();
        let case = words.next()?.to_owned();
        let (addresses, bytes) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { case, addresses, bytes })
    }
}

/// Finds all results below `folder`.
fn collect(folder: &Path, times: &mut Vec<Time>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name == "new") {
            times.push(read(&path)?);
        } else if path.is_dir() {
            collect(&path, times)?;
        }
    }
    Ok(())
}

fn read(folder: &Path) -> Result<Time> {
    let text = |name: &str| {
        let file = folder.join(name);
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    };
    let benchmark: Benchmark = serde_json::from_str(&text("benchmark.json")?)?;
    let estimates: Estimates = serde_json::from_str(&text("estimates.json")?)?;
    Ok(Time {
        group: benchmark.group_id,
        case: benchmark.function_id.unwrap_or_default(),
        number: benchmark.value_str.and_then(|value| value.parse().ok()).unwrap_or_default(),
        nanoseconds: estimates.median.point_estimate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_memory() {
        let memory = Memory { case: "all/8".into(), addresses: 256, bytes: 84.5 };
        assert_eq!(Memory::from_line("memory all/8 256 84.5"), Some(memory));
        for other in ["memory all/8 256", "all/8 256 84.5", "memory all/8 many 84.5", ""] {
            assert_eq!(Memory::from_line(other), None, "{other}");
        }
    }
}
