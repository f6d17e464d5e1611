// SPDX-License-Identifier: GPL-2.0
//! `replay`: captures in, tables out.

use std::{fs::File, path::PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use vm_harness::replay;

use crate::{commands::build_kernel, vm_image, workshop::Workshop};

/// What to replay, and how.
#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    kernel: build_kernel::Options,
    /// Which iptables takes the rules
    #[arg(long, value_enum, default_value_t = Backend::Nft)]
    backend: Backend,
    /// A rule: what follows the word `iptables`, or `ip6tables ...` in full; may be given often
    /// [default: count every IPv4 address]
    #[arg(long = "rule", value_name = "RULE", allow_hyphen_values = true)]
    rules: Vec<String>,
    /// Fail unless the tables are those that the independent model expects
    #[arg(long)]
    check: bool,
    /// Capture files (pcap or pcapng, also gzipped), replayed in this order
    #[arg(required = true, value_name = "CAPTURE")]
    captures: Vec<PathBuf>,
}

/// The two ways of iptables into the kernel.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Backend {
    Nft,
    Legacy,
}

impl From<Backend> for replay::Backend {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Nft => Self::Nft,
            Backend::Legacy => Self::Legacy,
        }
    }
}

/// The command. Standard output gets the tables and nothing else.
pub fn run(ws: &Workshop, options: &Options) -> Result<()> {
    // A wrong name should not cost a kernel build.
    for capture in &options.captures {
        File::open(capture).with_context(|| format!("cannot read {}", capture.display()))?;
    }
    let options = replay::Options {
        artifacts: vm_image::artifacts(ws, &options.kernel)?,
        backend: options.backend.into(),
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
