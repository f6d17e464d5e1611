// SPDX-License-Identifier: GPL-2.0-only
//! `iptables`: the patched iptables, split into the same binary packages as Debian's.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::source::{Built, SourcePackage};
use super::version::Changelog;
use super::{PackageBuilder, reference};
use crate::sources::fetch;
use crate::sources::tree::Tree;
use crate::stamp::Recipe;
use crate::workspace::Workspace;

/// The inputs of the version.
pub(super) const INPUTS: [&str; 2] = ["xtask/deb/iptables", "iptables-patches"];

/// Builds the packages and compares them with Debian's.
pub fn build(builder: &PackageBuilder<'_>) -> Result<Built> {
    let tree = Tree::iptables(builder.ws)?;
    let commit = tree.tip()?;
    let debian = &builder.ws.pins().debian_iptables;
    let version = &debian.first().context("pins.toml has no Debian package of iptables")?.version;
    let source = Recipe::new("iptables source").text("commit", &commit.to_string()).stamp();
    let built = SourcePackage {
        folder: "iptables",
        name: "iptables",
        version_prefix: &format!("{version}+promisc"),
        changelog: Changelog::from_git(builder.ws, &INPUTS)?.with_test_entries(builder.test_entries),
        placeholders: &[],
        inputs: &[&source],
        sandbox: builder.root.sandbox(),
    }
    .build(builder, |folder| tree.write(folder, commit))?;
    reference::check(builder, &built, &self::debian(builder.ws)?, version)?;
    Ok(built)
}

/// The files of Debian's packages.
pub fn debian(ws: &Workspace) -> Result<Vec<PathBuf>> {
    ws.pins().debian_iptables.iter().map(|package| fetch::pinned(ws, package)).collect()
}
