// SPDX-License-Identifier: GPL-2.0
//! `patches check`: what a reviewer would try.

use anyhow::{Context, Result, bail};

use super::Which;
use crate::{
    buildroot::BuildRoot,
    commands::{
        build_iptables,
        build_kernel::{self, Config},
    },
    process, series,
    tree::Tree,
    workshop::Workshop,
};

/// The checkout and the objects that only this command uses.
const CHECKOUT: &str = "check";

pub fn run(ws: &Workshop, tree: &Tree, which: Which) -> Result<()> {
    let commits = tree.commits()?;
    eprintln!("{} patches apply", commits.len());
    let root = BuildRoot::ready(ws)?;
    if which == Which::Kernel {
        checkpatch(ws, &root, tree)?;
        eprintln!("checkpatch.pl --strict is content");
    }
    for (file, commit) in &commits {
        let name = series::name(file);
        match which {
            Which::Kernel => build_kernel::build_at(ws, &root, tree, *commit, Config::Vm, CHECKOUT).map(drop),
            Which::Iptables => build_iptables::build_at(ws, &root, tree, *commit, CHECKOUT).map(drop),
        }
        .with_context(|| format!("{name} does not build"))?;
        eprintln!("{name} builds");
    }
    Ok(())
}

fn checkpatch(ws: &Workshop, root: &BuildRoot, tree: &Tree) -> Result<()> {
    let source = tree.checkout(ws, "build", tree.tip()?)?;
    let sandbox = root.sandbox().read(&source, "src").read(tree.patches(), "repo");
    let mut complaints = Vec::new();
    for (file, _) in tree.commits()? {
        let name = series::name(&file);
        let patch = format!("/repo/{name}");
        let words = ["perl", "scripts/checkpatch.pl", "--strict", "--show-types", &patch];
        let mut output = Vec::new();
        let command = sandbox.command("src", &words);
        let status = process::run_lines(command, |line| output.push(line.to_owned()))?;
        if !status.success() {
            complaints.push(format!("{name}:\n{}", output.join("\n")));
        }
    }
    if !complaints.is_empty() {
        bail!("checkpatch.pl --strict complains:\n{}", complaints.join("\n"));
    }
    Ok(())
}
