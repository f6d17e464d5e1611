// SPDX-License-Identifier: GPL-2.0-only
//! The time per packet on the host, without a kernel: `module/benches/packet.rs`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use walkdir::WalkDir;
use xshell::{Shell, cmd};

use crate::workspace::{Workspace, remove_tree};

/// A measured time.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Time {
    /// `hot`, `mixed`, `cold`, `threads`, `read` (during reads of the table), or `draw` (only
    /// making a packet, which all others include).
    pub group: String,
    /// What is counted (`traffic` or `all`), and the length of the network's prefix: 16 for direct
    /// rows, 8 for hashed ones. In the group `threads` also the number of addresses.
    pub case: String,
    /// The number of addresses; in the groups `threads` and `draw` the number of threads.
    pub number: u32,
    /// Nanoseconds per packet: the median.
    pub nanoseconds: f64,
    /// The 95 % confidence interval of the median.
    pub interval: [f64; 2],
}

/// The memory of a table.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Memory {
    /// Like [`Time::case`].
    pub case: String,
    /// The number of addresses in the table.
    pub addresses: u32,
    /// Bytes per address and CPU: rows and index.
    pub bytes: f64,
}

/// Runs the benchmark, with shorter measurements if `quick`.
pub fn measure(ws: &Workspace, quick: bool) -> Result<(Vec<Time>, Vec<Memory>)> {
    let sh = Shell::new()?;
    sh.change_dir(ws.repo());
    // Not the default folder, which contains the results of manual runs.
    let results = ws.target("bench").join("criterion");
    // Remove the results of benchmarks that no longer exist.
    remove_tree(&results)?;
    let time: &[&str] = if quick { &["--warm-up-time", "0.2", "--measurement-time", "0.5"] } else { &[] };
    let mut step = ws.step("bench-native", "timing the accounting on the host")?;
    let package = "xt-traffic-accounting";
    let bench = cmd!(sh, "cargo bench --locked --quiet --package {package} --bench packet -- --noplot {time...}")
        .env("CRITERION_HOME", &results);
    let mut memory = Vec::new();
    step.run_watching(bench.into(), |line| memory.extend(memory_in(line)))?;
    step.finish();
    ensure!(!memory.is_empty(), "the benchmark printed no line about memory");
    let mut times = Vec::new();
    for entry in WalkDir::new(&results).sort_by_file_name() {
        let entry = entry?;
        if entry.file_name() == "new" {
            times.push(read(entry.path())?);
        }
    }
    Ok((times, memory))
}

/// The median of the measurement with the id GROUP/CASE/NUMBER, in nanoseconds per packet.
pub fn find(times: &[Time], id: &str) -> Option<f64> {
    let is = |time: &&Time| format!("{}/{}/{}", time.group, time.case, time.number) == id;
    times.iter().find(is).map(|time| time.nanoseconds)
}

/// The figure in a line of the benchmark's output, if it has one.
fn memory_in(line: &str) -> Option<Memory> {
    serde_json::from_str::<BTreeMap<String, Memory>>(line).ok()?.remove("memory")
}

/// Reads a measurement.
///
/// Criterion's stable output needs the program cargo-criterion, and its CSV files are deprecated
/// and have no median. So this reads the private files of the version in Cargo.lock:
/// <https://bheisler.github.io/criterion.rs/book/user_guide/csv_output.html>
fn read(folder: &Path) -> Result<Time> {
    let json = |name| -> Result<Value> {
        let file = folder.join(name);
        serde_json::from_slice(&fs::read(&file)?).with_context(|| format!("{} is not valid JSON", file.display()))
    };
    let (benchmark, estimates) = (json("benchmark.json")?, json("estimates.json")?);
    let text = |key: &str| benchmark[key].as_str().map(str::to_owned);
    let median = |pointer| estimates["median"].pointer(pointer)?.as_f64();
    let time = || {
        Some(Time {
            group: text("group_id")?,
            case: text("function_id")?,
            number: text("value_str")?.parse().ok()?,
            nanoseconds: median("/point_estimate")?,
            interval: [median("/confidence_interval/lower_bound")?, median("/confidence_interval/upper_bound")?],
        })
    };
    time().with_context(|| format!("unknown format of the files in {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_memory_are_parsed() {
        let line = r#"{"memory": {"case": "all/8", "addresses": 256, "bytes": 84.5}}"#;
        assert_eq!(memory_in(line), Some(Memory { case: "all/8".into(), addresses: 256, bytes: 84.5 }));
        let without_bytes = r#"{"memory": {"case": "all/8", "addresses": 256}}"#;
        let wrong_number = r#"{"memory": {"case": "all/8", "addresses": "many", "bytes": 84.5}}"#;
        for other in [without_bytes, wrong_number, "hot/all/8/256   time: [8.4 ns 8.5 ns 8.6 ns]", ""] {
            assert_eq!(memory_in(other), None, "{other}");
        }
    }
}
