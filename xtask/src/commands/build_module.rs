// SPDX-License-Identifier: GPL-2.0-only
//! `build-module`

use anyhow::Result;

use crate::builds::kernel::{self, Config, Options};
use crate::builds::module;
use crate::builds::root::BuildRoot;
use crate::host;
use crate::workspace::Workspace;

pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    let choice = options.choose(ws, Config::Test)?;
    let _lock = host::require(ws)?;
    let root = BuildRoot::prepare(ws)?;
    let kernel = kernel::build(ws, &root, &choice)?;
    let module = module::build(ws, &root, &kernel)?;
    eprintln!("{}", module.file.display());
    Ok(())
}
