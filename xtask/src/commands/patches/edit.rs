// SPDX-License-Identifier: GPL-2.0-only
//! `patches edit`: opens the branch of a series, in a shell or with a command.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use git2::Repository;

use super::{BRANCH, EXPORTED, apply, has_uncommitted, selection, tip_of};
use crate::process;
use crate::sources::tree::Tree;
use crate::workspace::Workspace;

/// Makes or updates the tree. One with work that is not exported stays as it is.
pub fn prepare(ws: &Workspace, tree: &Tree, folder: &Path) -> Result<()> {
    match Repository::open(folder) {
        Ok(repo) if unexported(&repo)? => {
            eprintln!("{}: opening it as it is, with work that is not exported", folder.display());
            Ok(())
        }
        _ => apply::run(ws, tree, folder),
    }
}

/// Runs the command in the tree, or the user's shell. Says afterwards what is left to do.
pub fn open(ws: &Workspace, tree: &Tree, folder: &Path, words: &[OsString]) -> Result<()> {
    let shell = [env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into())];
    let words = if words.is_empty() { &shell[..] } else { words };
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(folder);
    // The exit status of a shell is that of its last command, which need not concern the patches.
    if let Err(error) = process::run_foreground(command) {
        eprintln!("{error:#}");
    }
    process::check()?;
    let repo = Repository::open(folder).with_context(|| format!("{} is no git tree any more", folder.display()))?;
    if unexported(&repo)? {
        let options = selection(ws, tree, folder);
        eprintln!("the branch has work that is not exported: `cargo xtask patches export {options}`");
    }
    Ok(())
}

/// Whether there are commits or changes that the patch files do not have, or an unfinished rebase.
fn unexported(repo: &Repository) -> Result<bool> {
    let on_branch = repo.head().is_ok_and(|head| head.name() == Some(BRANCH));
    Ok(!on_branch || has_uncommitted(repo)? || tip_of(repo, BRANCH)? != tip_of(repo, EXPORTED)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::patches::tests::commit_file;
    use fs_err as fs;
    use git2::ResetType;

    #[test]
    fn work_that_is_not_exported_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let repo = Repository::init(folder.path()).unwrap();
        let base = commit_file(&repo, None, "base\n", "1\n");
        repo.reference(BRANCH, base, true, "").unwrap();
        repo.reference(EXPORTED, base, true, "").unwrap();
        repo.set_head(BRANCH).unwrap();
        repo.reset(&repo.find_object(base, None).unwrap(), ResetType::Hard, None).unwrap();
        assert!(!unexported(&repo).unwrap());
        fs::write(folder.path().join("net/a.c"), "23\n").unwrap();
        assert!(unexported(&repo).unwrap());
        let commit = commit_file(&repo, Some(base), "two\n", "23\n");
        repo.reset(&repo.find_object(commit, None).unwrap(), ResetType::Hard, None).unwrap();
        assert!(unexported(&repo).unwrap());
        repo.reference(EXPORTED, commit, true, "").unwrap();
        assert!(!unexported(&repo).unwrap());
        repo.set_head_detached(commit).unwrap();
        assert!(unexported(&repo).unwrap());
    }
}
