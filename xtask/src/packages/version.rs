// SPDX-License-Identifier: GPL-2.0-only
//! Version numbers and dates of packages: from the pins and the history of the repository, so that the same
//! commit always gives the same package, and a later one a higher version.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use git2::{Commit, DiffOptions, Repository, Sort, StatusOptions};

use crate::workspace::Workspace;

/// What has become of a package: a number for each change, of which the last stands behind the last dash of
/// its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The changes, first to last.
    changes: Vec<Change>,
    /// Whether the last one is not committed yet.
    dirty: bool,
}

/// A commit that changed what a package is made of, since there has been a package.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    /// Its first line.
    summary: String,
    /// When it was committed, in seconds since 1970 (UTC).
    time: i64,
}

impl Revision {
    /// The revision of what lies in `paths` (files or folders of the repository), the first of which is
    /// the folder that makes a package of it.
    pub fn of(ws: &Workspace, paths: &[&str]) -> Result<Self> {
        Self::read(ws.repo(), paths).context("cannot read the history of the repository")
    }

    fn read(folder: &Path, paths: &[&str]) -> Result<Self> {
        let repo = Repository::open(folder)?;
        let mut walk = repo.revwalk()?;
        walk.set_sorting(Sort::TOPOLOGICAL | Sort::REVERSE)?;
        walk.push_head()?;
        let mut revision = Self { changes: Vec::new(), dirty: is_dirty(&repo, paths)? };
        for oid in walk {
            let commit = repo.find_commit(oid?)?;
            if commit.tree()?.get_path(Path::new(paths[0])).is_ok() && touches(&repo, &commit, paths)? {
                revision.add(&String::from_utf8_lossy(commit.summary_bytes().unwrap_or_default()), &commit);
            }
        }
        if revision.dirty {
            revision.add("Not committed yet.", &repo.head()?.peel_to_commit()?);
        }
        ensure!(!revision.changes.is_empty(), "no commit has {}", paths[0]);
        Ok(revision)
    }

    fn add(&mut self, summary: &str, commit: &Commit<'_>) {
        // Commits that were made in one go have one time; changelogs want a later one for each entry.
        let time = commit.time().seconds().max(self.time() + 1);
        self.changes.push(Change { summary: summary.to_owned(), time });
    }

    /// The revision `steps` changes from now.
    #[must_use]
    pub fn after(mut self, steps: usize) -> Self {
        for _ in 0..steps {
            let summary = "Nothing; this is for tests of upgrades.".into();
            self.changes.push(Change { summary, time: self.time() + 1 });
        }
        self
    }

    /// The number, as it stands in versions. What is not committed sorts between the last commit and the next.
    pub fn number(&self) -> String {
        self.number_of(self.changes.len())
    }

    fn number_of(&self, count: usize) -> String {
        let dirty = if self.dirty && count == self.changes.len() { "~dirty" } else { "" };
        format!("{count}{dirty}")
    }

    /// The time of the last change, in seconds since 1970 (UTC).
    fn time(&self) -> i64 {
        self.changes.last().map_or(0, |change| change.time)
    }

    /// Debian's changelog, with an entry for each change. `base` is what stands before the number in a version.
    pub fn changelog(&self, name: &str, base: &str, suite: &str, maintainer: &str) -> String {
        let entries = self.changes.iter().enumerate().rev().map(|(index, change)| {
            let number = self.number_of(index + 1);
            let Change { summary, .. } = change;
            let date = change.date();
            format!("{name} ({base}{number}) {suite}; urgency=medium\n\n  * {summary}\n\n -- {maintainer}  {date}\n")
        });
        entries.collect::<Vec<_>>().join("\n")
    }
}

impl Change {
    /// The time as changelogs have it (RFC 5322).
    fn date(&self) -> String {
        let time = jiff::Timestamp::from_second(self.time).unwrap_or_default();
        time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
    }
}

/// Whether a commit changed something in `paths`, compared with its first parent.
fn touches(repo: &Repository, commit: &Commit<'_>, paths: &[&str]) -> Result<bool> {
    let parent = match commit.parents().next() {
        Some(parent) => Some(parent.tree()?),
        None => None,
    };
    let mut options = DiffOptions::new();
    for path in paths {
        options.pathspec(path);
    }
    let diff = repo.diff_tree_to_tree(parent.as_ref(), Some(&commit.tree()?), Some(&mut options))?;
    Ok(diff.deltas().len() > 0)
}

/// Does any of `paths` differ from what is committed, or, without any, anything at all?
pub fn is_dirty(repo: &Repository, paths: &[&str]) -> Result<bool> {
    let mut options = StatusOptions::new();
    options.include_untracked(true).recurse_untracked_dirs(true);
    for path in paths {
        options.pathspec(path);
    }
    Ok(!repo.statuses(Some(&mut options))?.is_empty())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use git2::{Signature, Time};

    use super::*;

    const PATHS: [&str; 2] = ["deb/thing", "source"];

    struct History {
        folder: tempfile::TempDir,
        repo: Repository,
    }

    impl History {
        fn begin() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let repo = Repository::init(folder.path()).unwrap();
            Self { folder, repo }
        }

        fn write(&self, path: &str, content: &str) {
            let file: PathBuf = self.folder.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }

        fn commit(&self, seconds: i64) {
            let mut index = self.repo.index().unwrap();
            index.add_all(["*"], git2::IndexAddOption::DEFAULT, None).unwrap();
            index.write().unwrap();
            let tree = self.repo.find_tree(index.write_tree().unwrap()).unwrap();
            let who = Signature::new("a", "a@b", &Time::new(seconds, 0)).unwrap();
            let parent = self.repo.head().ok().map(|head| head.peel_to_commit().unwrap());
            let parents: Vec<_> = parent.iter().collect();
            self.repo.commit(Some("HEAD"), &who, &who, "change", &tree, &parents).unwrap();
        }

        fn revision(&self) -> Revision {
            Revision::read(self.folder.path(), &PATHS).unwrap()
        }
    }

    #[test]
    fn only_what_changed_the_package_counts() {
        let history = History::begin();
        history.write("source/a", "before there was a package");
        history.commit(10);
        history.write("deb/thing/control", "1");
        history.commit(20);
        assert_eq!((history.revision().number().as_str(), history.revision().time()), ("1", 20));
        history.write("elsewhere", "1");
        history.commit(30);
        assert_eq!((history.revision().number().as_str(), history.revision().time()), ("1", 20));
        history.write("source/a", "2");
        history.commit(40);
        assert_eq!((history.revision().number().as_str(), history.revision().time()), ("2", 40));
        assert_eq!(history.revision().after(1).number(), "3");
    }

    #[test]
    fn what_is_not_committed_sorts_before_the_next_commit() {
        let history = History::begin();
        history.write("elsewhere", "1");
        history.commit(10);
        assert!(Revision::read(history.folder.path(), &PATHS).is_err());
        history.write("deb/thing/control", "1");
        let revision = history.revision();
        assert_eq!((revision.number().as_str(), revision.time()), ("1~dirty", 10));
    }

    #[test]
    fn the_changelog_has_all_changes_last_first() {
        let history = History::begin();
        for (seconds, text) in [(1_767_225_600, "1"), (1_767_225_601, "2")] {
            history.write("deb/thing/control", text);
            history.commit(seconds);
        }
        assert_eq!(
            history.revision().changelog("thing", "1.0-", "trixie", "A <a@b>"),
            "thing (1.0-2) trixie; urgency=medium\n\n  * change\n\n -- A <a@b>  Thu, 01 Jan 2026 00:00:01 +0000\n\n\
             thing (1.0-1) trixie; urgency=medium\n\n  * change\n\n -- A <a@b>  Thu, 01 Jan 2026 00:00:00 +0000\n"
        );
    }
}
