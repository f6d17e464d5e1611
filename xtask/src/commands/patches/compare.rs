// SPDX-License-Identifier: GPL-2.0-only
//! `patches compare`: the difference of two series. Context lines and line numbers do not count,
//! since they belong to the trees and not to the series. `git range-diff` compares them too.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use git2::{Delta, Diff, DiffOptions};

use crate::sources::patches::{self, Patch};
use crate::workspace::Workspace;

/// Prints the difference of two series, or of two folders with patches.
pub fn run(ws: &Workspace, first: &str, second: &str) -> Result<()> {
    let [a, b] = [first, second].map(|name| Series::read(name, &folder(ws, name)));
    print!("{}", Comparison { a: &a?, b: &b? });
    Ok(())
}

/// The folder that a name means: that of a series, or a folder's path.
fn folder(ws: &Workspace, name: &str) -> PathBuf {
    let series = ws.repo().join("kernel-patches").join(name);
    if series.is_dir() { series } else { PathBuf::from(name) }
}

struct Series {
    name: String,
    patches: Vec<Change>,
}

/// What a patch says and does.
#[derive(Clone, Debug, Default, PartialEq)]
struct Change {
    subject: String,
    body: String,
    /// The lines that are removed and added, each with its sign, by file.
    files: BTreeMap<String, String>,
}

impl Series {
    fn read(name: &str, folder: &Path) -> Result<Self> {
        let files = patches::files(folder)?;
        ensure!(!files.is_empty(), "{} has no patches", folder.display());
        let patches = files.iter().map(|file| Change::of(&Patch::read(file)?)).collect::<Result<_>>()?;
        Ok(Self { name: name.to_owned(), patches })
    }
}

impl Change {
    fn of(patch: &Patch) -> Result<Self> {
        let (subject, body) = patch.message().split_once('\n').unwrap_or((patch.message(), ""));
        let files = changed_lines(patch.diff()).with_context(|| format!("cannot read {}", patch.name()))?;
        Ok(Self { subject: subject.to_owned(), body: body.trim_start_matches('\n').to_owned(), files })
    }

    /// How many of the changed lines two patches have in common, in hundredths.
    fn similarity(&self, other: &Self) -> usize {
        let lines = |change: &Self| -> Vec<(String, String)> {
            let of = |(file, text): (&String, &String)| {
                text.lines().map(|line| (file.clone(), line.to_owned())).collect::<Vec<_>>()
            };
            change.files.iter().flat_map(of).collect()
        };
        let (a, mut b) = (lines(self), lines(other));
        let longest = a.len().max(b.len()).max(1);
        let common = a.iter().filter(|line| b.iter().position(|l| l == *line).map(|at| b.swap_remove(at)).is_some());
        100 * common.count() / longest
    }
}

fn changed_lines(diff: &[u8]) -> Result<BTreeMap<String, String>> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    Diff::from_buffer(diff)?.print(git2::DiffFormat::Patch, |delta, _, line| {
        let path = delta.new_file().path().or(delta.old_file().path()).unwrap_or(Path::new("?"));
        let text = files.entry(path.display().to_string()).or_insert_with(|| match delta.status() {
            Delta::Added => "new file\n".into(),
            Delta::Deleted => "deleted file\n".into(),
            _ => String::new(),
        });
        if matches!(line.origin(), '+' | '-') {
            text.push(line.origin());
            text.push_str(String::from_utf8_lossy(line.content()).trim_end_matches('\n'));
            text.push('\n');
        }
        true
    })?;
    Ok(files)
}

/// The pairs of patches, in the order of the first series, and then what only the second one has.
/// Patches with the same subject are a pair, and of the others those that change the same lines.
fn pairs(a: &[Change], b: &[Change]) -> Vec<(Option<usize>, Option<usize>)> {
    let mut partner: Vec<Option<usize>> = Vec::new();
    for change in a {
        let mut same = (0..b.len()).filter(|other| b[*other].subject == change.subject);
        partner.push(same.find(|other| !partner.contains(&Some(*other))));
    }
    for (at, change) in a.iter().enumerate() {
        if partner[at].is_none() {
            let free = (0..b.len()).filter(|other| !partner.contains(&Some(*other)));
            let best = free.map(|other| (change.similarity(&b[other]), other)).max();
            partner[at] = best.filter(|(similarity, _)| *similarity >= 50).map(|(_, other)| other);
        }
    }
    let alone = (0..b.len()).filter(|at| !partner.contains(&Some(*at))).map(|at| (None, Some(at)));
    let alone: Vec<_> = alone.collect();
    partner.iter().enumerate().map(|(at, other)| (Some(at), *other)).chain(alone).collect()
}

struct Comparison<'a> {
    a: &'a Series,
    b: &'a Series,
}

impl fmt::Display for Comparison<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (a, b) = (self.a, self.b);
        let (mut same, mut different, mut alone) = (0, 0, 0);
        for pair in pairs(&a.patches, &b.patches) {
            match pair {
                (Some(at), Some(other)) => {
                    let (old, new) = (&a.patches[at], &b.patches[other]);
                    let text = difference(old, new);
                    let (count, word) = if text.is_empty() { (&mut same, "same") } else { (&mut different, "differs") };
                    *count += 1;
                    writeln!(f, "{:>2} {:>2}  {}: {word}\n{text}", at + 1, other + 1, old.subject)?;
                }
                (Some(at), None) => {
                    alone += 1;
                    writeln!(f, "{:>2}  -  {}: only in {}\n", at + 1, a.patches[at].subject, a.name)?;
                }
                (None, at) => {
                    alone += 1;
                    let at = at.unwrap_or_default();
                    writeln!(f, " - {:>2}  {}: only in {}\n", at + 1, b.patches[at].subject, b.name)?;
                }
            }
        }
        writeln!(f, "- only in {}, + only in {}", a.name, b.name)?;
        writeln!(f, "{same} patches are the same, {different} differ, {alone} are in one series only")
    }
}

/// What differs between two patches, part by part; empty if nothing does.
fn difference(a: &Change, b: &Change) -> String {
    let mut text = String::new();
    let mut part = |title: &str, old: &str, new: &str| {
        let lines = line_difference(old, new);
        if !lines.is_empty() {
            let _ = write!(text, "       {title}\n{lines}");
        }
    };
    part("subject", &format!("{}\n", a.subject), &format!("{}\n", b.subject));
    part("message", &a.body, &b.body);
    let files: std::collections::BTreeSet<_> = a.files.keys().chain(b.files.keys()).collect();
    for file in files {
        let lines = |change: &Change| change.files.get(file).cloned().unwrap_or_default();
        part(file, &lines(a), &lines(b));
    }
    text
}

/// The lines that only one of the texts has.
fn line_difference(old: &str, new: &str) -> String {
    let mut options = DiffOptions::new();
    options.context_lines(0).indent_heuristic(true);
    let mut text = String::new();
    let patch = git2::Patch::from_buffers(old.as_bytes(), None, new.as_bytes(), None, Some(&mut options));
    let Ok(mut patch) = patch else { return text };
    let printed = patch.print(&mut |_, _, line| {
        if matches!(line.origin(), '+' | '-') {
            let content = String::from_utf8_lossy(line.content());
            let _ = writeln!(text, "       {} {}", line.origin(), content.trim_end());
        }
        true
    });
    debug_assert!(printed.is_ok(), "the callback does not stop");
    text
}

#[cfg(test)]
mod tests {
    use fs_err as fs;

    use super::*;

    fn patch(subject: &str, body: &str, hunk: &str) -> String {
        format!(
            "From: T <t@example.org>\nDate: Mon, 23 Nov 2026 16:20:00 +0000\nSubject: [PATCH 1/2] {subject}\n\n\
             {body}\n---\n a.c | 2 +-\n\ndiff --git a/a.c b/a.c\nindex 1234567..89abcde 100644\n\
             --- a/a.c\n+++ b/a.c\n{hunk}"
        )
    }

    fn series(name: &str, patches: &[String]) -> Series {
        let folder = tempfile::tempdir().unwrap();
        for (number, text) in patches.iter().enumerate() {
            fs::write(folder.path().join(format!("{number:04}-x.patch")), text).unwrap();
        }
        Series::read(name, folder.path()).unwrap()
    }

    fn compare(a: &[String], b: &[String]) -> String {
        Comparison { a: &series("1.0", a), b: &series("2.0", b) }.to_string()
    }

    #[test]
    fn context_and_line_numbers_do_not_count() {
        let a = patch("s", "Why.", "@@ -1,3 +1,3 @@ f\n one\n-two\n+2\n three\n");
        let b = patch("s", "Why.", "@@ -70,3 +71,3 @@ g\n eins\n-two\n+2\n drei\n");
        let text = compare(&[a], &[b]);
        assert!(text.starts_with(" 1  1  s: same\n"), "{text}");
        assert!(text.ends_with("1 patches are the same, 0 differ, 0 are in one series only\n"), "{text}");
    }

    #[test]
    fn lines_and_words_that_differ_are_shown() {
        let a = patch("s", "Why.\n\nFor 1.0.", "@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n");
        let b = patch("s", "Why.\n\nFor 2.0.", "@@ -1,3 +1,4 @@\n one\n-two\n+2\n+3\n three\n");
        let text = compare(&[a], &[b]);
        let expected =
            " 1  1  s: differs\n       message\n       - For 1.0.\n       + For 2.0.\n       a.c\n       + +3\n";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn patches_are_paired_by_subject_and_then_by_their_lines() {
        let hunk = |word: &str| format!("@@ -1,3 +1,3 @@\n one\n-two\n+{word}\n three\n");
        let new = |subject: &str, word: &str| patch(subject, "Why.", &hunk(word));
        let a = [new("first", "1"), new("second", "2"), new("old", "3")];
        let b = [new("second", "2"), new("renamed", "1"), new("added", "zzz").replace("two", "zwei")];
        let text = compare(&a, &b);
        for line in [
            " 1  2  first: differs",
            "       - first\n       + renamed",
            " 2  1  second: same",
            " 3  -  old: only in 1.0",
            " -  3  added: only in 2.0",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn patches_with_the_same_subject_are_different_patches() {
        let new = |text: &str| patch("same", "Why.", &format!("@@ -1,3 +1,3 @@\n one\n-two\n+{text}\n three\n"));
        let text = compare(&[new("1"), new("2")], &[new("1"), new("2")]);
        assert!(text.contains("2 patches are the same, 0 differ"), "{text}");
    }
}
