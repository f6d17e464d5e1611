// SPDX-License-Identifier: GPL-2.0-only
//! `patches`: from patch files to commits and back.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand, ValueEnum};
use git2::{Oid, Repository, Status, StatusOptions};

use crate::builds::kernel::{self, Config};
use crate::host;
use crate::sources::tree::Tree;
use crate::workspace::Workspace;

mod apply;
mod check;
mod compare;
mod edit;
mod export;
mod port;

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
    /// Open the branch of a series in a shell
    ///
    /// Like `apply`, and then runs the shell in the tree. A tree with work that is not exported is
    /// opened as it is.
    Edit(Edited),
    /// Start a series: merge the patches of another series into its tree
    ///
    /// The series TO must be in pins.toml, and have no patches. Each patch is merged with the tree
    /// by three-way merge. A patch with conflicts stops the command. The files then have conflict
    /// markers, which show both sides and the lines that the patch was made for. Resolve them, run
    /// `git add`, and then `patches port --continue TO`.
    #[command(allow_missing_positional = true)]
    Port(Ported),
    /// Show the difference of two series, without context lines and line numbers
    Compare {
        /// A series, or a folder with patches
        first: String,
        /// Another one
        second: String,
    },
}

/// The series to edit.
#[derive(Args, Debug)]
pub struct Edited {
    /// The kernel series, one of those in pins.toml
    series: String,
    /// The folder of the tree to edit [default: in the cache]
    #[arg(long)]
    tree_dir: Option<PathBuf>,
    /// A command to run instead of the shell
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// A port from one series to another one.
#[derive(Args, Debug)]
pub struct Ported {
    /// The series whose patches are merged; not with --continue
    #[arg(required_unless_present = "proceed", conflicts_with = "proceed")]
    from: Option<String>,
    /// The series to start
    to: String,
    /// Go on after the conflicts have been resolved
    #[arg(long = "continue")]
    proceed: bool,
    /// The folder of the tree to edit [default: in the cache]
    #[arg(long)]
    tree_dir: Option<PathBuf>,
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
    match action {
        Action::Apply(target) => target.run(ws, apply::run),
        Action::Export(target) => target.run(ws, export::run),
        Action::Check(checked) => checked.run(ws),
        Action::Edit(edited) => edited.run(ws),
        Action::Port(ported) => ported.run(ws),
        Action::Compare { first, second } => compare::run(ws, first, second),
    }
}

/// Checks the kernel patches of all series and those of iptables. Patches in the record have passed
/// before: then a series takes no build.
pub fn check_all(ws: &Workspace) -> Result<()> {
    for series in ws.pins().kernel.all_series() {
        Checked { tree: Which::Kernel, kernel: kernel::Options::of(series, None) }.run(ws)?;
    }
    Checked { tree: Which::Iptables, ..Checked::default() }.run(ws)
}

impl Checked {
    fn run(&self, ws: &Workspace) -> Result<()> {
        let _lock = host::require(ws)?;
        if let Which::Iptables = self.tree {
            return check::run(ws, &Tree::iptables(ws)?, None);
        }
        let choice = self.kernel.choose(ws, Config::Test)?;
        check::run(ws, &Tree::kernel(ws, &choice.series)?, Some(&choice))
    }
}

impl Edited {
    fn run(&self, ws: &Workspace) -> Result<()> {
        let lock = host::require(ws)?;
        let (tree, folder) = Target::of(&self.series, self.tree_dir.as_ref()).open(ws)?;
        edit::prepare(ws, &tree, &folder)?;
        drop(lock);
        edit::open(ws, &tree, &folder, &self.command)
    }
}

impl Ported {
    fn run(&self, ws: &Workspace) -> Result<()> {
        let _lock = host::require(ws)?;
        let (tree, folder) = Target::of(&self.to, self.tree_dir.as_ref()).open(ws)?;
        let outcome = match &self.from {
            Some(from) => {
                port::require_empty(&tree)?;
                port::start(ws, &Tree::kernel(ws, from)?, &tree, &folder, || Ok(()))?
            }
            None => port::resume(&folder)?,
        };
        port::report(ws, &outcome, &tree, &folder)
    }
}

/// Starts a port of a series to another version of its source, which the pins of `new` have.
/// Conflicts are left in the tree in the cache's folder `edit`. Calls `begun` when the tree is
/// there. If it fails, the tree is removed.
pub fn port_to_version(
    ws: &Workspace,
    new: &Workspace,
    series: &str,
    begun: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let (tree, folder) = Target::of(series, None).open(new)?;
    let outcome = port::start(new, &Tree::kernel(ws, series)?, &tree, &folder, begun)?;
    port::report(new, &outcome, &tree, &folder)
}

impl Target {
    /// The tree of a kernel series.
    fn of(series: &str, tree_dir: Option<&PathBuf>) -> Self {
        Self { tree: Which::Kernel, series: Some(series.to_owned()), tree_dir: tree_dir.cloned() }
    }

    /// Calls `act` with the tree and the folder to edit it in.
    fn run(&self, ws: &Workspace, act: impl FnOnce(&Workspace, &Tree, &Path) -> Result<()>) -> Result<()> {
        let _lock = host::require(ws)?;
        let (tree, folder) = self.open(ws)?;
        act(ws, &tree, &folder)
    }

    /// The tree and the folder to edit it in.
    fn open(&self, ws: &Workspace) -> Result<(Tree, PathBuf)> {
        let tree = match self.tree {
            Which::Kernel => Tree::kernel(ws, self.series.as_ref().unwrap_or(&ws.pins().kernel.default))?,
            Which::Iptables => Tree::iptables(ws)?,
        };
        let folder = self.tree_dir.as_ref().map_or_else(|| Ok(default_folder(ws, &tree)), std::path::absolute)?;
        Ok((tree, folder))
    }
}

/// The commits from `base` to `tip`, oldest first. Fails if there is a merge among them.
fn linear_history(repo: &Repository, base: Oid, tip: Oid) -> Result<Vec<Oid>> {
    let mut commits = Vec::new();
    let mut oid = tip;
    while oid != base {
        let commit = repo.find_commit(oid)?;
        ensure!(commit.parent_count() == 1, "the branch series is not a linear history on base (at {oid})");
        commits.push(oid);
        oid = commit.parent_id(0)?;
    }
    commits.reverse();
    Ok(commits)
}

/// The kernel series that a tree is for.
fn series_of(tree: &Tree) -> Option<&str> {
    tree.name().strip_prefix("kernel-")
}

/// The options of `apply` and `export` that select a tree and its folder, for messages.
fn selection(ws: &Workspace, tree: &Tree, folder: &Path) -> String {
    let which = match series_of(tree) {
        Some(series) => format!("--series {series}"),
        None => format!("--tree {}", tree.name()),
    };
    which + &tree_dir_option(ws, tree, folder)
}

/// The option that selects a folder, with a space before it; empty if it is the default one.
fn tree_dir_option(ws: &Workspace, tree: &Tree, folder: &Path) -> String {
    if folder == default_folder(ws, tree) { String::new() } else { format!(" --tree-dir {}", folder.display()) }
}

/// The folder in which a tree is edited unless `--tree-dir` names another one.
fn default_folder(ws: &Workspace, tree: &Tree) -> PathBuf {
    ws.cache().join("edit").join(tree.name())
}

fn tip_of(repo: &Repository, reference: &str) -> Result<Oid> {
    repo.refname_to_id(reference).with_context(|| format!("{} has no {reference}", repo.path().display()))
}

/// Whether the work tree or the index differ from HEAD. Untracked files do not count.
fn has_uncommitted(repo: &Repository) -> Result<bool> {
    let statuses = repo.statuses(Some(StatusOptions::new().include_untracked(false).include_ignored(false)))?;
    Ok(statuses.iter().any(|entry| entry.status() != Status::CURRENT))
}
