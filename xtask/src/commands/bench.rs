// SPDX-License-Identifier: GPL-2.0-only
//! `bench`: the cost per packet, compared with other counters.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::bench::env::BenchEnv;
use crate::bench::report::{Origin, Report};
use crate::bench::{code, instructions, native, rate, tables, targets};
use crate::builds::kernel::{self, Choice, Config};
use crate::workspace::Workspace;

#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    #[command(flatten)]
    kernel: kernel::Options,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Write the tables of docs/performance.md; with --check, the table of instructions only
    #[arg(long)]
    docs: bool,
    /// Use a report.json instead of measuring
    #[arg(long, value_name = "FILE", requires = "docs", conflicts_with = "check")]
    from: Option<PathBuf>,
    /// Fewer cases and shorter native runs
    #[arg(long, conflicts_with = "docs")]
    quick: bool,
    /// Only count instructions and check the machine code; fail if a target or a limit is missed
    #[arg(long, conflicts_with_all = ["json", "quick"])]
    check: bool,
    /// Print the machine code of the packet path of IPv4, and measure nothing
    #[arg(long, conflicts_with_all = ["json", "docs", "quick", "check"])]
    code: bool,
}

impl Options {
    /// The options of `bench --check`, for the default series or the one that is named.
    pub fn check(series: Option<&String>) -> Self {
        let kernel = series.map(|series| kernel::Options::of(series, None)).unwrap_or_default();
        Self { check: true, kernel, ..Self::default() }
    }
}

pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    if options.code {
        print!("{}", code::packet_path(ws, &options.kernel.choose(ws, Config::Bench)?)?);
        return Ok(());
    }
    let report = match &options.from {
        Some(file) => Report::read(file)?,
        None => measure(ws, &options.kernel.choose_all(ws, Config::Bench)?, options)?,
    };
    if options.check {
        tables::print(&report, &["machine", "targets", "instructions"]);
        check(&report)?;
        // The other tables also have figures that were not measured.
        return if options.docs { tables::write(ws, &report, &["instructions"]) } else { Ok(()) };
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        tables::print(&report, &[]);
    }
    if options.docs {
        tables::write(ws, &report, &[])?;
    }
    Ok(())
}

/// Measures everything and writes the report to `target/bench`. With `--check`, measures only what
/// is repeatable, and writes no report.
fn measure(ws: &Workspace, choices: &[Choice], options: &Options) -> Result<Report> {
    let envs = choices.iter().map(|choice| BenchEnv::prepare(ws, choice.clone())).collect::<Result<Vec<_>>>()?;
    if options.check {
        choices.iter().try_for_each(|choice| code::check(ws, choice))?;
    }
    let quick = options.quick || options.check;
    let origin = Origin::current(ws, choices, quick)?;
    let mut instructions = Vec::new();
    for env in &envs {
        // The tables of the document have all cases.
        instructions.extend(instructions::measure(ws, env, quick, !options.check || options.docs)?);
    }
    let mut targets = targets::for_instructions(&instructions)?;
    if options.check {
        return Ok(Report { origin, instructions, targets, ..Report::default() });
    }
    targets.extend(targets::not_enforced(&instructions)?);
    // Instructions are the only figures of every kernel.
    let env = envs.first().context("no kernel was chosen")?;
    let reading = instructions::measure_reading(ws, env)?;
    let rates = rate::measure(ws, env)?;
    let (native, memory) = native::measure(ws, quick)?;
    targets.extend(targets::for_times(&native)?);
    targets.extend(targets::for_rates(&rates)?);
    let report = Report { origin, instructions, reading, rates, native, memory, targets };
    let file = ws.target("bench/report.json");
    report.write(&file)?;
    eprintln!("all figures: {}", file.display());
    Ok(report)
}

/// Fails if a target or a limit is missed.
fn check(report: &Report) -> Result<()> {
    let over_limit = report.instructions.iter().filter(|cost| cost.met() == Some(false));
    let over_limit = over_limit.map(|cost| format!("{}: {}", cost.series, cost.case));
    let missed = report.targets.iter().filter(|target| !target.met).map(|target| target.what.clone());
    let missed: Vec<_> = over_limit.chain(missed).collect();
    ensure!(missed.is_empty(), "a packet costs too many instructions: {}", missed.join("; "));
    Ok(())
}
