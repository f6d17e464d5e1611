// SPDX-License-Identifier: GPL-2.0-only
//! `patches export`: writes the commits as patch files.
//!
//! The package root's git writes them, so they do not depend on the host's git or its settings.
//! Before the files replace the old ones, they are applied to the base. That must give the content,
//! authors and messages of the branch.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use git2::{Commit, Oid, Repository};

use super::{BRANCH, EXPORTED, has_uncommitted, linear_history, port, tip_of};
use crate::builds::root::BuildRoot;
use crate::sources::patches::{self, Patch};
use crate::sources::tree::Tree;
use crate::stamp::{remove_if_exists, write_atomically};
use crate::workspace::{Workspace, file_name};

pub fn run(ws: &Workspace, tree: &Tree, folder: &Path) -> Result<()> {
    let edited =
        Repository::open(folder).with_context(|| format!("{}: run `patches apply` first", folder.display()))?;
    port::require_complete(&edited)?;
    if has_uncommitted(&edited)? {
        eprintln!("warning: changes that are not committed are not exported");
    }
    let tip = tip_of(&edited, BRANCH)?;
    let commits = linear_history(&edited, tree.base(), tip)?;
    let root = BuildRoot::prepare_for_packages(ws)?;
    let out = ws.temporary()?;
    let sandbox = root.sandbox().bind_ro(tree.repo().path(), "src").bind_rw(out.path(), "out");
    let mut step = ws.step("export", "writing the patches")?;
    if !commits.is_empty() {
        copy_objects(&edited, tree.repo(), tree.base(), tip)?;
        step.run(sandbox.command("out", &format_patch("/src", "/out", tree.base(), tip)))?;
    }
    step.finish();
    verify(tree.repo(), out.path(), tree.base(), &commits)?;
    let changes = replace(out.path(), tree.patches())?;
    edited.reference(EXPORTED, tip, true, "patches export")?;
    for change in &changes {
        eprintln!("{change}");
    }
    let (count, patches) = (commits.len(), tree.patches().display());
    let changes = changes.len();
    eprintln!("{patches}: {count} patches, {changes} files changed");
    Ok(())
}

/// Copies the objects of `base..tip` into another repository, which has those of `base`.
fn copy_objects(from: &Repository, to: &Repository, base: Oid, tip: Oid) -> Result<()> {
    let mut walk = from.revwalk()?;
    walk.push(tip)?;
    walk.hide(base)?;
    let mut builder = from.packbuilder()?;
    builder.insert_walk(&mut walk)?;
    let odb = to.odb()?;
    let mut writer = odb.packwriter()?;
    builder.foreach(|bytes| writer.write_all(bytes).is_ok()).context("cannot copy the commits")?;
    writer.commit().context("cannot copy the commits")?;
    Ok(())
}

/// The command that writes `base..tip` of the bare repository `git` to the folder `out`.
fn format_patch(git: &str, out: &str, base: Oid, tip: Oid) -> Vec<String> {
    // Attributes select the hunk headers (gitattributes(5)). A bare repository has no work folder
    // from which git could read them.
    let git = ["git".to_owned(), format!("--git-dir={git}"), format!("--attr-source={tip}")];
    let format =
        ["format-patch", "--quiet", "--zero-commit", "--no-signature", "--abbrev=12", "--output-directory", out];
    git.into_iter().chain(format.map(str::to_owned)).chain([format!("{base}..{tip}")]).collect()
}

/// Fails unless the files in `folder` give the commits that they were made from.
fn verify(repo: &Repository, folder: &Path, base: Oid, commits: &[Oid]) -> Result<()> {
    let files = patches::files(folder)?;
    ensure!(files.len() == commits.len(), "git wrote {} patches", files.len());
    let mut parent = base;
    for (file, oid) in files.iter().zip(commits) {
        let patch = Patch::read(file)?;
        parent = patch.apply(repo, parent)?;
        let (made, wanted) = (repo.find_commit(parent)?, repo.find_commit(*oid)?);
        if let Some(what) = difference(&made, &wanted) {
            bail!("{} loses the {what} of commit {oid}", patch.name());
        }
    }
    Ok(())
}

fn difference(made: &Commit<'_>, wanted: &Commit<'_>) -> Option<&'static str> {
    let author = |commit: &Commit<'_>| (commit.author().to_string(), commit.author().when());
    let text = |commit: &Commit<'_>| commit.message().unwrap_or_default().trim_end().to_owned();
    let parts = [
        ("content", made.tree_id() == wanted.tree_id()),
        ("author or date", author(made) == author(wanted)),
        ("message", text(made) == text(wanted)),
    ];
    parts.iter().find(|(_, equal)| !equal).map(|(part, _)| *part)
}

/// Replaces the patch files in `to` by those in `from`; files that do not change are not written.
/// Returns a line for each change.
fn replace(from: &Path, to: &Path) -> Result<Vec<String>> {
    let read = |file: &PathBuf| Ok((file_name(file), fs::read(file)?));
    let new = patches::files(from)?.iter().map(read).collect::<Result<BTreeMap<_, _>>>()?;
    let mut changes = Vec::new();
    for (name, content) in &new {
        let target = to.join(name);
        if fs::read(&target).ok().as_ref() != Some(content) {
            write_atomically(&target, content)?;
            changes.push(format!("    written  {name}"));
        }
    }
    for file in patches::files(to)?.iter().filter(|file| !new.contains_key(&file_name(file))) {
        remove_if_exists(file)?;
        changes.push(format!("    removed  {}", file_name(file)));
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::patches::tests::commit_file as commit;
    use std::process::Command;

    /// A repository with a base and the branch series on it, a repository that has only the base,
    /// and a folder for patches.
    struct Fixture {
        folder: tempfile::TempDir,
        edited: Repository,
        pinned: Repository,
        base: Oid,
    }

    const TEXT: &str = "int a;\n\nint f(void)\n{\n\treturn 1;\n}\n";

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let edited = Repository::init_bare(folder.path().join("edited")).unwrap();
            let pinned = Repository::init_bare(folder.path().join("pinned")).unwrap();
            let base = commit(&edited, None, "base\n", TEXT);
            assert_eq!(commit(&pinned, None, "base\n", TEXT), base);
            Self { folder, edited, pinned, base }
        }

        /// Exports like the command, with the host's git instead of the package root's.
        fn export(&self, tip: Oid) -> Result<PathBuf> {
            let out = self.folder.path().join(tip.to_string());
            let commits = linear_history(&self.edited, self.base, tip)?;
            copy_objects(&self.edited, &self.pinned, self.base, tip)?;
            let git = self.pinned.path().to_str().unwrap();
            let words = format_patch(git, out.to_str().unwrap(), self.base, tip);
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).env("GIT_CONFIG_GLOBAL", "/dev/null");
            assert!(command.status().unwrap().success());
            verify(&self.pinned, &out, self.base, &commits)?;
            Ok(out)
        }
    }

    #[test]
    fn exported_patches_give_the_same_commits() {
        let fixture = Fixture::new();
        let message = "net: return two\n\nBecause – of this.\n\nSigned-off-by: Åsa Test <asa@example.org>\n";
        let one = commit(&fixture.edited, Some(fixture.base), message, &TEXT.replace('1', "2"));
        let long = "net: a subject that goes on for much longer than one line of a mail may be, by far\n";
        let two = commit(&fixture.edited, Some(one), long, &TEXT.replace('1', "3"));
        let out = fixture.export(two).unwrap();

        // Exporting the commits of the files gives the same files.
        let files = patches::files(&out).unwrap();
        assert_eq!(files.len(), 2);
        let mut tip = fixture.base;
        for file in &files {
            tip = Patch::read(file).unwrap().apply(&fixture.pinned, tip).unwrap();
        }
        let folder = fixture.folder.path().join("patches");
        assert_eq!(replace(&out, &folder).unwrap().len(), 2);
        copy_objects(&fixture.pinned, &fixture.edited, fixture.base, tip).unwrap();
        let again = fixture.export(tip).unwrap();
        assert_eq!(replace(&again, &folder).unwrap(), [""; 0]);
    }

    #[test]
    fn only_changed_files_are_written_and_old_files_are_removed() {
        let fixture = Fixture::new();
        let one = commit(&fixture.edited, Some(fixture.base), "one\n", &TEXT.replace('1', "2"));
        let two = commit(&fixture.edited, Some(one), "two\n", &TEXT.replace('1', "3"));
        let folder = fixture.folder.path().join("patches");
        replace(&fixture.export(two).unwrap(), &folder).unwrap();
        let other = commit(&fixture.edited, Some(one), "zwei\n", &TEXT.replace('1', "3"));
        let changes = replace(&fixture.export(other).unwrap(), &folder).unwrap();
        assert_eq!(changes, ["    written  0002-zwei.patch", "    removed  0002-two.patch"]);
    }

    #[test]
    fn a_branch_with_a_merge_or_another_base_is_refused() {
        let fixture = Fixture::new();
        let unrelated = commit(&fixture.edited, None, "elsewhere\n", "x");
        assert!(fixture.export(unrelated).is_err());
        let repo = &fixture.edited;
        let one = commit(repo, Some(fixture.base), "one\n", &TEXT.replace('1', "2"));
        let side = commit(repo, Some(fixture.base), "side\n", &TEXT.replace('1', "3"));
        let (one, side) = (repo.find_commit(one).unwrap(), repo.find_commit(side).unwrap());
        let who = one.author();
        let tree = one.tree().unwrap();
        let merge = repo.commit(None, &who, &who, "merge\n", &tree, &[&one, &side]).unwrap();
        let error = fixture.export(merge).unwrap_err().to_string();
        assert!(error.contains("not a linear history"), "{error}");
    }

    #[test]
    fn a_message_that_breaks_the_mail_format_is_refused() {
        let fixture = Fixture::new();
        let message = "one\n\nbefore\n---\nafter\n";
        let one = commit(&fixture.edited, Some(fixture.base), message, &TEXT.replace('1', "2"));
        let error = fixture.export(one).unwrap_err().to_string();
        assert!(error.contains("message of commit"), "{error}");
    }
}
