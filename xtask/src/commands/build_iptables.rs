// SPDX-License-Identifier: GPL-2.0-only
//! `build-iptables`

use anyhow::Result;

use crate::builds::iptables;
use crate::builds::root::BuildRoot;
use crate::host;
use crate::workspace::Workspace;

pub fn run(ws: &Workspace) -> Result<()> {
    let _lock = host::require(ws)?;
    let root = BuildRoot::prepare(ws)?;
    let iptables = iptables::build(ws, &root)?;
    eprintln!("{}", iptables.installed.display());
    Ok(())
}
