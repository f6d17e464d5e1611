// SPDX-License-Identifier: GPL-2.0-only
//! `build`: everything that a guest boots.

use anyhow::Result;

use crate::builds::kernel::{Config, Options};
use crate::host;
use crate::images::guest;
use crate::workspace::Workspace;

pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    let choice = options.choose(ws, Config::Test)?;
    let _lock = host::require(ws)?;
    eprintln!("{}", guest::build(ws, &choice)?.display());
    Ok(())
}
