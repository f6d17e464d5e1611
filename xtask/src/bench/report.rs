// SPDX-License-Identifier: GPL-2.0-only
//! The figures of one run, as JSON.

use std::path::Path;

use anyhow::{Context, Result};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::instructions::{Cost, Reading};
use super::native::{Memory, Time};
use super::peers::Peers;
use super::rate::Rate;
use super::targets::Target;
use crate::builds::kernel::Choice;
use crate::stamp::write_atomically;
use crate::workspace::Workspace;

/// All figures of one run.
#[derive(Default, Deserialize, Serialize)]
pub struct Report {
    /// What was measured, and where.
    pub origin: Origin,
    /// Instructions per packet, on each kernel.
    pub instructions: Vec<Cost>,
    /// The cost of reading a table.
    pub reading: Reading,
    /// Packets per second without loss.
    pub rates: Vec<Rate>,
    /// Nanoseconds per packet.
    pub native: Vec<Time>,
    /// Bytes of memory per address.
    pub memory: Vec<Memory>,
    /// The targets, and whether they are met.
    pub targets: Vec<Target>,
}

impl Report {
    /// Reads a `report.json`.
    pub fn read(file: &Path) -> Result<Self> {
        serde_json::from_slice(&fs::read(file)?).with_context(|| format!("cannot parse {}", file.display()))
    }

    /// Writes a `report.json`.
    pub fn write(&self, file: &Path) -> Result<()> {
        write_atomically(file, serde_json::to_string_pretty(self)?.as_bytes())
    }
}

/// What was measured, and where.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Origin {
    /// The commit, followed by `+` if the work tree differs.
    pub commit: String,
    /// The versions of the guests' kernels. The first one's figures are the only ones, except for
    /// instructions.
    pub kernels: Vec<String>,
    /// The configuration of the guest's kernel.
    pub config: String,
    /// The version of xtables-addons, which contains `ACCOUNT`.
    pub xtables_addons: String,
    /// The model of the host's CPU.
    pub cpu: String,
    /// The number of the host's processors.
    pub cpus: usize,
    /// The host's second- and third-level caches, such as `L2 1024K, L3 32768K`.
    pub caches: String,
    /// Whether the run was a short one.
    pub quick: bool,
}

impl Origin {
    /// The current commit, the chosen kernels of one configuration, and this host.
    pub fn current(ws: &Workspace, choices: &[Choice], quick: bool) -> Result<Self> {
        let info = fs::read_to_string("/proc/cpuinfo")?;
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let version = |series: &str| Ok(ws.pins().kernel_source(series)?.version.clone());
        Ok(Self {
            commit: ws.commit(),
            kernels: choices.iter().map(|choice| version(&choice.series)).collect::<Result<_>>()?,
            config: choices.first().map(|choice| choice.config.to_string()).unwrap_or_default(),
            xtables_addons: Peers::read()?.xtables_addons.version,
            cpu: model.map_or("unknown", |(_, name)| name).to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            caches: caches(),
            quick,
        })
    }
}

/// The caches above the first level. Indexes 0 and 1 are the first level on x86:
/// <https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-devices-system-cpu>
fn caches() -> String {
    let cache = |index: u32| {
        let read = |name| fs::read_to_string(format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{name}")).ok();
        Some(format!("L{} {}", read("level")?.trim(), read("size")?.trim()))
    };
    (2..).map_while(cache).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub mod tests {
    use super::{super::targets::Bound, *};

    /// The cost of a case on 6.12.
    pub fn cost(case: &str, addresses: u32, added: f64, limit: Option<f64>) -> Cost {
        Cost { series: "6.12".into(), case: case.into(), addresses, instructions: 1250.0 + added, added, limit }
    }

    /// The same costs on 7.3.
    pub fn on_7_3(costs: &[Cost]) -> Vec<Cost> {
        costs.iter().map(|cost| Cost { series: "7.3".into(), ..cost.clone() }).collect()
    }

    /// The rate of a counter.
    pub fn rate(counter: &str, packets: f64) -> Rate {
        Rate { counter: counter.into(), version: "1".into(), packets, receive_limit: true }
    }

    /// A time on the host.
    pub fn time(group: &str, case: &str, number: u32, nanoseconds: f64) -> Time {
        Time { group: group.into(), case: case.into(), number, nanoseconds, interval: [8.0, 10.0] }
    }

    /// A report with two figures of most kinds.
    pub fn report() -> Report {
        let costs = [(1, 200.0, None), (65536, 250.0, Some(245.0))]
            .map(|(addresses, added, limit)| cost("--traffic, hashed", addresses, added, limit));
        let kernels = ["6.12.1-1", "7.3.1-1"].map(str::to_owned).to_vec();
        let target = |value, met| Target { what: "a target".into(), value, bound: Bound::AtMost(0.8), met };
        Report {
            origin: Origin { cpu: "fast".into(), cpus: 2, kernels, config: "test".into(), ..Origin::default() },
            instructions: [costs.to_vec(), on_7_3(&costs)].concat(),
            rates: vec![rate("one", 64_123.0)],
            reading: Reading { rows: 65536, instructions: 6.5536e7 },
            native: [("hot", "traffic/16", 1), ("hot", "traffic/16", 65536), ("threads", "traffic/16/1", 2)]
                .map(|(group, case, number)| time(group, case, number, 9.0))
                .into(),
            memory: vec![Memory { case: "traffic/16".into(), addresses: 256, bytes: 64.0 }],
            targets: vec![target(0.75, true), target(0.85, false)],
        }
    }

    #[test]
    fn a_report_is_written_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("report.json");
        report().write(&file).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(json["instructions"][1]["addresses"], 65536);
        assert_eq!(json["targets"][1]["met"], false);
        assert_eq!(serde_json::to_value(Report::read(&file).unwrap()).unwrap(), json);
    }
}
