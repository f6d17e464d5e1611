// SPDX-License-Identifier: GPL-2.0-only
//! `patches apply`: a tree to edit. A tree with commits that are not exported is never overwritten.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use git2::{Oid, Repository, ResetType};

use super::{BRANCH, EXPORTED, has_uncommitted, selection, tip_of};
use crate::sources::patches;
use crate::sources::tree::{Tree, add_alternate};
use crate::workspace::Workspace;

pub fn run(ws: &Workspace, tree: &Tree, folder: &Path) -> Result<()> {
    let tip = tree.tip()?;
    let empty = fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
    if empty {
        create(ws, tree, folder, tip)?;
    } else {
        update(tree, folder, tip)?;
    }
    let count = patches::files(tree.patches())?.len();
    eprintln!("{}: {count} patches as commits on the branch series, from base", folder.display());
    eprintln!("edit the commits there, then run `cargo xtask patches export {}`", selection(ws, tree, folder));
    Ok(())
}

/// Makes a tree to edit at `folder`, with the branch series at `tip`.
pub fn create(ws: &Workspace, tree: &Tree, folder: &Path, tip: Oid) -> Result<()> {
    let mut step = ws.step("edit-tree", format!("checking out {}", folder.display()))?;
    let problem = || format!("cannot make {}", folder.display());
    let parent = folder.parent().with_context(problem)?;
    fs::create_dir_all(parent)?;
    let new = tempfile::Builder::new().prefix(".new-").tempdir_in(parent).with_context(problem)?;
    let repo = tree.make_edit_tree(&mut step, new.path(), tip).with_context(problem)?;
    repo.reference(EXPORTED, tip, true, "patches apply")?;
    // tempfile makes folders that only their owner can read.
    fs::set_permissions(new.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    fs::rename(new.keep(), folder)?;
    step.finish();
    Ok(())
}

fn update(tree: &Tree, folder: &Path, tip: Oid) -> Result<()> {
    let shown = folder.display();
    let repo = Repository::open(folder).with_context(|| format!("{shown} is not a tree of `patches apply`"))?;
    let current = tip_of(&repo, BRANCH)?;
    let on_branch = repo.head().is_ok_and(|head| head.name() == Some(BRANCH));
    ensure!(on_branch, "{shown}: the branch series is not checked out (a rebase in progress?)");
    ensure!(!has_uncommitted(&repo)?, "{shown} has changes that are not committed");
    if current == tip {
        return Ok(());
    }
    let exported = current == tip_of(&repo, EXPORTED)?;
    ensure!(exported, "{shown} has commits that are not exported: run `patches export`, or remove it");
    // The pinned source may be another one than when the tree was made.
    add_alternate(folder, tree.repo())?;
    let repo = Repository::open(folder)?;
    repo.reference("refs/heads/base", tree.base(), true, "patches apply")?;
    let commit = repo.find_object(tip, None)?;
    repo.reset(&commit, ResetType::Hard, None).with_context(|| format!("cannot update {shown}"))?;
    repo.reference(EXPORTED, tip, true, "patches apply")?;
    Ok(())
}
