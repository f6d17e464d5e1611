// SPDX-License-Identifier: GPL-2.0-only
//! The figures, for people and for programs.

use std::{
    fmt::{self, Display, Formatter},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use git2::Repository;
use plotters::{
    coord::ranged1d::{AsRangedCoord, ValueFormatter},
    prelude::*,
};
use serde::Serialize;

use super::{
    instructions::Cost,
    native::{Memory, Native, Time},
    peers,
    rate::Rate,
    reading::Reading,
    targets::{self, Target},
};
use crate::{builds::kernel::Choice, packages::version::is_dirty, workspace::Workspace};

/// All figures of one run.
#[derive(Serialize)]
pub struct Report {
    /// Where they come from.
    pub origin: Origin,
    /// Instructions per packet.
    pub instructions: Vec<Cost>,
    /// What it costs to read a table.
    pub reading: Reading,
    /// Packets a second without loss.
    pub rates: Vec<Rate>,
    /// Nanoseconds per packet.
    pub native: Vec<Time>,
    /// Bytes of memory per address.
    pub memory: Vec<Memory>,
    /// What the figures are to be like.
    pub targets: Vec<Target>,
}

impl Report {
    /// A report of these figures.
    pub fn new(
        origin: Origin,
        instructions: Vec<Cost>,
        reading: Reading,
        rates: Vec<Rate>,
        native: Native,
    ) -> Result<Self> {
        let Native { times, memory } = native;
        let targets =
            [targets::of_costs(&instructions)?, targets::of_rates(&rates)?, targets::of_times(&times)?].concat();
        Ok(Self { origin, instructions, reading, rates, native: times, memory, targets })
    }

    /// Writes the report as `report.json`, and its plots, into a folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = folder.join("report.json");
        fs::write(&file, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let plot = |name, title, axis| Plot { file: folder.join(name), title, axis };
        // What others are compared with adds nothing.
        let costs: Vec<_> = self.instructions.iter().filter(|cost| cost.added > 0.0).collect();
        let costs = lines(&costs, |cost| (cost.case.clone(), cost.addresses, cost.added));
        plot("addresses.svg", "Instructions that a rule adds to a packet", "addresses").draw(&costs, |top| 0.0..top)?;
        let times = |groups: &[&str], name: fn(&Time) -> String| {
            let times: Vec<_> = self.native.iter().filter(|time| groups.contains(&time.group.as_str())).collect();
            lines(&times, |time| (name(time), time.number, time.nanoseconds))
        };
        let orders = |top: f64| (1.0..top).log_scale();
        let hot = times(&["hot", "mixed"], |time| format!("{}, {}", time.case, time.group));
        plot("nanoseconds.svg", "Nanoseconds for a packet", "addresses").draw(&hot, orders)?;
        let threads = times(&["threads"], |time| time.case.clone());
        plot("cpus.svg", "Nanoseconds for a packet, on each CPU", "CPUs that count").draw(&threads, orders)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Costs(&self.instructions))?;
        let Reading { rows, instructions } = &self.reading;
        let row = instructions / f64::from(*rows);
        writeln!(f, "\nreading {rows} rows: {:.1} million instructions, {row:.0} for a row", instructions / 1e6)?;
        writeln!(f, "\npackets a second without loss, on a CPU that executes 10^9 instructions")?;
        for Rate { counter, version, packets, all } in &self.rates {
            let most = if *all { "   (no more can be received)" } else { "" };
            writeln!(f, "{counter:<42}{packets:>10.0}   {version}{most}")?;
        }
        let Origin { cpus, cpu, quick, .. } = &self.origin;
        let short = if *quick { ", in a short time" } else { "" };
        writeln!(f, "\nnanoseconds per packet, on {cpus} x {cpu}{short}")?;
        for Time { group, case, number, nanoseconds, .. } in &self.native {
            writeln!(f, "{group:<10}{case:<20}{number:>10}{nanoseconds:>14.1}")?;
        }
        writeln!(f, "\nbytes of memory per address and CPU")?;
        for Memory { case, addresses, bytes } in &self.memory {
            writeln!(f, "{case:<30}{addresses:>10}{bytes:>14.1}")?;
        }
        writeln!(f, "\ntargets")?;
        self.targets.iter().try_for_each(|target| writeln!(f, "{target}"))
    }
}

/// What the figures were measured with, and where.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Origin {
    /// The commit, and `+` if it was changed.
    pub commit: String,
    /// The version of the kernel in the guests.
    pub kernel: String,
    /// The version of the xtables-addons that ACCOUNT comes from.
    pub xtables_addons: String,
    /// What the machine's CPU calls itself, for the native figures.
    pub cpu: String,
    /// How many of them there are.
    pub cpus: usize,
    /// With the most addresses only, and natively for a short time?
    pub quick: bool,
}

impl Origin {
    /// This commit on this machine.
    pub fn here(ws: &Workspace, choice: &Choice, quick: bool) -> Result<Self> {
        let pins = ws.pins();
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            commit: commit(ws).unwrap_or_else(|_| "unknown".into()),
            kernel: pins.kernel_source(&choice.series)?.version.clone(),
            xtables_addons: peers::account_version(ws)?,
            cpu: model.map_or("unknown", |(_, name)| name).to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            quick,
        })
    }
}

/// The commit that is checked out. There is none in an archive of the source.
fn commit(ws: &Workspace) -> Result<String> {
    let repo = Repository::open(ws.repo())?;
    let id = repo.head()?.peel_to_commit()?.id();
    Ok(format!("{id}{}", if is_dirty(&repo, &[])? { "+" } else { "" }))
}

/// Instructions per packet as a table.
pub struct Costs<'a>(pub &'a [Cost]);

impl Display for Costs<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<42}{:>10}{:>14}{:>10}", "instructions per packet", "addresses", "all", "added")?;
        self.0.iter().try_for_each(|Cost { case, addresses, instructions, added, .. }| {
            writeln!(f, "{case:<42}{addresses:>10}{instructions:>14.1}{added:>10.1}")
        })
    }
}

/// A line of a plot: its name and points.
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

/// What a plot is about.
struct Plot {
    file: PathBuf,
    title: &'static str,
    /// What there are so many of, from left to right.
    axis: &'static str,
}

impl Plot {
    /// Draws lines over a logarithmic axis. `height` makes the other one, for figures up to so many.
    fn draw<Y>(&self, lines: &[Line], height: impl Fn(f64) -> Y) -> Result<()>
    where
        Y: AsRangedCoord<Value = f64, CoordDescType: ValueFormatter<f64>>,
    {
        let points = || lines.iter().flat_map(|(_, points)| points);
        let last = points().map(|point| point.0).fold(1.0, f64::max);
        let top = points().map(|point| point.1).fold(1.0, f64::max);
        let area = SVGBackend::new(&self.file, (1100, 540)).into_drawing_area();
        area.fill(&WHITE)?;
        // The names stand to the right of all lines.
        let room = last.powf(1.5);
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", 22))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d((1.0..room).log_scale().base(2.0), height(top * 1.1))?;
        let label = |x: &f64| if x.fract() == 0.0 && *x <= last { format!("{x:.0}") } else { String::new() };
        chart.configure_mesh().x_desc(self.axis).x_label_formatter(&label).draw()?;
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
mod tests {
    use super::{super::targets::Bound, *};

    fn report() -> Report {
        let cost =
            |addresses, added| Cost { case: "one".into(), addresses, instructions: 1500.0, added, at_most: None };
        let target = |value, met| Target { what: "a target".into(), value, bound: Bound::AtMost(0.8), met };
        let time = |group: &str, number| Time {
            group: group.into(),
            case: "traffic".into(),
            number,
            nanoseconds: 9.0,
            interval: [8.0, 10.0],
        };
        Report {
            origin: Origin { cpu: "fast".into(), cpus: 2, ..Origin::default() },
            instructions: vec![cost(1, 250.0), cost(65536, 260.0)],
            rates: vec![Rate { counter: "one".into(), version: "1".into(), packets: 1000.0, all: true }],
            reading: Reading { rows: 65536, instructions: 6.5536e7 },
            native: vec![time("hot", 1), time("hot", 256), time("threads", 1), time("threads", 2)],
            memory: vec![Memory { case: "traffic".into(), addresses: 256, bytes: 64.0 }],
            targets: vec![target(0.75, true), target(0.85, false)],
        }
    }

    #[test]
    fn what_is_missed_is_marked() {
        let text = report().to_string();
        let targets: Vec<_> = text.lines().filter(|line| line.starts_with("a target")).collect();
        assert!(!targets[0].contains("missed") && targets[1].contains("missed"), "{text}");
    }

    #[test]
    fn there_is_a_plot_of_each_kind() {
        let folder = tempfile::tempdir().unwrap();
        report().write(folder.path()).unwrap();
        for name in ["addresses.svg", "nanoseconds.svg", "cpus.svg"] {
            let plot = fs::read_to_string(folder.path().join(name)).unwrap();
            assert!(plot.starts_with("<svg") && plot.contains("<polyline"), "{name}");
        }
        let json = fs::read(folder.path().join("report.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["instructions"][1]["addresses"], 65536);
        assert_eq!(json["targets"][1]["met"], false);
    }
}
