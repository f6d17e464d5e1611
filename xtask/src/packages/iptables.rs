// SPDX-License-Identifier: GPL-2.0-only
//! `iptables`: the patched iptables, in the packages that Debian has.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{
    PackageBuilder, reference,
    source::{Built, Source},
    version::Revision,
};
use crate::{
    sources::{fetch, tree::Tree},
    stamp::Recipe,
    workspace::Workspace,
};

/// The commits that change these make a new revision.
const PATHS: [&str; 3] = ["xtask/deb/iptables", "iptables-patches", "xtask/pins.toml"];

/// Builds the packages, and compares them with Debian's own.
pub fn build(builder: &PackageBuilder<'_>) -> Result<Built> {
    let tree = Tree::iptables(builder.ws)?;
    let commit = tree.tip()?;
    let revision = Revision::of(builder.ws, &PATHS)?.after(builder.steps);
    let debian = &builder.ws.pins().debian_iptables;
    let version = &debian.first().context("pins.toml names no package of Debian's iptables")?.version;
    let made_from = Recipe::new("iptables source").text("commit", &commit.to_string()).stamp();
    let built = Source {
        folder: "iptables",
        name: "iptables",
        base: &format!("{version}+promisc"),
        revision,
        words: &[],
        made_from: &[&made_from],
        sandbox: builder.root.sandbox(),
    }
    .build(builder, |folder| tree.write(folder, commit))?;
    reference::check(builder.ws, builder.root, &built.files, &self::debian(builder.ws)?)?;
    Ok(built)
}

/// Debian's own packages.
pub fn debian(ws: &Workspace) -> Result<Vec<PathBuf>> {
    ws.pins().debian_iptables.iter().map(|package| fetch::pinned(ws, package)).collect()
}
