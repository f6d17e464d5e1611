// SPDX-License-Identifier: GPL-2.0
//! How long a packet takes this machine's own CPU, without a kernel around it: `module/benches/packet.rs`.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use xshell::{Shell, cmd};

use crate::workshop::{Workshop, remove_tree};

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Time {
    /// `hot`, `cold`, `threads`, or `read` while the table is being read.
    pub group: String,
    /// What is counted, and the length of the network's prefix: 16 for direct rows, 8 for hashed ones. Where threads are
    /// counted, also how many addresses send and receive.
    pub case: String,
    /// How many addresses do, or how many threads count.
    pub number: u32,
    /// Nanoseconds for a packet: the median.
    pub nanoseconds: f64,
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

/// Runs the benchmark, for a short time if it is to be `quick`. Drawing addresses is no part of the figures.
pub fn measure(ws: &Workshop, quick: bool) -> Result<Vec<Time>> {
    let sh = Shell::new()?;
    sh.change_dir(ws.repo());
    let results = ws.target("criterion");
    // Benchmarks that are no more must not be found.
    remove_tree(&results)?;
    let time: &[&str] = if quick { &["--warm-up-time", "0.2", "--measurement-time", "0.5"] } else { &[] };
    let mut step = ws.step("bench-native", "timing the accounting on this machine")?;
    let bench = cmd!(sh, "cargo bench --quiet --package xt-traffic-accounting --bench packet -- --noplot {time...}");
    step.run(bench.into())?;
    step.finish();
    let mut times = Vec::new();
    collect(&results, &mut times)?;
    let (draw, mut times): (Vec<_>, Vec<_>) = times.into_iter().partition(|time| time.group == "draw");
    for time in &mut times {
        // As many threads at once are slower than one for the machine's own reasons, too.
        let threads = if time.group == "threads" { time.number } else { 1 };
        let draw = draw.iter().find(|draw| draw.number == threads);
        time.nanoseconds -= draw.context("the benchmark has no figure for drawing")?.nanoseconds;
    }
    times.sort_by(|a, b| (&a.group, &a.case, a.number).cmp(&(&b.group, &b.case, b.number)));
    Ok(times)
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
