// SPDX-License-Identifier: GPL-2.0
//! `build-iptables`: the patched iptables for the guest, under `/usr/local`.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use git2::Oid;

use crate::{
    buildroot::BuildRoot,
    commands::setup,
    sandbox::jobs,
    stamp::{Recipe, Stamp, withdraw},
    tree::Tree,
    workshop::{Workshop, remove_tree},
};

/// Beside Debian's own in the guest, and found without an `ldconfig`.
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
    /// What `make install` has made, with `usr/local` in it.
    pub installed: PathBuf,
    /// Its checked-out source.
    pub source: PathBuf,
    /// The folder of its objects, with the generated headers.
    pub objects: PathBuf,
    /// What it was made from.
    pub stamp: Stamp,
}

/// The command.
pub fn run(ws: &Workshop) -> Result<()> {
    let _lock = setup::prepare(ws)?;
    let root = BuildRoot::ready(ws)?;
    let iptables = build(ws, &root)?;
    eprintln!("{}", iptables.installed.display());
    Ok(())
}

/// Builds iptables when its patches have changed.
pub fn build(ws: &Workshop, root: &BuildRoot) -> Result<Iptables> {
    let tree = Tree::iptables(ws)?;
    let commit = tree.tip()?;
    build_at(ws, root, &tree, commit, "build")
}

/// Builds the iptables of one commit in the checkout `checkout`, whose objects are kept apart from
/// those of other checkouts.
pub fn build_at(ws: &Workshop, root: &BuildRoot, tree: &Tree, commit: Oid, checkout: &str) -> Result<Iptables> {
    let recipe = Recipe::new("iptables 1")
        .text("root", root.stamp().as_str())
        .text("base", &tree.base().to_string())
        .list("configure", &CONFIGURE);
    let configured = recipe.stamp();
    let stamp =
        Recipe::new("iptables").text("configured", configured.as_str()).text("commit", &commit.to_string()).stamp();
    let build = ws.cache().join(checkout);
    let (objects, installed) = (build.join("iptables"), build.join("iptables-installed"));
    let stamp_file = build.join("iptables.stamp");
    let source = tree.checkout(ws, checkout, commit)?;
    let iptables = Iptables {
        installed: installed.clone(),
        source: source.clone(),
        objects: objects.clone(),
        stamp: stamp.clone(),
    };
    if stamp.is_in(&stamp_file) && installed.exists() {
        return Ok(iptables);
    }
    withdraw(&stamp_file)?;
    let mut step = ws.step("iptables", "building iptables")?;
    let configured_file = objects.join(".configured");
    let sandbox = root.sandbox().write(&source, "src").write(&objects, "build");
    if !configured.is_in(&configured_file) {
        remove_tree(&objects)?;
        fs::create_dir_all(&objects).with_context(|| format!("cannot make {}", objects.display()))?;
        // A checkout leaves no order of times to tell make that the generated files are up to date.
        step.run(sandbox.command("src", &["autoreconf", "--force", "--install"]))?;
        step.run(sandbox.command("build", &CONFIGURE))?;
        configured.write(&configured_file)?;
    }
    step.run(sandbox.command("build", &["make", &jobs()]))?;

    let new = ws.temporary()?;
    let sandbox = sandbox.write(new.path(), "out");
    step.run(sandbox.command("build", &["make", "install-strip", "DESTDIR=/out"]))?;
    remove_tree(&installed)?;
    fs::rename(new.keep(), &installed).with_context(|| format!("cannot keep {}", installed.display()))?;
    stamp.write(&stamp_file)?;
    step.finish();
    Ok(iptables)
}
