// SPDX-License-Identifier: GPL-2.0-only
//! `patches port`: the patches of one series as commits on the tree of another one, by three-way
//! merge. A conflict is left as `git cherry-pick` leaves it: with markers in the files, which show
//! both sides and what the patch was made for.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use git2::build::CheckoutBuilder;
use git2::{CherrypickOptions, Commit, Index, Oid, Repository, RepositoryState};

use super::{BRANCH, EXPORTED, apply, has_uncommitted, selection, series_of, tip_of, tree_dir_option};
use crate::sources::patches;
use crate::sources::tree::{Tree, add_alternate};
use crate::workspace::{Workspace, remove_tree};

/// The last patch of the old series.
const LAST: &str = "refs/xtask/port/last";
/// The last patch that has been ported, or the old base.
const DONE: &str = "refs/xtask/port/done";
/// The patch at which the port has stopped, for a person to resolve the conflicts.
const STOPPED: &str = "refs/xtask/port/stopped";

/// What became of a port.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// All patches are on the branch. These changed nothing, because the tree has them already.
    Complete { unneeded: Vec<String> },
    /// A patch has conflicts in these files.
    Stopped { patch: String, files: Vec<String> },
}

/// Starts a port of the patches of `from` to the base of `to`, in a new tree at `folder`. Calls
/// `begun` when the patches have been merged, up to the first conflict.
pub fn start(
    ws: &Workspace,
    from: &Tree,
    to: &Tree,
    folder: &Path,
    begun: impl FnOnce() -> Result<()>,
) -> Result<Outcome> {
    let empty = fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
    ensure!(empty, "{} exists: export its commits, or remove it", folder.display());
    let (base, last) = (from.base(), from.tip()?);
    apply::create(ws, to, folder, to.base())?;
    let merge = || {
        add_alternate(folder, from.repo())?;
        let repo = Repository::open(folder)?;
        begin(&repo, base, last)?;
        let outcome = proceed(&repo)?;
        begun().map(|()| outcome)
    };
    or_remove(folder, merge())
}

/// Removes the tree of a port that could not be started: the next attempt needs an empty folder.
fn or_remove<T>(folder: &Path, started: Result<T>) -> Result<T> {
    if started.is_err() {
        remove_tree(folder)?;
    }
    started
}

/// Goes on with the port at `folder` after its conflicts have been resolved.
pub fn resume(folder: &Path) -> Result<Outcome> {
    let repo = Repository::open(folder).with_context(|| format!("{}: no port was started", folder.display()))?;
    tip_of(&repo, LAST).with_context(|| format!("{}: no port was started", folder.display()))?;
    finish_patch(&repo)?;
    proceed(&repo)
}

/// Prints what became of a port, and what to do next.
pub fn report(ws: &Workspace, outcome: &Outcome, tree: &Tree, folder: &Path) -> Result<()> {
    let series = series_of(tree).context("a port is for a kernel series")?;
    let (options, tree_dir) = (selection(ws, tree, folder), tree_dir_option(ws, tree, folder));
    let folder = folder.display();
    match outcome {
        Outcome::Complete { unneeded } => {
            for subject in unneeded {
                eprintln!("left out, because the tree has it already: {subject}");
            }
            eprintln!("{folder}: all patches are commits on the branch series");
            eprintln!("now run `cargo xtask patches export {options}`, and then `patches check --series {series}`");
            Ok(())
        }
        Outcome::Stopped { patch, files } => {
            eprintln!("{folder}: \"{patch}\" has conflicts in\n    {}", files.join("\n    "));
            eprintln!("resolve them there (`git status` lists them), run `git add -u`, and then");
            eprintln!("`cargo xtask patches port --continue {series}{tree_dir}`");
            eprintln!("or leave the patch out: `git cherry-pick --skip`, and then the same command");
            bail!("the port of {series} is not complete")
        }
    }
}

/// Fails if a series has patches that a port would replace.
pub fn require_empty(tree: &Tree) -> Result<()> {
    let count = patches::files(tree.patches())?.len();
    ensure!(count == 0, "{} has {count} patches already: move them away", tree.patches().display());
    Ok(())
}

/// Fails if a port has stopped: the branch lacks the patches that come later, and an export would
/// remove their files.
pub fn require_complete(repo: &Repository) -> Result<()> {
    let is_complete = repo.find_reference(LAST).is_err();
    ensure!(is_complete, "the port is not complete: go on with `cargo xtask patches port --continue`");
    Ok(())
}

fn begin(repo: &Repository, base: Oid, last: Oid) -> Result<()> {
    repo.reference(DONE, base, true, "patches port")?;
    repo.reference(LAST, last, true, "patches port")?;
    repo.reference(EXPORTED, tip_of(repo, "refs/heads/base")?, true, "patches port")?;
    Ok(())
}

/// Ends the patch at which the port has stopped: commits it, unless a person has done so.
fn finish_patch(repo: &Repository) -> Result<()> {
    let Ok(stopped) = tip_of(repo, STOPPED) else { return Ok(()) };
    match repo.state() {
        RepositoryState::CherryPick => {
            let mut index = repo.index()?;
            let open = conflicts(&index)?;
            ensure!(open.is_empty(), "these files have conflicts (`git add` them):\n    {}", open.join("\n    "));
            let head = repo.head()?.peel_to_commit()?;
            let tree = repo.find_tree(index.write_tree()?)?;
            let marked = files_with_markers(repo, &head, &tree)?;
            ensure!(marked.is_empty(), "these files have conflict markers:\n    {}", marked.join("\n    "));
            if tree.id() != head.tree_id() {
                let new = commit(repo, &repo.find_commit(stopped)?, &head, &tree)?;
                repo.reference(BRANCH, new, true, "patches port")?;
            }
            repo.cleanup_state()?;
        }
        RepositoryState::Clean => {}
        state => bail!("{}: git is in the state {state:?}; end it first", repo.path().display()),
    }
    repo.reference(DONE, stopped, true, "patches port")?;
    repo.find_reference(STOPPED)?.delete()?;
    Ok(())
}

fn proceed(repo: &Repository) -> Result<Outcome> {
    let on_branch = repo.head().is_ok_and(|head| head.name() == Some(BRANCH));
    ensure!(on_branch, "{}: the branch series is not checked out", repo.path().display());
    ensure!(!has_uncommitted(repo)?, "{} has changes that are not committed", repo.path().display());
    let mut unneeded = Vec::new();
    for oid in super::linear_history(repo, tip_of(repo, DONE)?, tip_of(repo, LAST)?)? {
        crate::process::check()?;
        let (patch, onto) = (repo.find_commit(oid)?, repo.head()?.peel_to_commit()?);
        let mut merged = repo.cherrypick_commit(&patch, &onto, 0, None)?;
        if merged.has_conflicts() {
            return stop(repo, &patch);
        }
        let tree = repo.find_tree(merged.write_tree_to(repo)?)?;
        if tree.id() == onto.tree_id() {
            unneeded.push(subject(&patch));
        } else {
            let new = commit(repo, &patch, &onto, &tree)?;
            // The branch moves last: the files and the index must be those of the new commit.
            repo.checkout_tree(tree.as_object(), Some(CheckoutBuilder::new().force()))?;
            repo.reference(BRANCH, new, true, "patches port")?;
        }
        repo.reference(DONE, oid, true, "patches port")?;
    }
    repo.find_reference(LAST)?.delete()?;
    Ok(Outcome::Complete { unneeded })
}

/// Leaves a patch with conflicts in the files and the index, in the state of `git cherry-pick`.
fn stop(repo: &Repository, patch: &Commit<'_>) -> Result<Outcome> {
    let mut checkout = CheckoutBuilder::new();
    checkout.safe().allow_conflicts(true).conflict_style_diff3(true);
    let mut options = CherrypickOptions::new();
    options.checkout_builder(checkout);
    repo.cherrypick(patch, Some(&mut options)).with_context(|| format!("cannot apply \"{}\"", subject(patch)))?;
    repo.reference(STOPPED, patch.id(), true, "patches port")?;
    Ok(Outcome::Stopped { patch: subject(patch), files: conflicts(&repo.index()?)? })
}

/// The files that have a conflict.
fn conflicts(index: &Index) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for conflict in index.conflicts()? {
        let conflict = conflict?;
        let side = conflict.our.or(conflict.their).or(conflict.ancestor).context("a conflict has no file")?;
        files.push(String::from_utf8_lossy(&side.path).into_owned());
    }
    Ok(files)
}

/// The files that differ between a commit and a tree, and have conflict markers.
fn files_with_markers(repo: &Repository, head: &Commit<'_>, tree: &git2::Tree<'_>) -> Result<Vec<String>> {
    let diff = repo.diff_tree_to_tree(Some(&head.tree()?), Some(tree), None)?;
    let changed = diff.deltas().filter_map(|delta| {
        let blob = repo.find_blob(delta.new_file().id()).ok()?;
        let marked = blob.content().split(|byte| *byte == b'\n').any(|line| line.starts_with(b"<<<<<<< "));
        marked.then(|| delta.new_file().path().unwrap_or(Path::new("?")).display().to_string())
    });
    Ok(changed.collect())
}

/// Makes a commit with the message, the author and the dates of `patch`. The branch `series` does
/// not move.
fn commit(repo: &Repository, patch: &Commit<'_>, parent: &Commit<'_>, tree: &git2::Tree<'_>) -> Result<Oid> {
    let message = patch.message().context("the message is not UTF-8")?;
    Ok(repo.commit(None, &patch.author(), &patch.committer(), message, tree, &[parent])?)
}

fn subject(patch: &Commit<'_>) -> String {
    String::from_utf8_lossy(patch.summary_bytes().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::patches::tests::commit_file;

    const OLD: &str = "int a;\n\nint f(void)\n{\n\treturn 1;\n}\n\nint g(void)\n{\n\treturn 1;\n}\n";

    /// An edit tree at `new`, in which a port of patches, each with the file's content, is begun.
    fn tree(new: &str, patches: &[(&str, &str)]) -> (tempfile::TempDir, Repository) {
        let folder = tempfile::tempdir().unwrap();
        let repo = Repository::init(folder.path()).unwrap();
        let base = commit_file(&repo, None, "old base\n", OLD);
        let last = patches.iter().fold(base, |parent, (message, text)| {
            commit_file(&repo, Some(parent), &format!("{message}\n\nWhy.\n"), text)
        });
        let new = commit_file(&repo, None, "new base\n", new);
        repo.reference("refs/heads/base", new, true, "").unwrap();
        repo.reference(BRANCH, new, true, "").unwrap();
        repo.set_head(BRANCH).unwrap();
        repo.checkout_head(Some(CheckoutBuilder::new().force())).unwrap();
        begin(&repo, base, last).unwrap();
        (folder, repo)
    }

    fn text(folder: &tempfile::TempDir) -> String {
        fs::read_to_string(folder.path().join("net/a.c")).unwrap()
    }

    /// Replaces the file, and says that its conflict is resolved, as `git add` does.
    fn resolve(folder: &tempfile::TempDir, repo: &Repository, text: &str) {
        fs::write(folder.path().join("net/a.c"), text).unwrap();
        let mut index = repo.index().unwrap();
        index.read(true).unwrap();
        index.add_path(Path::new("net/a.c")).unwrap();
        index.write().unwrap();
    }

    fn subjects(repo: &Repository) -> Vec<String> {
        let commits =
            super::super::linear_history(repo, tip_of(repo, "refs/heads/base").unwrap(), tip_of(repo, BRANCH).unwrap());
        commits.unwrap().iter().map(|oid| subject(&repo.find_commit(*oid).unwrap())).collect()
    }

    #[test]
    fn a_port_that_cannot_be_started_leaves_no_tree() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("kernel-6.12");
        fs::create_dir_all(folder.join("net")).unwrap();
        or_remove(&folder, Ok(())).unwrap();
        assert!(folder.exists());
        let error = or_remove::<()>(&folder, Err(anyhow::anyhow!("pins.toml has changed"))).unwrap_err();
        assert_eq!((error.to_string().as_str(), folder.exists()), ("pins.toml has changed", false));
    }

    #[test]
    fn patches_are_merged_where_the_context_has_changed() {
        let patched = OLD.replacen("return 1", "return 2", 1);
        let new = OLD.replace("int a;", "long a;\nlong b;").replace("int g(void)", "int h(void)");
        let (folder, repo) = tree(&new, &[("two", &patched), ("three", &patched.replace("return 2", "return 3"))]);
        assert_eq!(proceed(&repo).unwrap(), Outcome::Complete { unneeded: vec![] });
        assert_eq!(text(&folder), new.replacen("return 1", "return 3", 1));
        assert_eq!(subjects(&repo), ["two", "three"]);
        let head = repo.head().unwrap().peel_to_commit().unwrap();
        assert_eq!(head.author().name().unwrap(), "Åsa Test");
        assert_eq!(head.message().unwrap(), "three\n\nWhy.\n");
        assert!(!has_uncommitted(&repo).unwrap());
    }

    #[test]
    fn a_patch_that_the_tree_has_already_is_left_out() {
        let patched = OLD.replacen("return 1", "return 2", 1);
        let (_folder, repo) = tree(&patched, &[("two", &patched), ("a", &patched.replace("int a", "int b"))]);
        assert_eq!(proceed(&repo).unwrap(), Outcome::Complete { unneeded: vec!["two".into()] });
        assert_eq!(subjects(&repo), ["a"]);
    }

    #[test]
    fn a_conflict_is_left_in_the_file_and_the_port_goes_on_after_it() {
        let patched = OLD.replacen("return 1", "return 2", 1);
        let new = OLD.replacen("return 1", "return f0()", 1);
        let (folder, repo) = tree(&new, &[("two", &patched), ("a", &patched.replace("int a", "int b"))]);
        let stopped = proceed(&repo).unwrap();
        assert_eq!(stopped, Outcome::Stopped { patch: "two".into(), files: vec!["net/a.c".into()] });
        assert_eq!(repo.state(), RepositoryState::CherryPick);
        let shown = text(&folder);
        for part in ["<<<<<<< HEAD\n\treturn f0();\n", "\treturn 1;\n=======\n\treturn 2;\n>>>>>>> "] {
            assert!(shown.contains(part), "{shown}");
        }
        let error = resume(folder.path()).unwrap_err().to_string();
        assert!(error.contains("have conflicts") && error.contains("net/a.c"), "{error}");
        resolve(&folder, &repo, &shown);
        let error = resume(folder.path()).unwrap_err().to_string();
        assert!(error.contains("conflict markers"), "{error}");
        resolve(&folder, &repo, &new.replace("f0()", "f0() + 1"));
        assert_eq!(resume(folder.path()).unwrap(), Outcome::Complete { unneeded: vec![] });
        assert_eq!(text(&folder), new.replace("f0()", "f0() + 1").replace("int a", "int b"));
        assert_eq!(subjects(&repo), ["two", "a"]);
        assert_eq!(repo.state(), RepositoryState::Clean);
        assert!(resume(folder.path()).is_err());
    }

    #[test]
    fn a_patch_may_be_skipped_or_committed_by_hand() {
        let patched = OLD.replacen("return 1", "return 2", 1);
        let new = OLD.replacen("return 1", "return f0()", 1);
        for by_hand in [true, false] {
            let (folder, repo) = tree(&new, &[("two", &patched), ("a", &patched.replace("int a", "int b"))]);
            assert!(matches!(proceed(&repo).unwrap(), Outcome::Stopped { .. }));
            // What `git cherry-pick --skip` does, and then `git commit`.
            let head = repo.head().unwrap().peel_to_commit().unwrap();
            repo.reset(head.as_object(), git2::ResetType::Hard, None).unwrap();
            assert!(require_complete(&repo).unwrap_err().to_string().contains("port --continue"));
            if by_hand {
                let new = commit_file(&repo, Some(head.id()), "zwei\n", &new.replace("f0", "f2"));
                repo.reset(&repo.find_object(new, None).unwrap(), git2::ResetType::Hard, None).unwrap();
            }
            assert_eq!(resume(folder.path()).unwrap(), Outcome::Complete { unneeded: vec![] });
            require_complete(&repo).unwrap();
            assert_eq!(subjects(&repo), if by_hand { &["zwei", "a"][..] } else { &["a"] });
        }
    }
}
