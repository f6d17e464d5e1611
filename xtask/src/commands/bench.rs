// SPDX-License-Identifier: GPL-2.0
//! `bench`: what a packet costs, beside what it costs others.

use anyhow::Result;
use clap::Args;

use crate::{
    bench::{code, instructions, native, report::Report},
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
    /// Print the machine code of the match for IPv4 instead
    #[arg(long, conflicts_with_all = ["json", "quick"])]
    code: bool,
}

/// The command.
pub fn run(ws: &Workshop, options: &Options) -> Result<()> {
    if options.code {
        print!("{}", code::of_match(ws)?);
        return Ok(());
    }
    let figures = instructions::measure(ws, options.quick)?;
    let report = Report::new(figures, native::measure(ws, options.quick)?);
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
