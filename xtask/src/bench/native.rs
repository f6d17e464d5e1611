// SPDX-License-Identifier: GPL-2.0-only
//! How long a packet takes this machine's own CPU, without a kernel around it: `module/benches/packet.rs`.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use xshell::{Shell, cmd};

use crate::workspace::{Workspace, remove_tree};

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Time {
    /// `hot`, `mixed`, `cold`, `threads`, `read` while the table is being read, or `draw`, which is what all others contain:
    /// making the packet.
    pub group: String,
    /// What is counted, and the length of the network's prefix: 16 for direct rows, 8 for hashed ones. Where threads are
    /// counted, also how many addresses send and receive.
    pub case: String,
    /// How many addresses do, or how many threads count.
    pub number: u32,
    /// Nanoseconds for a packet: the median.
    pub nanoseconds: f64,
    /// Between which it lies, in 95 cases of 100.
    pub interval: [f64; 2],
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
    function_id: String,
    value_str: String,
}

/// The part of `estimates.json` that is of interest, in nanoseconds.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
    confidence_interval: Interval,
}

#[derive(Deserialize)]
struct Interval {
    lower_bound: f64,
    upper_bound: f64,
}

/// Runs the benchmark, for a short time if it is to be `quick`.
pub fn measure(ws: &Workspace, quick: bool) -> Result<Native> {
    let sh = Shell::new()?;
    sh.change_dir(ws.repo());
    // Not where those who run the benchmark themselves keep theirs.
    let results = ws.target("bench").join("criterion");
    // Benchmarks that are no more must not be found.
    remove_tree(&results)?;
    let time: &[&str] = if quick { &["--warm-up-time", "0.2", "--measurement-time", "0.5"] } else { &[] };
    let mut step = ws.step("bench-native", "timing the accounting on this machine")?;
    let bench = cmd!(sh, "cargo bench --quiet --package xt-traffic-accounting --bench packet -- --noplot {time...}")
        .env("CRITERION_HOME", &results);
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
    let Benchmark { group_id, function_id, value_str } = json(&folder.join("benchmark.json"))?;
    let Estimates { median: Estimate { point_estimate, confidence_interval } } = json(&folder.join("estimates.json"))?;
    let Interval { lower_bound, upper_bound } = confidence_interval;
    let number = value_str.parse().with_context(|| format!("{group_id}/{function_id}/{value_str} has no number"))?;
    let interval = [lower_bound, upper_bound];
    Ok(Time { group: group_id, case: function_id, number, nanoseconds: point_estimate, interval })
}

fn json<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not what criterion writes", file.display()))
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
