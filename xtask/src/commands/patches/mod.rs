// SPDX-License-Identifier: GPL-2.0-only
//! `patches`: from patch files to commits and back.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use git2::{Oid, Repository, Status, StatusOptions};

use crate::builds::kernel::{self, Config};
use crate::host;
use crate::sources::tree::Tree;
use crate::workspace::Workspace;

mod apply;
mod check;
mod export;

/// The branch to edit.
const BRANCH: &str = "refs/heads/series";
/// The commit at which the branch and the patch files were last equal.
const EXPORTED: &str = "refs/xtask/exported";

#[derive(Subcommand, Debug)]
pub enum Action {
    /// Make a git tree with the patches as commits on the branch `series`, to edit them
    ///
    /// Edit the commits with git (for example `git rebase -i base`), then run `patches export`.
    /// A tree with commits that are not exported is not changed.
    Apply(Target),
    /// Write the commits of the edited branch back as patch files
    ///
    /// The files are what `git format-patch --zero-commit --no-signature --abbrev=12
    /// base..series` prints. Files that do not change are not written.
    Export(Target),
    /// Check that the patches apply, that each builds, and that checkpatch passes
    ///
    /// Each patch is built on top of the patches before it (kernel patches in the configuration
    /// `test`), with a checkout and objects of their own. The first run takes a full build, and
    /// minutes for each patch that changes a header. `scripts/checkpatch.pl --strict` of the pinned
    /// kernel checks the kernel patches. A patch that passed is not checked again.
    Check(Checked),
}

/// A tree to edit.
#[derive(Args, Debug)]
pub struct Target {
    /// The tree that the patches are for
    #[arg(long, value_enum, default_value_t)]
    tree: Which,
    /// The kernel series, one of those in pins.toml
    #[arg(long)]
    series: Option<String>,
    /// The folder of the tree to edit [default: in the cache]
    #[arg(long)]
    tree_dir: Option<PathBuf>,
}

/// The patches to check.
#[derive(Args, Debug, Default)]
pub struct Checked {
    /// The tree that the patches are for
    #[arg(long, value_enum, default_value_t)]
    tree: Which,
    #[command(flatten)]
    kernel: kernel::Options,
}

/// A patched tree.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Which {
    #[default]
    Kernel,
    Iptables,
}

pub fn run(ws: &Workspace, action: &Action) -> Result<()> {
    let _lock = host::require(ws)?;
    match action {
        Action::Apply(target) => target.open(ws).and_then(|(tree, folder)| apply::run(ws, &tree, &folder)),
        Action::Export(target) => target.open(ws).and_then(|(tree, folder)| export::run(ws, &tree, &folder)),
        Action::Check(Checked { tree: Which::Iptables, .. }) => check::run(ws, &Tree::iptables(ws)?, None),
        Action::Check(Checked { tree: Which::Kernel, kernel }) => {
            let choice = kernel.choose(ws, Config::Test)?;
            check::run(ws, &Tree::kernel(ws, &choice.series)?, Some(&choice))
        }
    }
}

/// Checks both trees; patches in the record have passed before.
pub fn check_all(ws: &Workspace) -> Result<()> {
    for tree in [Which::Kernel, Which::Iptables] {
        run(ws, &Action::Check(Checked { tree, ..Checked::default() }))?;
    }
    Ok(())
}

impl Target {
    /// The tree and the folder to edit it in.
    fn open(&self, ws: &Workspace) -> Result<(Tree, PathBuf)> {
        let tree = match self.tree {
            Which::Kernel => Tree::kernel(ws, self.series.as_ref().unwrap_or(&ws.pins().kernel.default))?,
            Which::Iptables => Tree::iptables(ws)?,
        };
        let default = ws.cache().join("edit").join(tree.name());
        let folder = self.tree_dir.as_ref().map_or(Ok(default), std::path::absolute)?;
        Ok((tree, folder))
    }
}

fn tip_of(repo: &Repository, reference: &str) -> Result<Oid> {
    repo.refname_to_id(reference).with_context(|| format!("{} has no {reference}", repo.path().display()))
}

/// Whether the work tree or the index differ from HEAD. Untracked files do not count.
fn has_uncommitted(repo: &Repository) -> Result<bool> {
    let statuses = repo.statuses(Some(StatusOptions::new().include_untracked(false).include_ignored(false)))?;
    Ok(statuses.iter().any(|entry| entry.status() != Status::CURRENT))
}
