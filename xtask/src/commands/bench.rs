// SPDX-License-Identifier: GPL-2.0-only
//! `bench`: the cost per packet, compared with other counters.

use std::path::PathBuf;

use anyhow::{Result, ensure};
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
    /// The options of `bench --check`.
    pub fn check() -> Self {
        Self { check: true, ..Self::default() }
    }
}

pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    let choice = options.kernel.choose(ws, Config::Bench)?;
    if options.code {
        print!("{}", code::packet_path(ws, &choice)?);
        return Ok(());
    }
    let report = match &options.from {
        Some(file) => Report::read(file)?,
        None => measure(ws, choice, options)?,
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
fn measure(ws: &Workspace, choice: Choice, options: &Options) -> Result<Report> {
    let env = BenchEnv::prepare(ws, choice)?;
    if options.check {
        code::check(ws, &env.choice)?;
    }
    let quick = options.quick || options.check;
    let origin = Origin::current(ws, &env.choice, quick)?;
    // The tables of the document have all cases.
    let instructions = instructions::measure(ws, &env, quick, !options.check || options.docs)?;
    let mut targets = targets::for_instructions(&instructions)?;
    if options.check {
        return Ok(Report { origin, instructions, targets, ..Report::default() });
    }
    targets.extend(targets::not_enforced(&instructions)?);
    let reading = instructions::measure_reading(ws, &env)?;
    let rates = rate::measure(ws, &env)?;
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
    let over_limit = report.instructions.iter().filter(|cost| cost.met() == Some(false)).map(|cost| &cost.case);
    let missed = report.targets.iter().filter(|target| !target.met).map(|target| &target.what);
    let missed: Vec<_> = over_limit.chain(missed).map(String::as_str).collect();
    ensure!(missed.is_empty(), "a packet costs too many instructions: {}", missed.join("; "));
    Ok(())
}
