// SPDX-License-Identifier: GPL-2.0-only
//! `replay`: sends captures to a guest and prints its tables.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use fs_err::File;
use vm_harness::replay::{self, Backend};

use crate::builds::kernel::{self, Config};
use crate::images::guest;
use crate::workspace::Workspace;

#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    kernel: kernel::Options,
    /// The iptables back end that takes the rules
    #[arg(long, default_value = "nft", value_parser = ["nft", "legacy"])]
    backend: String,
    /// The arguments of an `iptables` command, or a whole `ip6tables` command; may be repeated
    /// [default: count every IPv4 address]
    #[arg(long = "rule", value_name = "RULE", allow_hyphen_values = true)]
    rules: Vec<String>,
    /// Fail if the tables differ from those of the independent model
    #[arg(long)]
    check: bool,
    /// Capture files (pcap or pcapng, also gzipped), replayed in this order
    #[arg(required = true, value_name = "CAPTURE")]
    captures: Vec<PathBuf>,
}

/// Prints the tables, and nothing else, on standard output.
pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    // Check the names before the kernel is built.
    for capture in &options.captures {
        File::open(capture)?;
    }
    let choice = options.kernel.choose(ws, Config::Test)?;
    let options = replay::Options {
        artifacts: guest::artifacts(ws, &choice)?,
        backend: if options.backend == "legacy" { Backend::Legacy } else { Backend::Nft },
        rules: options.rules.clone(),
        captures: options.captures.clone(),
        check: options.check,
    };
    let step = ws.step("replay", "replaying")?;
    let tables = replay::replay_with_progress(&options, |sent, all| {
        if sent == 0 {
            step.set_total(all as u64);
        }
        step.set_position(sent as u64);
    })?;
    step.finish();
    replay::print(&tables, std::io::stdout().lock())
}
