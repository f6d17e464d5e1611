// SPDX-License-Identifier: GPL-2.0-only
//! Builds the patched iptables for the guest, under `/usr/local`.

use std::path::PathBuf;

use anyhow::Result;
use fs_err as fs;
use git2::Oid;

use crate::builds::root::BuildRoot;
use crate::builds::sandbox::jobs;
use crate::sources::tree::Tree;
use crate::stamp::{Recipe, Stamp};
use crate::workspace::{Workspace, remove_tree};

/// The prefix keeps Debian's own iptables in the guest intact. The rpath makes ldconfig
/// unnecessary.
const CONFIGURE: [&str; 6] = [
    "/src/configure",
    "--prefix=/usr/local",
    "--libdir=/usr/local/lib",
    "--with-xtlibdir=/usr/local/lib/xtables",
    "--disable-static",
    "LDFLAGS=-Wl,-rpath,/usr/local/lib",
];

/// A built iptables.
pub struct Iptables {
    /// The `DESTDIR` of `make install`, which contains `usr/local`.
    pub installed: PathBuf,
    /// Its checked-out source.
    pub source: PathBuf,
    /// The folder of its objects, with the generated headers.
    pub objects: PathBuf,
    /// The hash of its inputs.
    pub stamp: Stamp,
}

/// Builds iptables if its patches have changed.
pub fn build(ws: &Workspace, root: &BuildRoot) -> Result<Iptables> {
    let tree = Tree::iptables(ws)?;
    let commit = tree.tip()?;
    build_at(ws, root, &tree, commit, "build")
}

/// Builds the iptables of one commit. Each checkout has objects of its own.
pub fn build_at(ws: &Workspace, root: &BuildRoot, tree: &Tree, commit: Oid, checkout: &str) -> Result<Iptables> {
    let recipe = Recipe::new("iptables 1")
        .text("root", root.stamp().as_str())
        .text("base", &tree.base().to_string())
        .list("configure", &CONFIGURE);
    let configured = recipe.stamp();
    let stamp =
        Recipe::new("iptables").text("configured", configured.as_str()).text("commit", &commit.to_string()).stamp();
    let build = ws.cache().join(checkout);
    let stamp_file = build.join("iptables.stamp");
    let iptables = Iptables {
        installed: build.join("iptables-installed"),
        source: tree.checkout(ws, checkout, commit)?,
        objects: build.join("iptables"),
        stamp,
    };
    let Iptables { installed, source, objects, stamp } = &iptables;
    stamp.make(&stamp_file, installed, || {
        let mut step = ws.step("iptables", "building iptables")?;
        let configured_file = objects.join(".configured");
        let sandbox = root.sandbox().bind_rw(source, "src").bind_rw(objects, "build");
        if !configured.is_in(&configured_file) {
            remove_tree(objects)?;
            fs::create_dir_all(objects)?;
            // Git keeps no times, so the generated files may look older than their sources.
            step.run(sandbox.command("src", &["autoreconf", "--force", "--install"]))?;
            step.run(sandbox.command("build", &CONFIGURE))?;
            configured.write(&configured_file)?;
        }
        step.run(sandbox.command("build", &["make", &jobs()]))?;

        let new = ws.temporary()?;
        let sandbox = sandbox.bind_rw(new.path(), "out");
        step.run(sandbox.command("build", &["make", "install-strip", "DESTDIR=/out"]))?;
        remove_tree(installed)?;
        fs::rename(new.keep(), installed)?;
        step.finish();
        Ok(())
    })?;
    Ok(iptables)
}
