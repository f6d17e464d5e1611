// SPDX-License-Identifier: GPL-2.0
//! `linux`: the kernel that is built already, in one configuration, and what modules are built against.

use anyhow::{Context, Result};

use super::{
    Bench,
    source::{Built, Source},
    version::Revision,
};
use crate::commands::build_kernel::{Config, FIXED, Kernel};

/// The commits that change these make a new revision.
const PATHS: [&str; 3] = ["xtask/deb/linux", "kernel-patches", "xtask/pins.toml"];

/// Packs the kernel.
pub fn build(bench: &Bench<'_>, kernel: &Kernel, config: Config) -> Result<Built> {
    let release = kernel.release()?;
    let (upstream, _) = release.split_once('-').context("the kernel's release has no local version")?;
    Source {
        folder: "linux",
        name: &format!("linux-{config}-promisc"),
        base: &format!("{upstream}-promisc"),
        revision: Revision::of(bench.ws, &PATHS)?.after(bench.steps),
        words: &[
            ("RELEASE", &release),
            ("CONFIG", &config.to_string()),
            // Kbuild takes them from the environment as well.
            ("FIXED", &FIXED.map(|setting| format!("export {setting}\n")).concat()),
        ],
        made_from: &[&kernel.stamp],
        sandbox: bench.root.sandbox().read(&kernel.source, "src").read(&kernel.objects, "build"),
    }
    .build(bench, |_| Ok(()))
}
