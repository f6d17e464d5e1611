// SPDX-License-Identifier: GPL-2.0-only
//! `linux`: the built kernel in one configuration, and its headers for modules.

use anyhow::{Context, Result};

use super::PackageBuilder;
use super::source::{Built, SourcePackage};
use super::version::Changelog;
use crate::builds::kernel::{FIXED, Kernel};

/// The inputs of the version.
pub(super) const INPUTS: [&str; 2] = ["xtask/deb/linux", "kernel-patches"];

/// Packs the kernel.
pub fn build(builder: &PackageBuilder<'_>, kernel: &Kernel) -> Result<Built> {
    let (release, config) = (kernel.release()?, kernel.choice.config);
    let (upstream, _) = release.split_once('-').context("the kernel's release has no local version")?;
    SourcePackage {
        folder: "linux",
        name: &format!("linux-{config}-promisc"),
        version_prefix: &format!("{upstream}-promisc"),
        changelog: Changelog::from_git(builder.ws, &INPUTS)?.with_test_entries(builder.test_entries),
        placeholders: &[
            ("RELEASE", &release),
            ("CONFIG", &config.to_string()),
            // Kbuild also reads them from the environment.
            ("FIXED", &FIXED.map(|setting| format!("export {setting}\n")).concat()),
        ],
        inputs: &[&kernel.stamp],
        sandbox: builder.root.sandbox().bind_ro(&kernel.source, "src").bind_ro(&kernel.objects, "build"),
    }
    .build(builder, |_| Ok(()))
}
