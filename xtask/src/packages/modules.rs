// SPDX-License-Identifier: GPL-2.0-only
//! `modules`: the kernel module for one kernel, built against that kernel's headers package, and the
//! package that depends on all that a box needs.

use anyhow::{Context, Result};

use super::{
    PackageBuilder,
    source::{Built, Source, copy_tree},
    version::Revision,
};
use crate::{
    builds::{kernel::Kernel, module::HOST_ONLY},
    stamp::Recipe,
    workspace::file_name,
};

/// The commits that change these make a new revision. With the kernel's: the module is for one build of it.
const PATHS: [&str; 5] = ["xtask/deb/modules", "module", "xtask/deb/linux", "kernel-patches", "xtask/pins.toml"];

/// Builds the module once more, the way anybody would who has nothing but the headers package.
pub fn build(builder: &PackageBuilder<'_>, kernel: &Kernel, linux: &Built) -> Result<Built> {
    let (release, config) = (kernel.release()?, kernel.choice.config);
    let headers = linux.file(&format!("linux-headers-{release}"))?;
    let folder = headers.parent().context("a package lies in no folder")?;
    let module = builder.ws.repo().join("module");
    let source = Recipe::new("module source").folder_without(&module, &HOST_ONLY)?.stamp();
    Source {
        folder: "modules",
        name: &format!("xt-traffic-{config}"),
        base: concat!(env!("CARGO_PKG_VERSION"), "-"),
        revision: Revision::of(builder.ws, &PATHS)?.after(builder.steps),
        words: &[
            ("RELEASE", &release),
            ("CONFIG", &config.to_string()),
            ("LINUX", &linux.version),
            ("HEADERS", &file_name(headers)),
        ],
        made_from: &[&linux.stamp, &source],
        sandbox: builder.root.sandbox().bind_ro(folder, "src"),
    }
    .build(builder, |folder| copy_tree(&module, &folder.join("module"), &[]))
}
