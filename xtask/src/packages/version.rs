// SPDX-License-Identifier: GPL-2.0-only
//! Versions, dates and changelogs of packages. They come from the history of the repository: the
//! same commit gives the same version, and a later commit a higher one.

use std::path::Path;

use anyhow::{Result, ensure};
use git2::{Commit, Repository, Sort, StatusOptions};

/// The inputs of every package: the packages of the build root, and the code that builds. The rest
/// of `xtask/src` decides when something is built, not its content. `Cargo.lock` is not an input:
/// the extension and the module are compiled without crates.
pub(super) const SHARED_INPUTS: [&str; 4] =
    ["xtask/pins.toml", "xtask/src/builds", "xtask/src/packages", "xtask/src/sources"];

/// A package's changelog: one entry for each commit that changed an input, since the package
/// exists. Oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changelog(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// The last part of the version. Debian and GRUB sort `3.dirty` between `3` and `4`. It is also
    /// part of the names of kernels and their packages, which have no `~`.
    /// <https://www.debian.org/doc/debian-policy/ch-controlfields.html#version>
    number: String,
    /// The first line of the commit message.
    summary: String,
    /// The time of the commit, in seconds since 1970 (UTC).
    time: i64,
}

impl Changelog {
    /// Reads the history of the package's folder in `xtask/deb/`, of `inputs`, which are other
    /// files or folders of the repository, and of [`SHARED_INPUTS`]. The package exists since its
    /// folder exists. Adds `test_entries` entries for tests of upgrades.
    ///
    /// # Errors
    /// In a shallow clone, whose count of commits would be too low.
    pub fn from_git(repository: &Path, package: &str, inputs: &[&str], test_entries: usize) -> Result<Self> {
        let repo = Repository::open(repository)?;
        // For a linked worktree, libgit2 does not find the file `shallow` of the main repository.
        let is_shallow = Repository::open(repo.commondir())?.is_shallow();
        ensure!(!is_shallow, "the history is incomplete, run `git fetch --unshallow`");
        let paths = [&[package], inputs, &SHARED_INPUTS].concat();
        let contents = |commit: &Commit<'_>| -> Result<Vec<_>> {
            let tree = commit.tree()?;
            let content = |path: &&str| tree.get_path(Path::new(path)).ok().map(|entry| (entry.id(), entry.filemode()));
            Ok(paths.iter().map(content).collect())
        };
        let mut walk = repo.revwalk()?;
        walk.set_sorting(Sort::TOPOLOGICAL | Sort::REVERSE)?;
        walk.push_head()?;
        let mut changelog = Self::default();
        for oid in walk {
            let commit = repo.find_commit(oid?)?;
            let after = contents(&commit)?;
            let before = commit.parents().next().map(|parent| contents(&parent)).transpose()?;
            if after[0].is_some() && before != Some(after) {
                let summary = String::from_utf8_lossy(commit.summary_bytes().unwrap_or_default());
                changelog.add(&summary, commit.time().seconds());
            }
        }
        let is_dirty = is_dirty(&repo, &paths)?;
        ensure!(is_dirty || !changelog.0.is_empty(), "no commit contains {package}");
        (0..test_entries).for_each(|_| changelog.add("No change: an entry for tests of upgrades.", 0));
        if is_dirty {
            changelog.add_dirty(repo.head()?.peel_to_commit()?.time().seconds());
        }
        Ok(changelog)
    }

    fn add(&mut self, summary: &str, time: i64) {
        self.push((self.0.len() + 1).to_string(), summary, time);
    }

    /// Adds an entry that does not use up a number.
    fn add_dirty(&mut self, time: i64) {
        self.push(format!("{}.dirty", self.0.len()), "Changes that are not committed.", time);
    }

    fn push(&mut self, number: String, summary: &str, time: i64) {
        // The dates of a changelog must increase, but commits can have the same time.
        let time = time.max(self.time() + 1);
        self.0.push(Entry { number, summary: summary.to_owned(), time });
    }

    /// The last part of the version.
    pub fn number(&self) -> &str {
        self.0.last().map_or("", |entry| &entry.number)
    }

    /// The time of the last entry, in seconds since 1970 (UTC).
    fn time(&self) -> i64 {
        self.0.last().map_or(0, |entry| entry.time)
    }

    /// The content of `debian/changelog`; `prefix` is the version without its last part. The dates
    /// have the format of RFC 5322: <https://www.rfc-editor.org/rfc/rfc5322#section-3.3>.
    /// <https://www.debian.org/doc/debian-policy/ch-source.html#debian-changelog-debian-changelog>
    pub fn text(&self, name: &str, prefix: &str, suite: &str, maintainer: &str) -> String {
        let entries = self.0.iter().rev().map(|Entry { number, summary, time }| {
            let date = jiff::Timestamp::from_second(*time).unwrap_or_default().strftime("%a, %d %b %Y %H:%M:%S +0000");
            format!("{name} ({prefix}{number}) {suite}; urgency=medium\n\n  * {summary}\n\n -- {maintainer}  {date}\n")
        });
        entries.collect::<Vec<_>>().join("\n")
    }
}

/// Whether a file in `paths` differs from the last commit. Without paths: whether any file differs.
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
    use fs_err as fs;
    use git2::{Signature, Time};

    use super::*;

    struct History {
        folder: tempfile::TempDir,
        repo: Repository,
    }

    impl History {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let repo = Repository::init(folder.path().join("repo")).unwrap();
            Self { folder, repo }
        }

        fn write(&self, path: &str, content: &str) {
            let file = self.folder.path().join("repo").join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }

        /// Commits a file.
        fn commit(&self, seconds: i64, path: &str, content: &str) {
            self.write(path, content);
            let mut index = self.repo.index().unwrap();
            index.add_all(["*"], git2::IndexAddOption::DEFAULT, None).unwrap();
            index.write().unwrap();
            let tree = self.repo.find_tree(index.write_tree().unwrap()).unwrap();
            let who = Signature::new("a", "a@b", &Time::new(seconds, 0)).unwrap();
            let parent = self.repo.head().ok().map(|head| head.peel_to_commit().unwrap());
            let parents: Vec<_> = parent.iter().collect();
            self.repo.commit(Some("HEAD"), &who, &who, "change", &tree, &parents).unwrap();
        }

        fn read(&self, folder: &str, test_entries: usize) -> Result<Changelog> {
            Changelog::from_git(&self.folder.path().join(folder), "deb/thing", &["source"], test_entries)
        }

        /// The number and the time.
        fn revision(&self) -> (String, i64) {
            let changelog = self.read("repo", 0).unwrap();
            (changelog.number().to_owned(), changelog.time())
        }
    }

    #[test]
    fn commits_that_touch_an_input_count() {
        let history = History::new();
        history.commit(10, "source/a", "before the package existed");
        for (time, path, number, last) in [
            (20, "deb/thing/control", "1", 20),
            (30, "elsewhere", "1", 20),
            (40, "source/a", "2", 40),
            (50, "xtask/src/packages/source.rs", "3", 50),
            (60, "xtask/src/commands/deb.rs", "3", 50),
            (70, "xtask/pins.toml", "4", 70),
        ] {
            history.commit(time, path, "new");
            assert_eq!(history.revision(), (number.to_owned(), last), "{path}");
        }
        let later = history.read("repo", 1).unwrap();
        assert_eq!((later.number(), later.time()), ("5", 71));
    }

    #[test]
    fn uncommitted_changes_sort_before_the_next_commit() {
        let history = History::new();
        history.commit(10, "elsewhere", "1");
        let error = history.read("repo", 0).unwrap_err().to_string();
        assert_eq!(error, "no commit contains deb/thing");
        history.write("deb/thing/control", "1");
        assert_eq!(history.revision(), ("0.dirty".to_owned(), 10));
        history.commit(20, "deb/thing/control", "1");
        history.write("xtask/src/packages/new.rs", "1");
        assert_eq!(history.revision(), ("1.dirty".to_owned(), 21));
        assert_eq!(history.read("repo", 1).unwrap().number(), "2.dirty");
    }

    #[test]
    fn a_shallow_clone_is_refused() {
        let history = History::new();
        history.commit(10, "deb/thing/control", "1");
        history.repo.worktree("linked", &history.folder.path().join("linked"), None).unwrap();
        for folder in ["repo", "linked"] {
            assert_eq!(history.read(folder, 0).unwrap().number(), "1");
        }
        let head = history.repo.head().unwrap().target().unwrap();
        fs::write(history.repo.path().join("shallow"), format!("{head}\n")).unwrap();
        for folder in ["repo", "linked"] {
            let error = history.read(folder, 0).unwrap_err().to_string();
            assert_eq!(error, "the history is incomplete, run `git fetch --unshallow`", "{folder}");
        }
    }

    #[test]
    fn the_changelog_has_one_entry_per_commit_newest_first() {
        let history = History::new();
        for (seconds, text) in [(1_767_225_600, "1"), (1_767_225_601, "2")] {
            history.commit(seconds, "deb/thing/control", text);
        }
        assert_eq!(
            history.read("repo", 0).unwrap().text("thing", "1.0-", "trixie", "A <a@b>"),
            "thing (1.0-2) trixie; urgency=medium\n\n  * change\n\n -- A <a@b>  Thu, 01 Jan 2026 00:00:01 +0000\n\n\
             thing (1.0-1) trixie; urgency=medium\n\n  * change\n\n -- A <a@b>  Thu, 01 Jan 2026 00:00:00 +0000\n"
        );
    }
}
