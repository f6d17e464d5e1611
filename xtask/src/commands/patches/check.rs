// SPDX-License-Identifier: GPL-2.0-only
//! `patches check`: each patch builds on top of the patches before it, and checkpatch passes.
//!
//! The file `checked` next to the patches records which patches have passed, by a hash of the patch
//! and of all patches before it. It is committed, so only patches that changed are checked again.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use git2::Oid;

use crate::builds::iptables;
use crate::builds::kernel::{self, Choice};
use crate::builds::root::BuildRoot;
use crate::process;
use crate::sources::tree::Tree;
use crate::stamp::write_atomically;
use crate::workspace::{Workspace, file_name};

/// The checkout and the objects that only this command uses.
const CHECKOUT: &str = "check";
/// The file with the hashes of the patches that have passed.
const RECORD: &str = "checked";

/// Checks the patches that are not in the record, and updates the record. `kernel` is the kernel to
/// build, `None` for iptables.
pub fn run(ws: &Workspace, tree: &Tree, kernel: Option<&Choice>) -> Result<()> {
    let file = tree.patches().join(RECORD);
    let old = fs::read_to_string(&file).unwrap_or_default();
    let commits = tree.commits()?;
    let mut records: Vec<_> = commits
        .iter()
        .map(|patch| format!("{} {}\n", patch.hash.as_str(), file_name(&patch.file)))
        .map(|record| (old.contains(&record), record))
        .collect();
    let mut written = old.clone();
    for (index, patch) in commits.iter().enumerate() {
        if !records[index].0 {
            check(ws, tree, kernel, &file_name(&patch.file), patch.commit)?;
            records[index].0 = true;
        }
        // After each patch: the next run goes on where this one has failed.
        let passed = records.iter().filter(|(passed, _)| *passed).map(|(_, record)| record.as_str());
        let text = passed.collect::<String>();
        if text != written {
            write_atomically(&file, text.as_bytes())?;
            written = text;
        }
    }
    if written != old {
        eprintln!("{}: updated; commit it with the patches", file.display());
    }
    eprintln!("all {} patches of {} pass", records.len(), tree.name());
    Ok(())
}

fn check(ws: &Workspace, tree: &Tree, kernel: Option<&Choice>, name: &str, commit: Oid) -> Result<()> {
    let root = BuildRoot::prepare(ws)?;
    if kernel.is_some() {
        checkpatch(ws, &root, tree, name)?;
    }
    match kernel {
        Some(choice) => kernel::build_at(ws, &root, tree, commit, choice, CHECKOUT).map(drop),
        None => iptables::build_at(ws, &root, tree, commit, CHECKOUT).map(drop),
    }
    .with_context(|| format!("{name} does not build"))?;
    eprintln!("{name} passes");
    Ok(())
}

/// <https://docs.kernel.org/dev-tools/checkpatch.html>
fn checkpatch(ws: &Workspace, root: &BuildRoot, tree: &Tree, name: &str) -> Result<()> {
    let source = tree.checkout(ws, "build", tree.tip()?)?;
    let sandbox = root.sandbox().bind_ro(&source, "src").bind_ro(tree.patches(), "repo");
    let patch = Path::new("/repo").join(name).display().to_string();
    // FILE_PATH_CHANGES asks for each new file whether MAINTAINERS has it. It lists folders, and
    // the patches add no folder. UNKNOWN_COMMIT_ID is for commits that the tree does not have:
    // backports name commits of newer kernels.
    let ignored = "--ignore=FILE_PATH_CHANGES,UNKNOWN_COMMIT_ID";
    let words = ["perl", "scripts/checkpatch.pl", "--strict", "--show-types", ignored, &patch];
    let mut output = Vec::new();
    let status = process::run_lines(sandbox.command("src", &words), |line| output.push(line.to_owned()))?;
    ensure!(status.success(), "checkpatch.pl --strict rejects {name}:\n{}", output.join("\n"));
    Ok(())
}
