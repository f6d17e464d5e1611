// SPDX-License-Identifier: GPL-2.0-only
//! `setup`: the only command that changes the host.

use anyhow::Result;
use clap::Args;

use crate::host;
use crate::workspace::Workspace;

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    consent: host::Consent,
    /// Only print the changes
    #[arg(long)]
    dry_run: bool,
}

pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    let changes = host::needed_changes(ws)?;
    if changes.is_empty() {
        eprintln!("nothing to do: this host has everything that is needed");
    } else if options.dry_run {
        host::print_changes(&changes);
    } else {
        host::make(ws, &changes, &options.consent)?;
    }
    Ok(())
}
