// SPDX-License-Identifier: GPL-2.0-only
//! Patch files, numbered mails as `git format-patch` writes them, and the commits made of them.
//!
//! The committer of such a commit is the author, with the author's date. So the same patches on the
//! same base always give the same commit.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use git2::{ApplyOptions, Diff, Oid, Repository, Signature, Time};
use jiff::fmt::rfc2822::DateTimeParser;
use mailparse::MailHeaderMap;

use super::offsets::relocate;
use crate::workspace::{file_name, list};

/// One patch.
pub struct Patch {
    /// The file that it was read from.
    pub file: PathBuf,
    author: Signature<'static>,
    message: String,
    diff: Vec<u8>,
}

/// The letter that introduces the patches, with the number that `git format-patch` gives it. It has
/// no diff.
const COVER_LETTER: &str = "0000-cover-letter.patch";

/// The patch files in a folder, in order, without the cover letter; none if the folder does not
/// exist.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut files = list(folder)?;
    files.retain(|path| {
        path.extension().is_some_and(|extension| extension == "patch") && file_name(path) != COVER_LETTER
    });
    Ok(files)
}

/// A patch file without the number in its subject, `1/22`. The second number changes with each
/// patch that is added to the series, and the name of the file has the first.
pub fn without_number(content: String) -> String {
    const SUBJECT: &str = "\nSubject: [PATCH";
    let parts = content.split_once(SUBJECT).and_then(|(head, rest)| Some((head, rest.split_once(']')?.1)));
    parts.map(|(head, rest)| format!("{head}{SUBJECT}]{rest}")).unwrap_or(content)
}

impl Patch {
    /// Reads a patch file.
    pub fn read(file: &Path) -> Result<Self> {
        Self::parse(file, &fs::read(file)?).with_context(|| format!("{} is not a patch", file.display()))
    }

    fn parse(file: &Path, bytes: &[u8]) -> Result<Self> {
        let mail = match bytes.strip_prefix(b"From ") {
            // The first line separates mails in an mbox (RFC 4155) and is not part of the mail.
            Some(_) => bytes.splitn(2, |b| *b == b'\n').nth(1).unwrap_or_default(),
            None => bytes,
        };
        let mail = mailparse::parse_mail(mail)?;
        let header = |name: &str| mail.headers.get_first_value(name).with_context(|| format!("it has no {name}: line"));
        let from = header("From")?;
        // RFC 5322, section 3.4: Name <address>, perhaps with quotes around the name.
        let address = from.trim_end().strip_suffix('>').and_then(|from| from.rsplit_once('<'));
        let (name, email) = address.with_context(|| format!("From: has no address: {from}"))?;
        let date = header("Date")?;
        // The day of the week may be wrong.
        let parser = DateTimeParser::new().relaxed_weekday(true);
        let date = parser.parse_zoned(&date).with_context(|| format!("bad Date: {date}"))?;
        let time = Time::new(date.timestamp().as_second(), date.offset().seconds() / 60);
        let author = Signature::new(name.trim().trim_matches('"'), email, &time)?;
        let body = mail.get_body_raw()?;
        let (text, diff) = split_body(&body)?;
        let subject = header("Subject")?;
        let mut message = without_prefix(&subject).to_owned();
        if !text.is_empty() {
            message.push_str("\n\n");
            message.push_str(text);
        }
        message.push('\n');
        Ok(Self { file: file.to_owned(), author, message, diff: diff.to_owned() })
    }

    /// The file's name.
    pub fn name(&self) -> String {
        file_name(&self.file)
    }

    /// The commit message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The diff.
    pub fn diff(&self) -> &[u8] {
        &self.diff
    }

    /// Applies the patch to the commit `parent` and returns the new commit. The text may be at
    /// other lines than the patch says.
    pub fn apply(&self, repo: &Repository, parent: Oid) -> Result<Oid> {
        let parent = repo.find_commit(parent).context("the parent commit is missing")?;
        let before = parent.tree()?;
        let content = |path: &str| {
            let file = before.get_path(Path::new(path)).ok()?;
            Some(repo.find_blob(file.id()).ok()?.content().to_vec())
        };
        let diff = relocate(&self.diff, content);
        let diff = Diff::from_buffer(&diff).with_context(|| format!("{} has no diff", self.name()))?;
        let current = RefCell::new(String::new());
        let mut options = ApplyOptions::new();
        options.delta_callback(|delta| {
            let path = delta.and_then(|d| d.old_file().path().or(d.new_file().path()));
            *current.borrow_mut() = path.unwrap_or(Path::new("?")).display().to_string();
            true
        });
        let applied = repo.apply_to_tree(&before, &diff, Some(&mut options));
        drop(options);
        let mut index = match applied {
            Ok(index) => index,
            Err(error) => bail!("{} does not apply: {}: {}", self.name(), current.into_inner(), error.message()),
        };
        let tree = repo.find_tree(index.write_tree_to(repo)?)?;
        ensure!(tree.id() != parent.tree_id(), "{} changes nothing", self.name());
        Ok(repo.commit(None, &self.author, &self.author, &self.message, &tree, &[&parent])?)
    }
}

/// The subject without `[PATCH ...]`.
fn without_prefix(subject: &str) -> &str {
    let mut rest = subject.trim();
    while let Some((tag, after)) = rest.strip_prefix('[').and_then(|text| text.split_once(']')) {
        if !tag.contains("PATCH") {
            break;
        }
        rest = after.trim_start();
    }
    rest
}

/// The body of the commit message and the diff; the diffstat between them is dropped.
fn split_body(body: &[u8]) -> Result<(&str, &[u8])> {
    let find = |needle: &[u8], from: usize| {
        body[from..].windows(needle.len()).position(|window| window == needle).map(|at| from + at)
    };
    let end = if body.starts_with(b"---\n") { 0 } else { find(b"\n---\n", 0).context("it has no --- line")? + 1 };
    let start = find(b"\ndiff --git ", end).context("it has no diff")? + 1;
    let text = std::str::from_utf8(&body[..end]).context("its message is not UTF-8")?;
    Ok((text.trim_matches('\n').trim_end(), &body[start..]))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    const MAIL: &str = "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\n\
        From: =?UTF-8?q?J=C3=B6rg=20Test?= <j@example.org>\n\
        Date: Mon, 23 Nov 2026 16:20:00 +0530\n\
        Subject: [PATCH] netfilter: a subject that is so long that it had to be\n folded\n\
        \n\
        Why.\n\nMore why.\n\nSigned-off-by: J <j@example.org>\n---\n net/a.c | 2 +-\n 1 file changed\n\n\
        diff --git a/net/a.c b/net/a.c\nindex 1234567..89abcde 100644\n--- a/net/a.c\n+++ b/net/a.c\n\
        @@ -1,3 +1,3 @@ x\n one\n-two\n+2\n three\n";

    /// Commits the file `net/a.c` with the content `text`, on top of `parent`.
    pub fn commit_file(repo: &Repository, parent: Option<Oid>, message: &str, text: &str) -> Oid {
        let mut folder = repo.treebuilder(None).unwrap();
        folder.insert("a.c", repo.blob(text.as_bytes()).unwrap(), 0o100_644).unwrap();
        let mut tree = repo.treebuilder(None).unwrap();
        tree.insert("net", folder.write().unwrap(), 0o040_000).unwrap();
        let tree = repo.find_tree(tree.write().unwrap()).unwrap();
        let who = Signature::new("Åsa Test", "asa@example.org", &Time::new(1_800_000_000, 60)).unwrap();
        let parent = parent.map(|oid| repo.find_commit(oid).unwrap());
        repo.commit(None, &who, &who, message, &tree, parent.as_ref().as_slice()).unwrap()
    }

    #[test]
    fn the_number_of_patches_is_no_part_of_a_patch() {
        let numbered = |number: &str| MAIL.replace("[PATCH]", number);
        assert_eq!(without_number(numbered("[PATCH 07/22]")), MAIL);
        assert_eq!(without_number(MAIL.to_owned()), MAIL);
        assert_eq!(without_number("not a mail".to_owned()), "not a mail");
    }

    fn repository() -> (tempfile::TempDir, Repository, Oid) {
        let folder = tempfile::tempdir().unwrap();
        let repo = Repository::init_bare(folder.path()).unwrap();
        let base = commit_file(&repo, None, "base\n", "one\ntwo\nthree\n");
        (folder, repo, base)
    }

    fn patch(text: &str) -> Result<Patch> {
        Patch::parse(Path::new("0001-x.patch"), text.as_bytes())
    }

    #[test]
    fn a_mail_becomes_a_commit() {
        let (_folder, repo, base) = repository();
        let patch = patch(MAIL).unwrap();
        let commit = repo.find_commit(patch.apply(&repo, base).unwrap()).unwrap();
        assert_eq!(
            commit.message().unwrap(),
            "netfilter: a subject that is so long that it had to be folded\n\n\
             Why.\n\nMore why.\n\nSigned-off-by: J <j@example.org>\n"
        );
        assert_eq!(commit.author().name().unwrap(), "Jörg Test");
        assert_eq!(commit.author().when().offset_minutes(), 330);
        assert_eq!(commit.committer().when(), commit.author().when());
        let entry = commit.tree().unwrap().get_path(Path::new("net/a.c")).unwrap().id();
        assert_eq!(repo.find_blob(entry).unwrap().content(), b"one\n2\nthree\n");
        assert_eq!(patch.apply(&repo, base).unwrap(), commit.id());
    }

    #[test]
    fn the_cover_letter_is_not_a_patch() {
        let folder = tempfile::tempdir().unwrap();
        for name in [COVER_LETTER, "0001-x.patch", "0002-y.patch", "checked"] {
            fs::write(folder.path().join(name), MAIL).unwrap();
        }
        let names: Vec<_> = files(folder.path()).unwrap().iter().map(|file| file_name(file)).collect();
        assert_eq!(names, ["0001-x.patch", "0002-y.patch"]);
    }

    #[test]
    fn the_day_of_the_week_may_be_wrong() {
        let [right, wrong] = ["Mon", "Tue"].map(|day| patch(&MAIL.replace("Date: Mon", &format!("Date: {day}"))));
        assert_eq!(right.unwrap().author.when(), wrong.unwrap().author.when());
    }

    #[test]
    fn the_text_may_be_at_other_lines() {
        let (_folder, repo, base) = repository();
        let shifted = commit_file(&repo, Some(base), "more\n", "zero\nzero\none\ntwo\nthree\n");
        let commit = repo.find_commit(patch(MAIL).unwrap().apply(&repo, shifted).unwrap()).unwrap();
        let entry = commit.tree().unwrap().get_path(Path::new("net/a.c")).unwrap().id();
        assert_eq!(repo.find_blob(entry).unwrap().content(), b"zero\nzero\none\n2\nthree\n");
    }

    #[test]
    fn a_patch_that_does_not_apply_names_itself_and_the_file() {
        let (_folder, repo, base) = repository();
        let wrong = patch(&MAIL.replace("-two", "-zwei")).unwrap();
        let error = wrong.apply(&repo, base).unwrap_err().to_string();
        assert!(error.contains("0001-x.patch does not apply: net/a.c: hunk"), "{error}");
        let missing = patch(&MAIL.replace("net/a.c", "net/b.c")).unwrap();
        let error = missing.apply(&repo, base).unwrap_err().to_string();
        assert!(error.contains("0001-x.patch does not apply: net/b.c: "), "{error}");
    }

    #[test]
    fn an_invalid_patch_is_refused_with_the_reason() {
        for (from, to, reason) in [
            ("Subject:", "Object:", "no Subject: line"),
            ("<j@", "j@", "no address"),
            ("\n---\n", "\n", "no --- line"),
            ("diff --git", "diff --cvs", "no diff"),
            ("+0530", "", "bad "),
        ] {
            let error = format!("{:#}", patch(&MAIL.replace(from, to)).err().unwrap());
            assert!(error.contains(reason), "{from}: {error}");
        }
    }

    #[test]
    fn other_tags_stay_in_the_subject() {
        assert_eq!(without_prefix("[PATCH net-next v2 3/9] net: x"), "net: x");
        assert_eq!(without_prefix("[PATCH] [x86] y"), "[x86] y");
    }
}
