// SPDX-License-Identifier: GPL-2.0-only
//! `xt-traffic`: the iptables extension, and what puts the rules in place at boot.

use std::fs;

use anyhow::{Context, Result};

use super::{
    PackageBuilder,
    source::{Built, Source},
    version::Revision,
};
use crate::{
    builds::{iptables, libxt},
    stamp::Recipe,
};

/// The commits that change these make a new revision.
const PATHS: [&str; 4] = ["xtask/deb/xt-traffic", "libxt", "module/abi.rs", "xtask/pins.toml"];
/// The extension's manual page, from the top of the repository.
const MANUAL: &str = "libxt/libxt_traffic.8";

/// Builds the package.
pub fn build(builder: &PackageBuilder<'_>) -> Result<Built> {
    let (ws, root) = (builder.ws, builder.root);
    let library = libxt::build(ws, root, &iptables::build(ws, root)?)?;
    let manual = ws.repo().join(MANUAL);
    let page = Recipe::new("manual page").file(&manual)?.stamp();
    Source {
        folder: "xt-traffic",
        name: "xt-traffic",
        base: concat!(env!("CARGO_PKG_VERSION"), "-"),
        revision: Revision::of(ws, &PATHS)?.after(builder.steps),
        words: &[],
        made_from: &[&library.stamp, &page],
        sandbox: root.sandbox(),
    }
    .build(builder, |folder| {
        for file in [&library.file, &manual] {
            let name = file.file_name().unwrap_or_default();
            fs::copy(file, folder.join(name)).with_context(|| format!("cannot copy {}", file.display()))?;
        }
        Ok(())
    })
}
