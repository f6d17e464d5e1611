// SPDX-License-Identifier: GPL-2.0
//! `patches`: from patch files to commits and back.
//!
//! `apply` makes a tree for a person to edit, `export` writes its commits as files, `check` tries
//! what a reviewer would.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use git2::{Oid, Repository, Status, StatusOptions};

use crate::{commands::setup, tree::Tree, workshop::Workshop};

mod apply;
mod check;
mod export;

/// The branch that a person edits.
const BRANCH: &str = "refs/heads/series";
/// What the branch was when it last agreed with the patch files.
const AGREED: &str = "refs/xtask/agreed";

/// What to do with a series.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Make a git tree with the series as commits on the branch `series`, to edit it
    ///
    /// Edit the commits with git (for example `git rebase -i base`), then run `patches export`.
    /// A tree with edits that are not exported is left alone.
    Apply(Target),
    /// Write the commits of the edited branch back as patch files
    ///
    /// The files are what `git format-patch --zero-commit --no-signature --abbrev=12
    /// base..series` prints. Files that do not change are not written.
    Export(Target),
    /// Check that the series applies, that each patch builds, and that checkpatch is content
    ///
    /// Each patch is built, whole (the vm kernel), on those before it, in a tree and with objects
    /// that only this command uses: the first time takes a full build and some minutes for each
    /// patch that changes a header. `scripts/checkpatch.pl --strict` of the pinned kernel looks at
    /// kernel patches.
    Check(Target),
}

/// Which tree.
#[derive(Args, Debug)]
pub struct Target {
    /// The tree that the patches are for
    #[arg(long, value_enum, default_value_t = Which::Kernel)]
    tree: Which,
    /// The kernel series, of those in pins.toml
    #[arg(long)]
    series: Option<String>,
    /// Where the tree to edit is [default: in the cache]
    #[arg(long)]
    tree_dir: Option<PathBuf>,
}

/// What can be patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    Kernel,
    Iptables,
}

/// The command.
pub fn run(ws: &Workshop, action: &Action) -> Result<()> {
    let _lock = setup::prepare(ws)?;
    let (Action::Apply(target) | Action::Export(target) | Action::Check(target)) = action;
    let tree = match target.tree {
        Which::Kernel => {
            let series = target.series.as_ref().unwrap_or(&ws.pins().kernel.default);
            Tree::kernel(ws, series)?
        }
        Which::Iptables => Tree::iptables(ws)?,
    };
    let edit = match &target.tree_dir {
        Some(folder) => std::path::absolute(folder)?,
        None => ws.cache().join("edit").join(tree.name()),
    };
    match action {
        Action::Apply(_) => apply::run(ws, &tree, &edit),
        Action::Export(_) => export::run(ws, &tree, &edit),
        Action::Check(_) => check::run(ws, &tree, target.tree),
    }
}

fn tip_of(repo: &Repository, reference: &str) -> Result<Oid> {
    repo.refname_to_id(reference).with_context(|| format!("{} has no {reference}", repo.path().display()))
}

/// Whether the work tree or the index differ from HEAD; files that git does not know do not count.
fn has_uncommitted(repo: &Repository) -> Result<bool> {
    let mut options = StatusOptions::new();
    options.include_untracked(false).include_ignored(false);
    let statuses = repo.statuses(Some(&mut options))?;
    Ok(statuses.iter().any(|entry| entry.status() != Status::CURRENT))
}
