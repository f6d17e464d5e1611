// SPDX-License-Identifier: GPL-2.0-only
//! `bench`: what a packet costs, beside what it costs others.

use anyhow::{Result, ensure};
use clap::Args;

use crate::{
    bench::{
        code,
        env::BenchEnv,
        instructions, native, rate, reading,
        report::{Costs, Origin, Report},
        targets,
    },
    builds::kernel::{self, Config},
    workspace::Workspace,
};

/// How to measure, and how to tell.
#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    kernel: kernel::Options,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    /// Only with the most addresses, and natively for a short time
    #[arg(long)]
    quick: bool,
    /// Only count instructions, which come out the same each time, and look at them; fail if a target is missed
    #[arg(long, conflicts_with_all = ["json", "quick"])]
    check: bool,
    /// Print the machine code that an IPv4 packet goes through instead
    #[arg(long, conflicts_with_all = ["json", "quick", "check"])]
    code: bool,
}

impl Options {
    /// The options of `bench --check`.
    pub fn check() -> Self {
        Self { kernel: kernel::Options::default(), json: false, quick: false, check: true, code: false }
    }
}

pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    let choice = options.kernel.choose(ws, Config::Test)?;
    if options.code {
        print!("{}", code::of_match(ws, &choice)?);
        return Ok(());
    }
    let env = BenchEnv::prepare(ws, choice)?;
    if options.check {
        return check(ws, &env);
    }
    let costs = instructions::measure(ws, &env, options.quick)?;
    let (reading, rates) = (reading::measure(ws, &env)?, rate::measure(ws, &env)?);
    let native = native::measure(ws, options.quick)?;
    let report = Report::new(Origin::here(ws, &env.choice, options.quick)?, costs, reading, rates, native)?;
    let folder = ws.target("bench");
    report.write(&folder)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
        println!("\n{}", folder.display());
    }
    Ok(())
}

/// For those who change the module and want to know at once.
fn check(ws: &Workspace, env: &BenchEnv) -> Result<()> {
    code::check(ws, &env.choice)?;
    let costs = instructions::measure(ws, env, true)?;
    println!("{}", Costs(&costs));
    let targets = targets::of_costs(&costs)?;
    targets.iter().for_each(|target| println!("{target}"));
    let missed: Vec<_> = targets.iter().filter(|target| !target.met).map(|target| target.what.as_str()).collect();
    ensure!(missed.is_empty(), "a packet costs more than it may: {}", missed.join("; "));
    Ok(())
}
