// SPDX-License-Identifier: GPL-2.0-only
//! `shell`: an interactive guest.

use anyhow::Result;

use crate::builds::kernel::{Config, Options};
use crate::images::guest;
use crate::workspace::Workspace;

pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    let artifacts = guest::artifacts(ws, &options.choose(ws, Config::Test)?)?;
    vm_harness::guest::shell(&vm_harness::guest::Config::new(artifacts))
}
