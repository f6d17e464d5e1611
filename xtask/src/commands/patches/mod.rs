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
    Check(Target),
}

#[derive(Args, Debug)]
pub struct Target {
    /// The tree that the patches are for
    #[arg(long, value_enum, default_value_t = Which::Kernel)]
    tree: Which,
    #[command(flatten)]
    kernel: kernel::Options,
    /// The folder of the tree to edit [default: in the cache]
    #[arg(long)]
    tree_dir: Option<PathBuf>,
}

/// A patched tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    Kernel,
    Iptables,
}

pub fn run(ws: &Workspace, action: &Action) -> Result<()> {
    let _lock = host::require(ws)?;
    match action {
        Action::Apply(target) => {
            let tree = target.tree(ws)?;
            apply::run(ws, &tree, &target.folder(ws, &tree)?)
        }
        Action::Export(target) => {
            let tree = target.tree(ws)?;
            export::run(ws, &tree, &target.folder(ws, &tree)?)
        }
        Action::Check(target) => {
            let kernel = match target.tree {
                Which::Kernel => Some(target.kernel.choose(ws, Config::Test)?),
                Which::Iptables => None,
            };
            check::run(ws, &target.tree(ws)?, kernel.as_ref())
        }
    }
}

/// Checks both trees; patches in the record have passed before.
pub fn check_all(ws: &Workspace) -> Result<()> {
    for tree in [Which::Kernel, Which::Iptables] {
        run(ws, &Action::Check(Target { tree, kernel: kernel::Options::default(), tree_dir: None }))?;
    }
    Ok(())
}

impl Target {
    fn tree(&self, ws: &Workspace) -> Result<Tree> {
        match self.tree {
            Which::Kernel => Tree::kernel(ws, &self.kernel.choose(ws, Config::Test)?.series),
            Which::Iptables => Tree::iptables(ws),
        }
    }

    fn folder(&self, ws: &Workspace, tree: &Tree) -> Result<PathBuf> {
        match &self.tree_dir {
            Some(folder) => Ok(std::path::absolute(folder)?),
            None => Ok(ws.cache().join("edit").join(tree.name())),
        }
    }
}

fn tip_of(repo: &Repository, reference: &str) -> Result<Oid> {
    repo.refname_to_id(reference).with_context(|| format!("{} has no {reference}", repo.path().display()))
}

/// Whether the work tree or the index differ from HEAD. Untracked files do not count.
fn has_uncommitted(repo: &Repository) -> Result<bool> {
    let mut options = StatusOptions::new();
    options.include_untracked(false).include_ignored(false);
    let statuses = repo.statuses(Some(&mut options))?;
    Ok(statuses.iter().any(|entry| entry.status() != Status::CURRENT))
}
