// SPDX-License-Identifier: GPL-2.0-only
//! `linux`: the kernel that is built already, in one configuration, and what modules are built against.

use anyhow::{Context, Result};

use super::{
    PackageBuilder,
    source::{Built, Source},
    version::Revision,
};
use crate::builds::kernel::{FIXED, Kernel};

/// The commits that change these make a new revision.
const PATHS: [&str; 3] = ["xtask/deb/linux", "kernel-patches", "xtask/pins.toml"];

/// Packs the kernel.
pub fn build(builder: &PackageBuilder<'_>, kernel: &Kernel) -> Result<Built> {
    let (release, config) = (kernel.release()?, kernel.choice.config);
    let (upstream, _) = release.split_once('-').context("the kernel's release has no local version")?;
    Source {
        folder: "linux",
        name: &format!("linux-{config}-promisc"),
        base: &format!("{upstream}-promisc"),
        revision: Revision::of(builder.ws, &PATHS)?.after(builder.steps),
        words: &[
            ("RELEASE", &release),
            ("CONFIG", &config.to_string()),
            // Kbuild takes them from the environment as well.
            ("FIXED", &FIXED.map(|setting| format!("export {setting}\n")).concat()),
        ],
        made_from: &[&kernel.stamp],
        sandbox: builder.root.sandbox().bind_ro(&kernel.source, "src").bind_ro(&kernel.objects, "build"),
    }
    .build(builder, |_| Ok(()))
}
