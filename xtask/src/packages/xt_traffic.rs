// SPDX-License-Identifier: GPL-2.0-only
//! `xt-traffic`: the iptables extension, and the service that installs the rules at boot.

use anyhow::Result;
use fs_err as fs;

use super::PackageBuilder;
use super::source::{Built, SourcePackage};
use super::version::Changelog;
use crate::builds::{iptables, libxt};
use crate::stamp::Recipe;
use crate::workspace::file_name;

/// The inputs of the version. The extension is linked with the patched libxtables.
pub(super) const INPUTS: [&str; 4] = ["xtask/deb/xt-traffic", "libxt", "module/abi.rs", "iptables-patches"];
/// The extension's manual page, relative to the repository.
const MANUAL: &str = "libxt/libxt_traffic.8";

/// Builds the package.
pub fn build(builder: &PackageBuilder<'_>) -> Result<Built> {
    let (ws, root) = (builder.ws, builder.root);
    let library = libxt::build(ws, root, &iptables::build(ws, root)?)?;
    let manual = ws.repo().join(MANUAL);
    let page = Recipe::new("manual page").file(&manual)?.stamp();
    SourcePackage {
        folder: "xt-traffic",
        name: "xt-traffic",
        version_prefix: concat!(env!("CARGO_PKG_VERSION"), "-"),
        changelog: Changelog::from_git(ws, &INPUTS)?.with_test_entries(builder.test_entries),
        placeholders: &[],
        inputs: &[&library.stamp, &page],
        sandbox: root.sandbox(),
    }
    .build(builder, |folder| {
        for file in [&library.file, &manual] {
            fs::copy(file, folder.join(file_name(file)))?;
        }
        Ok(())
    })
}
