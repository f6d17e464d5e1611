// SPDX-License-Identifier: GPL-2.0-only
//! The figures of one run, as JSON and as plots.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fs_err as fs;
use git2::Repository;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use serde::{Deserialize, Serialize};

use super::instructions::Cost;
use super::native::{Memory, Time};
use super::peers;
use super::rate::Rate;
use super::reading::Reading;
use super::targets::Target;
use crate::builds::kernel::Choice;
use crate::packages::version::is_dirty;
use crate::workspace::Workspace;

/// All figures of one run.
#[derive(Default, Deserialize, Serialize)]
pub struct Report {
    /// What was measured, and where.
    pub origin: Origin,
    /// Instructions per packet.
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

    /// Writes `report.json` and the plots to a folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("report.json"), serde_json::to_string_pretty(self)?)?;
        let plot = |name, title, x_label| Plot { file: folder.join(name), title, x_label };
        // The base cases add nothing.
        let costs: Vec<_> = self.instructions.iter().filter(|cost| cost.added > 0.0).collect();
        let costs = lines(&costs, |cost| (cost.case.clone(), cost.addresses, cost.added));
        plot("addresses.svg", "Instructions that a rule adds to a packet", "addresses").draw(&costs, |top| 0.0..top)?;
        let times = |groups: &[&str], name: fn(&Time) -> String| {
            let times: Vec<_> = self.native.iter().filter(|time| groups.contains(&time.group.as_str())).collect();
            lines(&times, |time| (name(time), time.number, time.nanoseconds))
        };
        let logarithmic = |top: f64| (1.0..top).log_scale();
        let hot = times(&["hot", "mixed"], |time| format!("{}, {}", time.case, time.group));
        plot("nanoseconds.svg", "Nanoseconds per packet", "addresses").draw(&hot, logarithmic)?;
        let threads = times(&["threads"], |time| time.case.clone());
        plot("cpus.svg", "Nanoseconds per packet on each CPU", "CPUs that count").draw(&threads, logarithmic)
    }
}

/// What was measured, and where.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Origin {
    /// The commit, followed by `+` if the work tree differs.
    pub commit: String,
    /// The version of the guest's kernel.
    pub kernel: String,
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
    /// The current commit, the chosen kernel and this host.
    pub fn current(ws: &Workspace, choice: &Choice, quick: bool) -> Result<Self> {
        let info = fs::read_to_string("/proc/cpuinfo")?;
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            commit: commit(ws).unwrap_or_else(|_| "unknown".into()),
            kernel: ws.pins().kernel_source(&choice.series)?.version.clone(),
            config: choice.config.to_string(),
            xtables_addons: peers::xtables_addons_version(ws)?,
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

/// The checked-out commit. An archive of the source has none.
fn commit(ws: &Workspace) -> Result<String> {
    let repo = Repository::open(ws.repo())?;
    let id = repo.head()?.peel_to_commit()?.id();
    Ok(format!("{id}{}", if is_dirty(&repo, &[])? { "+" } else { "" }))
}

/// A line of a plot: its name and its points.
type Line = (String, Vec<(f64, f64)>);

fn lines<T>(figures: &[T], point: impl Fn(&T) -> (String, u32, f64)) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (name, x, y) in figures.iter().map(point) {
        let point = (f64::from(x), y);
        match lines.iter_mut().find(|line| line.0 == name) {
            Some(line) => line.1.push(point),
            None => lines.push((name, vec![point])),
        }
    }
    lines
}

/// A plot.
struct Plot {
    file: PathBuf,
    title: &'static str,
    /// The label of the horizontal axis.
    x_label: &'static str,
}

impl Plot {
    /// Draws lines over a logarithmic axis. `height` makes the vertical axis, given the highest
    /// figure.
    fn draw<Y>(&self, lines: &[Line], height: impl Fn(f64) -> Y) -> Result<()>
    where
        Y: AsRangedCoord<Value = f64, CoordDescType: ValueFormatter<f64>>,
    {
        let points = || lines.iter().flat_map(|(_, points)| points);
        let last = points().map(|point| point.0).fold(1.0, f64::max);
        let top = points().map(|point| point.1).fold(1.0, f64::max);
        let area = SVGBackend::new(&self.file, (1100, 540)).into_drawing_area();
        area.fill(&WHITE)?;
        // The legend is to the right of all lines.
        let width = last.powf(1.5);
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", 22))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d((1.0..width).log_scale().base(2.0), height(top * 1.1))?;
        let label = |x: &f64| if x.fract() == 0.0 && *x <= last { format!("{x:.0}") } else { String::new() };
        chart.configure_mesh().x_desc(self.x_label).x_label_formatter(&label).draw()?;
        for (number, (name, points)) in lines.iter().enumerate() {
            let colour = Palette99::pick(number).stroke_width(2);
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour).point_size(3))?
                .label(name.as_str())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        }
        let position = SeriesLabelPosition::UpperRight;
        chart.configure_series_labels().position(position).background_style(WHITE).border_style(BLACK).draw()?;
        area.present().with_context(|| format!("cannot write {}", self.file.display()))
    }
}

#[cfg(test)]
pub mod tests {
    use super::{super::targets::Bound, *};

    /// A report with two figures of most kinds.
    pub fn report() -> Report {
        let cost = |addresses, added, limit| Cost {
            case: "--traffic, hashed".into(),
            addresses,
            instructions: 1500.0,
            added,
            limit,
        };
        let target = |value, met| Target { what: "a target".into(), value, bound: Bound::AtMost(0.8), met };
        let time = |group: &str, case: &str, number| Time {
            group: group.into(),
            case: case.into(),
            number,
            nanoseconds: 9.0,
            interval: [8.0, 10.0],
        };
        Report {
            origin: Origin { cpu: "fast".into(), cpus: 2, config: "test".into(), ..Origin::default() },
            instructions: vec![cost(1, 250.0, None), cost(65536, 260.0, Some(255.0))],
            rates: vec![Rate { counter: "one".into(), version: "1".into(), packets: 64_123.0, receive_limit: true }],
            reading: Reading { rows: 65536, instructions: 6.5536e7 },
            native: vec![
                time("hot", "traffic/16", 1),
                time("hot", "traffic/16", 65536),
                time("threads", "traffic/16/1", 1),
                time("threads", "traffic/16/1", 2),
            ],
            memory: vec![Memory { case: "traffic/16".into(), addresses: 256, bytes: 64.0 }],
            targets: vec![target(0.75, true), target(0.85, false)],
        }
    }

    #[test]
    fn a_report_is_written_with_plots_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        report().write(folder.path()).unwrap();
        for name in ["addresses.svg", "nanoseconds.svg", "cpus.svg"] {
            let plot = fs::read_to_string(folder.path().join(name)).unwrap();
            assert!(plot.starts_with("<svg") && plot.contains("<polyline"), "{name}");
        }
        let file = folder.path().join("report.json");
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(json["instructions"][1]["addresses"], 65536);
        assert_eq!(json["targets"][1]["met"], false);
        assert_eq!(serde_json::to_value(Report::read(&file).unwrap()).unwrap(), json);
    }
}
