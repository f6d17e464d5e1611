// SPDX-License-Identifier: GPL-2.0
//! `iptables`: the patched iptables, in the packages that Debian has.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{
    Bench, reference,
    source::{Built, Source},
    version::Revision,
};
use crate::{fetch, stamp::Recipe, tree::Tree, workshop::Workshop};

/// The commits that change these make a new revision.
const PATHS: [&str; 3] = ["xtask/deb/iptables", "iptables-patches", "xtask/pins.toml"];

/// Builds the packages, and compares them with Debian's own.
pub fn build(bench: &Bench<'_>) -> Result<Built> {
    let tree = Tree::iptables(bench.ws)?;
    let commit = tree.tip()?;
    let revision = Revision::of(bench.ws, &PATHS)?.after(bench.steps);
    let debian = &bench.ws.pins().debian_iptables;
    let version = &debian.first().context("pins.toml names no package of Debian's iptables")?.version;
    let made_from = Recipe::new("iptables source").text("commit", &commit.to_string()).stamp();
    let built = Source {
        folder: "iptables",
        name: "iptables",
        base: &format!("{version}+promisc"),
        revision,
        words: &[],
        made_from: &[&made_from],
        sandbox: bench.root.sandbox(),
    }
    .build(bench, |folder| tree.write(folder, commit))?;
    reference::check(bench.ws, bench.root, &built.files, &self::debian(bench.ws)?)?;
    Ok(built)
}

/// Debian's own packages.
pub fn debian(ws: &Workshop) -> Result<Vec<PathBuf>> {
    ws.pins().debian_iptables.iter().map(|package| fetch::pinned(ws, package)).collect()
}
