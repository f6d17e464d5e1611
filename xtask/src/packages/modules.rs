// SPDX-License-Identifier: GPL-2.0-only
//! `modules`: the kernel module for one kernel, built against the package of that kernel's headers,
//! and the metapackage that depends on everything that a host needs.

use anyhow::Result;

use super::PackageBuilder;
use super::source::{Built, SourcePackage, copy_tree};
use super::version::Changelog;
use crate::builds::kernel::Kernel;
use crate::builds::module::HOST_ONLY;
use crate::stamp::Recipe;

/// The inputs of the version. Those of the kernel are among them: the module is for one kernel
/// build.
pub(super) const INPUTS: [&str; 4] = ["xtask/deb/modules", "module", "xtask/deb/linux", "kernel-patches"];

/// Builds the module from the headers package alone, as on a host without the kernel's source.
pub fn build(builder: &PackageBuilder<'_>, kernel: &Kernel, linux: &Built) -> Result<Built> {
    let (release, config) = (kernel.release()?, kernel.choice.config);
    let module = builder.ws.repo().join("module");
    let source = Recipe::new("module source").folder_without(&module, &HOST_ONLY)?.stamp();
    SourcePackage {
        folder: "modules",
        name: &format!("xt-traffic-{config}"),
        version_prefix: concat!(env!("CARGO_PKG_VERSION"), "-"),
        changelog: Changelog::from_git(builder.ws, &INPUTS)?.with_test_entries(builder.test_entries),
        placeholders: &[
            ("RELEASE", &release),
            ("CONFIG", &config.to_string()),
            ("LINUX", &linux.version),
            ("HEADERS", &linux.file_name_of(&format!("linux-headers-{release}"))?),
        ],
        inputs: &[&linux.stamp, &source],
        sandbox: builder.root.sandbox().bind_ro(builder.folder, "src"),
    }
    .build(builder, |folder| copy_tree(&module, &folder.join("module"), &[]))
}
