// SPDX-License-Identifier: GPL-2.0-only
//! The index that makes a folder of packages a repository for apt: `Packages` and `Release`.

use anyhow::Result;

use super::PackageBuilder;

/// Writes the index of all packages in the folder.
pub fn index(builder: &PackageBuilder<'_>) -> Result<()> {
    let mut step = builder.ws.step("deb-index", "indexing the packages")?;
    let sandbox = builder.root.sandbox().bind_rw(builder.folder, "out");
    // `Release` holds the time, so it stays as it is when nothing else has changed.
    let script = "apt-ftparchive packages . >.Packages; \
                  if [ -e Release ] && cmp -s .Packages Packages; then rm .Packages; exit; fi; \
                  rm -f Release; mv .Packages Packages; \
                  apt-ftparchive -o APT::FTPArchive::Release::Label=xt_traffic release . >.Release; \
                  mv .Release Release";
    step.run(sandbox.command("out", &["sh", "-euc", script]))?;
    step.finish();
    Ok(())
}
