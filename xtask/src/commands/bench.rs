// SPDX-License-Identifier: GPL-2.0
//! `bench`: what a packet costs, beside what it costs others.

use anyhow::{Result, ensure};
use clap::Args;

use crate::{
    bench::{
        code, instructions,
        lab::Lab,
        native, rate, reading,
        report::{Costs, Origin, Report},
        targets,
    },
    workshop::Workshop,
};

/// How to measure, and how to tell.
#[derive(Args, Clone, Debug)]
pub struct Options {
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

/// The command.
pub fn run(ws: &Workshop, options: &Options) -> Result<()> {
    if options.code {
        print!("{}", code::of_match(ws)?);
        return Ok(());
    }
    let lab = Lab::ready(ws)?;
    if options.check {
        return check(ws, &lab);
    }
    let costs = instructions::measure(ws, &lab, options.quick)?;
    let (reading, rates) = (reading::measure(ws, &lab)?, rate::measure(ws, &lab)?);
    let native = native::measure(ws, options.quick)?;
    let report = Report::new(Origin::here(ws, options.quick)?, costs, reading, rates, native)?;
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
fn check(ws: &Workshop, lab: &Lab) -> Result<()> {
    code::check(ws)?;
    let costs = instructions::measure(ws, lab, true)?;
    println!("{}", Costs(&costs));
    let targets = targets::of_costs(&costs)?;
    targets.iter().for_each(|target| println!("{target}"));
    let missed: Vec<_> = targets.iter().filter(|target| !target.met).map(|target| target.what.as_str()).collect();
    ensure!(missed.is_empty(), "a packet costs more than it may: {}", missed.join("; "));
    Ok(())
}
