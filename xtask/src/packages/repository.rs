// SPDX-License-Identifier: GPL-2.0-only
//! The index that makes a folder of packages a repository for apt: `Packages` and `Release`.
//! <https://wiki.debian.org/DebianRepository/Format>

use anyhow::Result;

use super::PackageBuilder;
use super::source::packages_in;
use crate::stamp::{Recipe, remove_if_exists};

/// Writes the index of the packages in the builder's folder if they have changed. `Release`
/// contains the time, so an index that is written again differs.
pub fn index(builder: &PackageBuilder<'_>) -> Result<()> {
    let mut recipe = Recipe::new("index 1").text("root", builder.root.stamp().as_str());
    for package in packages_in(builder.folder)? {
        recipe = recipe.file(&package)?;
    }
    let (stamp, stamp_file) = (recipe.stamp(), builder.folder.join(".index.stamp"));
    if stamp.is_in(&stamp_file) && builder.folder.join("Release").exists() {
        return Ok(());
    }
    remove_if_exists(&stamp_file)?;
    let mut step = builder.ws.step("deb-index", "indexing the packages")?;
    let sandbox = builder.root.sandbox().bind_rw(builder.folder, "out");
    // `apt-ftparchive release` lists every index file that it finds, also an old Release.
    let script = "rm -f Packages Release; \
                  apt-ftparchive packages . >.new; mv .new Packages; \
                  apt-ftparchive -o APT::FTPArchive::Release::Label=xt_traffic release . >.new; mv .new Release";
    step.run(sandbox.command("out", &["sh", "-euc", script]))?;
    step.finish();
    stamp.write(&stamp_file)
}
