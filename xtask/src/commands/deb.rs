// SPDX-License-Identifier: GPL-2.0-only
//! `deb`: Debian packages of everything.

use anyhow::Result;

use super::pins::Notice;
use crate::builds::kernel::{Config, Options};
use crate::builds::root::BuildRoot;
use crate::host;
use crate::packages::{PackageBuilder, require_deployable};
use crate::workspace::Workspace;

pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    let choice = options.choose(ws, Config::Server)?;
    require_deployable(choice.config)?;
    let _lock = host::require(ws)?;
    let (build_root, package_root) = (&BuildRoot::prepare(ws)?, &BuildRoot::prepare_for_packages(ws)?);
    let notice = Notice::ask(ws, &choice.series);
    let folder = &ws.target("deb");
    for file in (PackageBuilder { ws, build_root, package_root, folder, test_entries: 0 }).build(&choice)? {
        eprintln!("{}", file.display());
    }
    notice.print();
    Ok(())
}
