// SPDX-License-Identifier: GPL-2.0-only
//! Rules for all committed text files, as tests.

use std::path::{Path, PathBuf};

use fs_err as fs;
use git2::Repository;

/// The width of prose in columns.
const PROSE: usize = 100;

/// Calls `check` for each line of each committed file with one of the extensions, with the file's
/// path and the line. Fails with all complaints.
fn for_each_line(extensions: &[&str], mut check: impl FnMut(&str, &str) -> Option<&'static str>) {
    let mut complaints = Vec::new();
    for (path, text) in files(extensions) {
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(complaint) = check(&path, line) {
                complaints.push(format!("{path}:{number}: {complaint}"));
            }
        }
    }
    assert!(complaints.is_empty(), "{} lines:\n{}", complaints.len(), complaints.join("\n"));
}

/// The committed files with one of the extensions, without patches and recorded data.
fn files(extensions: &[&str]) -> Vec<(String, String)> {
    let top: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let index = Repository::open(&top).unwrap().index().unwrap();
    let paths = index.iter().map(|entry| String::from_utf8(entry.path).unwrap());
    let wanted = paths.filter(|path| extensions.iter().any(|extension| path.ends_with(extension)));
    wanted.filter_map(|path| fs::read_to_string(top.join(&path)).ok().map(|text| (path, text))).collect()
}

const SOURCES: [&str; 8] = [".rs", ".c", ".sh", ".py", ".toml", ".md", ".config", "Kbuild"];

#[test]
fn every_file_names_its_licence() {
    for (path, text) in files(&SOURCES) {
        let mut head = text.lines().take(3);
        assert!(head.any(|line| line.contains("SPDX-License-Identifier: GPL-2.0")), "{path} has no SPDX line");
    }
}

#[test]
fn no_line_ends_with_white_space() {
    for_each_line(&SOURCES, |_, line| (line.trim_end() != line).then_some("white space at the end"));
}

#[test]
fn comments_are_at_most_100_columns_wide() {
    for_each_line(&[".rs"], |path, line| {
        let comment = line.trim_start().starts_with("//");
        let excepted = path.ends_with("bindings.rs") || line.contains("://");
        (comment && !excepted && line.chars().count() > PROSE).then_some("a comment over 100 columns")
    });
}

#[test]
fn prose_is_at_most_100_columns_wide() {
    let mut code = false;
    for_each_line(&[".md"], |_, line| {
        code ^= line.starts_with("```");
        let excepted = code || line.starts_with("    ") || line.starts_with('|') || line.contains("://");
        (!excepted && line.chars().count() > PROSE).then_some("prose over 100 columns")
    });
}

#[test]
fn every_rust_file_has_documentation() {
    for (path, text) in files(&[".rs"]) {
        let documented = text.lines().any(|line| line.starts_with("//!"));
        assert!(documented || path.ends_with("bindings.rs"), "{path} has no //! lines");
    }
}
