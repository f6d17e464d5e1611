// SPDX-License-Identifier: GPL-2.0-only
//! Versions, dates and changelogs of packages. They come from the history of the repository: the
//! same commit gives the same version, and a later commit a higher one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use git2::{Commit, Oid, Repository, Sort, StatusOptions};

/// The inputs of every package: the packages of the build root, and the code that builds. The rest
/// of `xtask/src` decides when something is built, not its content. `Cargo.lock` is not an input:
/// the extension and the module are compiled without crates.
pub(super) const SHARED_INPUTS: [&str; 4] =
    ["xtask/pins.toml", "xtask/src/builds", "xtask/src/packages", "xtask/src/sources"];

/// The commit that is checked out, with its history, and the files that differ from it.
///
/// A run reads this once. If it read it for each package, and someone committed meanwhile, the
/// kernel's release and the versions of the packages would not have the same number.
#[derive(Clone, Debug)]
pub struct History {
    repository: PathBuf,
    head: Oid,
    /// The files that differ from the commit, relative to the repository.
    changed: Vec<PathBuf>,
}

impl History {
    /// Reads the present state of a repository.
    ///
    /// # Errors
    /// When it has no commit, or is not a git repository.
    pub fn read(repository: &Path) -> Result<Self> {
        let repo = Repository::open(repository)?;
        let head = repo.head()?.peel_to_commit()?.id();
        let mut options = StatusOptions::new();
        options.include_untracked(true).recurse_untracked_dirs(true);
        let statuses = repo.statuses(Some(&mut options))?;
        let changed = statuses.iter().map(|entry| OsStr::from_bytes(entry.path_bytes()).into()).collect();
        Ok(Self { repository: repository.to_owned(), head, changed })
    }

    /// The commit, followed by `+` if a file differs from it.
    pub fn commit(&self) -> String {
        format!("{}{}", self.head, if self.changed.is_empty() { "" } else { "+" })
    }

    /// The changelog of a package: the history of its folder in `xtask/deb/`, of `inputs`, which
    /// are other files or folders of the repository, and of [`SHARED_INPUTS`]. The package exists
    /// since its folder exists. Adds `test_entries` entries for tests of upgrades.
    ///
    /// # Errors
    /// In a shallow clone, whose count of commits would be too low.
    pub fn changelog(&self, package: &str, inputs: &[&str], test_entries: usize) -> Result<Changelog> {
        let repo = Repository::open(&self.repository)?;
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
        walk.push(self.head)?;
        let mut changelog = Changelog::default();
        for oid in walk {
            let commit = repo.find_commit(oid?)?;
            let after = contents(&commit)?;
            let before = commit.parents().next().map(|parent| contents(&parent)).transpose()?;
            if after[0].is_some() && before != Some(after) {
                let summary = String::from_utf8_lossy(commit.summary_bytes().unwrap_or_default());
                changelog.add(&summary, commit.time().seconds());
            }
        }
        let is_dirty = self.changed.iter().any(|file| paths.iter().any(|path| file.starts_with(path)));
        ensure!(is_dirty || !changelog.0.is_empty(), "no commit contains {package}");
        (0..test_entries).for_each(|_| changelog.add("No change: an entry for tests of upgrades.", 0));
        if is_dirty {
            changelog.add_dirty(repo.find_commit(self.head)?.time().seconds());
        }
        Ok(changelog)
    }
}

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

#[cfg(test)]
mod tests {
    use fs_err as fs;
    use git2::{Signature, Time};

    use super::*;

    struct TestRepository {
        folder: tempfile::TempDir,
        repo: Repository,
    }

    impl TestRepository {
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

        fn history(&self, folder: &str) -> Result<History> {
            History::read(&self.folder.path().join(folder))
        }

        fn read(&self, folder: &str, test_entries: usize) -> Result<Changelog> {
            self.history(folder)?.changelog("deb/thing", &["source"], test_entries)
        }

        /// The number and the time.
        fn revision(&self) -> (String, i64) {
            let changelog = self.read("repo", 0).unwrap();
            (changelog.number().to_owned(), changelog.time())
        }
    }

    #[test]
    fn commits_that_touch_an_input_count() {
        let repository = TestRepository::new();
        repository.commit(10, "source/a", "before the package existed");
        for (time, path, number, last) in [
            (20, "deb/thing/control", "1", 20),
            (30, "elsewhere", "1", 20),
            (40, "source/a", "2", 40),
            (50, "xtask/src/packages/source.rs", "3", 50),
            (60, "xtask/src/commands/deb.rs", "3", 50),
            (70, "xtask/pins.toml", "4", 70),
        ] {
            repository.commit(time, path, "new");
            assert_eq!(repository.revision(), (number.to_owned(), last), "{path}");
        }
        let later = repository.read("repo", 1).unwrap();
        assert_eq!((later.number(), later.time()), ("5", 71));
    }

    #[test]
    fn uncommitted_changes_sort_before_the_next_commit() {
        let repository = TestRepository::new();
        repository.commit(10, "elsewhere", "1");
        let error = repository.read("repo", 0).unwrap_err().to_string();
        assert_eq!(error, "no commit contains deb/thing");
        repository.write("deb/thing/control", "1");
        assert_eq!(repository.revision(), ("0.dirty".to_owned(), 10));
        repository.commit(20, "deb/thing/control", "1");
        repository.write("xtask/src/packages/new.rs", "1");
        assert_eq!(repository.revision(), ("1.dirty".to_owned(), 21));
        assert_eq!(repository.read("repo", 1).unwrap().number(), "2.dirty");
    }

    #[test]
    fn changes_during_a_run_do_not_change_its_versions() {
        let repository = TestRepository::new();
        repository.commit(10, "deb/thing/control", "1");
        let clean = repository.history("repo").unwrap();
        repository.write("source/a", "2");
        let dirty = repository.history("repo").unwrap();
        repository.commit(20, "source/a", "3");
        repository.write("source/a", "4");
        let state = |history: &History| {
            let changelog = history.changelog("deb/thing", &["source"], 0).unwrap();
            (changelog.number().to_owned(), history.commit())
        };
        let later = repository.history("repo").unwrap();
        let (first, second) = (clean.head, later.head);
        assert_ne!(first, second);
        assert_eq!(state(&clean), ("1".to_owned(), first.to_string()));
        assert_eq!(state(&dirty), ("1.dirty".to_owned(), format!("{first}+")));
        assert_eq!(state(&later), ("2.dirty".to_owned(), format!("{second}+")));
    }

    #[test]
    fn a_shallow_clone_is_refused() {
        let repository = TestRepository::new();
        repository.commit(10, "deb/thing/control", "1");
        repository.repo.worktree("linked", &repository.folder.path().join("linked"), None).unwrap();
        for folder in ["repo", "linked"] {
            assert_eq!(repository.read(folder, 0).unwrap().number(), "1");
        }
        let head = repository.repo.head().unwrap().target().unwrap();
        fs::write(repository.repo.path().join("shallow"), format!("{head}\n")).unwrap();
        for folder in ["repo", "linked"] {
            let error = repository.read(folder, 0).unwrap_err().to_string();
            assert_eq!(error, "the history is incomplete, run `git fetch --unshallow`", "{folder}");
        }
    }

    #[test]
    fn the_changelog_has_one_entry_per_commit_newest_first() {
        let repository = TestRepository::new();
        for (seconds, text) in [(1_767_225_600, "1"), (1_767_225_601, "2")] {
            repository.commit(seconds, "deb/thing/control", text);
        }
        assert_eq!(
            repository.read("repo", 0).unwrap().text("thing", "1.0-", "trixie", "A <a@b>"),
            "thing (1.0-2) trixie; urgency=medium\n\n  * change\n\n -- A <a@b>  Thu, 01 Jan 2026 00:00:01 +0000\n\n\
             thing (1.0-1) trixie; urgency=medium\n\n  * change\n\n -- A <a@b>  Thu, 01 Jan 2026 00:00:00 +0000\n"
        );
    }
}
