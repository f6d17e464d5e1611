// SPDX-License-Identifier: GPL-2.0-only
//! `pins update`: the newest version of a series, in place of the pinned one. The pins change last,
//! when the patches apply to it, and a kernel made of it has been built and tried.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Args;
use fs_err as fs;
use git2::{Oid, Repository};

use super::file::{PinsFile, replace_tables};
use super::lists::{self, Lists};
use super::{config_package, version};
use crate::builds::kernel::Config;
use crate::commands::{patches, vm_test};
use crate::host;
use crate::process;
use crate::sources::fetch;
use crate::sources::pins::{Download, upstream};
use crate::sources::tree::Tree;
use crate::workspace::Workspace;

/// The tests that a kernel must pass: parts of their names. They count frames through the hook
/// with both back ends, and save and restore rules.
const SMOKE_TESTS: [&str; 4] = [
    "frames_to_the_guest_pass_through_input",
    "rules_see_the_packet",
    "each_protocol_has_a_column",
    "save_and_restore_is_a_round_trip",
];

#[derive(Args, Debug)]
pub struct Options {
    /// A kernel series, or `iptables` [default: all]
    pin: Option<String>,
    /// A version of the archive instead of the newest one
    #[arg(long, value_name = "VERSION", requires = "pin")]
    pub to: Option<String>,
    /// Rewrite the pin of a kernel now, and merge the patches into the new source as `patches port`
    /// does
    ///
    /// For a version to which the patches do not apply. Nothing is built.
    #[arg(long, requires = "pin")]
    pub port: bool,
}

impl Options {
    /// The pin that is named, if any.
    pub fn pin(&self) -> &[String] {
        self.pin.as_slice()
    }
}

/// The pins of one series.
struct Pair {
    source: Download,
    /// `None` if the archive has dropped the configuration of this old version: its pin stays.
    config: Option<Download>,
}

/// Goes to another source of a series.
pub fn run(ws: &Workspace, series: &str, lists: &Lists, source: Download, options: &Options) -> Result<()> {
    let old = ws.pins().kernel_source(series)?;
    let config = config_for(series, lists, &source.version, options)?;
    let new = Pair { source, config };
    let file = PinsFile::with(ws, |text| rewrite(text, series, &new))?;
    let candidate = file.candidate(ws)?;
    let lock = host::require(ws)?;
    let config = fetch::pinned(&candidate, candidate.pins().debian_config(series)?)?;
    fetch::pinned(&candidate, &new.source)?;
    if options.port {
        return patches::port_to_version(ws, &candidate, series, || file.write());
    }
    let tree = Tree::kernel(&candidate, series)?;
    let commits = tree.commits().with_context(|| {
        let to = options.to.as_ref().map(|version| format!(" --to {version}")).unwrap_or_default();
        format!("the pin stays; `cargo xtask pins update {series}{to} --port` starts to merge the patches")
    })?;
    eprintln!("{series}: all {} patches apply", commits.len());
    drop(lock);

    let tests = vm_test::Options::of(series, Config::Test, &SMOKE_TESTS);
    vm_test::run(&candidate, &tests).context("the pin stays")?;
    eprintln!("{series}: the kernel builds, and its tests pass");
    file.write()?;
    for line in changes(ws, &tree, series, old, &config) {
        eprintln!("    {line}");
    }
    eprintln!("next: `cargo xtask patches check --series {series}`, and the tests of the series");
    Ok(())
}

/// The configuration of a version. An old version that is asked for may have none.
fn config_for(series: &str, lists: &Lists, version: &str, options: &Options) -> Result<Option<Download>> {
    let package = config_package(series);
    match lists::select(lists.versions(&package)?, &package, Some(version)) {
        Err(error) if options.to.is_some() => {
            eprintln!("warning: {error:#}: its pin stays");
            Ok(None)
        }
        found => Ok(Some(found?.download)),
    }
}

/// The text of `pins.toml` with other pins for a series. All else, comments included, stays.
fn rewrite(text: &str, series: &str, new: &Pair) -> Result<String> {
    let text = replace_tables(text, &format!("[kernel.series.\"{series}\"]"), [&new.source])?;
    replace_tables(&text, &format!("[kernel.debian_config.\"{series}\"]"), &new.config)
}

/// What a person wants to know of an update, one line each. Nothing in it is needed to go on.
fn changes(ws: &Workspace, tree: &Tree, series: &str, old: &Download, config: &Path) -> Vec<String> {
    let mut lines = entries_since(config, "linux", &old.version);
    if let Ok((total, changed)) = touched(ws, tree, series) {
        lines.push(format!("{} of the {total} files that the series changes differ in the new source", changed.len()));
        lines.extend(changed.iter().map(|path| format!("    {}", path.display())));
    }
    lines.extend(texts_naming(ws, upstream(&old.version)));
    lines
}

/// A line for each text that names a version.
pub fn texts_naming(ws: &Workspace, version: &str) -> Vec<String> {
    let naming = files_naming(ws.repo(), version).unwrap_or_default();
    naming.iter().map(|path| format!("{path} names {version}: change it")).collect()
}

/// How many files the series changes in the new source, and those of them whose content is not that
/// of the old source.
fn touched(ws: &Workspace, new: &Tree, series: &str) -> Result<(usize, Vec<PathBuf>)> {
    ensure!(Tree::has_kernel(ws, series)?, "the old source is not in the cache");
    let old = Tree::kernel(ws, series)?;
    let blob = |tree: &Tree, path: &Path| -> Result<Option<Oid>> {
        let root = tree.repo().find_commit(tree.base())?.tree()?;
        Ok(root.get_path(path).ok().map(|entry| entry.id()))
    };
    let files = new.changed(new.tip()?)?;
    let mut changed = Vec::new();
    for (path, _) in &files {
        if blob(&old, path)? != blob(new, path)? {
            changed.push(path.clone());
        }
    }
    Ok((files.len(), changed))
}

/// Debian's changelog in a package.
fn changelog(package: &Path) -> Result<String> {
    let script = "dpkg-deb --fsys-tarfile \"$1\" | \
                  tar --extract --to-stdout --wildcards './usr/share/doc/*/changelog.Debian.gz' | gzip -dc";
    let mut read = Command::new("sh");
    read.args(["-c", script, "-"]).arg(package).stdin(Stdio::null()).stderr(Stdio::null());
    let mut text = String::new();
    let status = process::run_lines(read, |line| {
        text.push_str(line);
        text.push('\n');
    })?;
    ensure!(status.success(), "{} has no changelog", package.display());
    Ok(text)
}

/// A line for each entry of a package's changelog that is newer than `old`. `source` is the name of
/// the source package.
pub fn entries_since(package: &Path, source: &str, old: &str) -> Vec<String> {
    changelog(package).map(|text| newer_entries(&text, source, old)).unwrap_or_default()
}

/// <https://www.debian.org/doc/debian-policy/ch-source.html#debian-changelog-debian-changelog>
fn newer_entries(changelog: &str, source: &str, old: &str) -> Vec<String> {
    let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
    for line in changelog.lines() {
        let heading = line.strip_prefix(source).and_then(|rest| rest.strip_prefix(" (")?.split_once(") "));
        if let Some((version, rest)) = heading {
            if version::compare(version, old) != Ordering::Greater {
                break;
            }
            lines.push((format!("{version} ({rest})"), Vec::new()));
        }
        let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        for word in words.filter(|word| word.starts_with("CVE-")) {
            if let Some((_, known)) = lines.last_mut().filter(|(_, known)| !known.contains(&word)) {
                known.push(word);
            }
        }
    }
    lines.iter().map(|(heading, cves)| format!("{heading}: names {} CVEs", cves.len())).collect()
}

/// Whether a text names a version: the digits of 6.12.11 also begin 6.12.118, and 1.8.11-2 begins
/// 1.8.11-2+deb13u1.
fn names(text: &str, version: &str) -> bool {
    let is_end = |c: Option<char>| !c.is_some_and(|c| c.is_ascii_digit() || c == '+');
    let found = text.match_indices(version);
    let mut ends = found.map(|(at, _)| (text[..at].chars().next_back(), text[at + version.len()..].chars().next()));
    // A dot before it is part of a longer version, such as 16.12.11 or 1.6.12.11.
    ends.any(|(before, after)| is_end(before) && before != Some('.') && is_end(after))
}

/// The committed texts that name a version, which a person has to change.
fn files_naming(repo: &Path, version: &str) -> Result<Vec<String>> {
    let index = Repository::open(repo)?.index()?;
    let paths = index.iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned());
    let texts = paths.filter(|path| path.ends_with(".md") && path != "CHANGELOG.md");
    Ok(texts.filter(|path| fs::read_to_string(repo.join(path)).is_ok_and(|text| names(&text, version))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::pins::Pins;

    fn pinned() -> String {
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/pins.toml")).unwrap()
    }

    #[test]
    fn the_smoke_tests_exist() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vm-tests/tests/guest");
        let files = crate::workspace::list(&folder).unwrap();
        let texts: String = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
        for name in SMOKE_TESTS {
            assert!(texts.contains(&format!("guest_test!({name}")), "{name}");
        }
    }

    #[test]
    fn pins_that_do_not_change_are_written_as_they_are() {
        let text = pinned();
        let pins = Pins::parse(&text).unwrap();
        for (series, source) in pins.kernel.series.iter().filter(|(_, source)| source.is_package()) {
            let config = pins.debian_config(series).ok().cloned();
            let same = Pair { source: source.clone(), config };
            assert_eq!(rewrite(&text, series, &same).unwrap(), text);
        }
    }

    #[test]
    fn only_the_pins_of_the_series_change() {
        let text = pinned();
        let pins = Pins::parse(&text).unwrap();
        let (series, source) = pins.kernel.series.iter().find(|(_, source)| source.is_package()).unwrap();
        let with = |download: &Download, snapshot: Option<&str>| Download {
            version: "9.9-1".into(),
            paths: vec!["pool/a".into()],
            snapshot: snapshot.map(str::to_owned),
            ..download.clone()
        };
        let config = pins.debian_config(series).unwrap();
        let new = Pair { source: with(source, None), config: Some(with(config, Some("20260102T030405Z"))) };
        let after = Pins::parse(&rewrite(&text, series, &new).unwrap()).unwrap();
        let changed = after.kernel_source(series).unwrap();
        assert_eq!((changed.version.as_str(), &changed.snapshot), ("9.9-1", &None));
        assert_eq!(after.debian_config(series).unwrap().snapshot.as_deref(), Some("20260102T030405Z"));
        let rest = |mut pins: Pins| {
            pins.kernel.series.remove(series);
            pins.kernel.debian_config.remove(series);
            format!("{pins:?}")
        };
        assert_eq!(rest(after), rest(pins.clone()));
        assert!(rewrite(&text, "0.0", &new).is_err());
    }

    #[test]
    fn a_version_is_not_found_in_a_longer_one() {
        for text in ["6.12.11", "Linux 6.12.11.", "`6.12.11-vm-promisc`", "6.12.118, then 6.12.11", "v6.12.11"] {
            assert!(names(text, "6.12.11"), "{text}");
        }
        assert!(names("iptables=1.8.11-2 x", "1.8.11-2") && !names("1.8.11-2+0promisc1", "1.8.11-2"));
        for text in ["6.12.118", "16.12.11", "1.6.12.11", "6.12.1", "6.12", ""] {
            assert!(!names(text, "6.12.11"), "{text}");
        }
    }

    #[test]
    fn the_texts_that_name_a_version_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let repo = Repository::init(folder.path()).unwrap();
        let mut index = repo.index().unwrap();
        let texts = [("a.md", "6.12.11"), ("b.md", "6.12.118"), ("CHANGELOG.md", "6.12.11"), ("c.rs", "6.12.11")];
        for (path, text) in texts {
            fs::write(folder.path().join(path), text).unwrap();
            index.add_path(Path::new(path)).unwrap();
        }
        index.write().unwrap();
        assert_eq!(files_naming(folder.path(), "6.12.11").unwrap(), ["a.md"]);
    }

    #[test]
    fn the_changelog_is_summarized_down_to_the_old_version() {
        let text = "linux (6.12.118-1) trixie-security; urgency=high\n\n  * New upstream release:\n\
                    \x20   - a (CVE-2026-1, CVE-2026-2)\n    - b (CVE-2026-1)\n\n -- A <a@example.org>  Thu\n\n\
                    linux (6.12.117-1) trixie; urgency=medium\n\n  * x\n\n\
                    linux (6.12.111-1) trixie; urgency=medium\n\n  * CVE-2026-3\n";
        assert_eq!(
            newer_entries(text, "linux", "6.12.111-1"),
            [
                "6.12.118-1 (trixie-security; urgency=high): names 2 CVEs",
                "6.12.117-1 (trixie; urgency=medium): names 0 CVEs"
            ]
        );
    }
}
