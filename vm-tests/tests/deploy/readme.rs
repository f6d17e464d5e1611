// SPDX-License-Identifier: GPL-2.0
//! README's section "Deploy" holds what this test types, and what it sees.
//!
//! In its indented lines a `# ` at the beginning is root's prompt. What follows is the rest of the command, if it has
//! more lines, and then what it prints. Three dots stand for anything: alone on a line for lines that are left
//! out, and within a line for a part of it.

use anyhow::{Context, Result, bail, ensure};
use vm_harness::machine::{Entry, Transcript};

const README: &str = include_str!("../../../README.md");
const SECTION: &str = "## Deploy";
const DOTS: &str = "...";

/// Fails when a command of the section was not typed, in that order, or has not printed what the section says. It
/// names the kernel's configuration `vm`, and says that with another one its name is there instead.
pub fn check(transcript: &Transcript, config: &str) -> Result<()> {
    let section = section(README).context("README has no section Deploy")?;
    check_section(&section.replace("-vm", &format!("-{config}")), transcript.entries())
}

/// The text of the section, without its heading.
fn section(readme: &str) -> Option<String> {
    let after = readme.lines().skip_while(|line| !line.starts_with(SECTION)).skip(1);
    let lines: Vec<&str> = after.take_while(|line| !line.starts_with("## ")).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn check_section(section: &str, entries: &[Entry]) -> Result<()> {
    let commands = commands(section);
    ensure!(!commands.is_empty(), "README's section Deploy has no commands");
    let mut rest = entries;
    for lines in commands {
        let typed = |entry: &Entry| rest_after(entry, &lines).map(|(shown, printed)| is_shown(shown, printed));
        match rest.iter().position(|entry| typed(entry) == Some(true)) {
            Some(at) => rest = &rest[at + 1..],
            None if rest.iter().any(|entry| typed(entry).is_some()) => {
                bail!("README says that this command prints something else than it does: {}", lines[0])
            }
            None => bail!("README has this command, but the test does not type it then: {}", lines[0]),
        }
    }
    Ok(())
}

/// The lines of each command: from one prompt to the next, or to the end of the indented block.
fn commands(section: &str) -> Vec<Vec<&str>> {
    let mut commands: Vec<Vec<&str>> = Vec::new();
    let mut within = false;
    for line in section.lines() {
        match line.strip_prefix("    ") {
            Some(line) if line.starts_with("# ") => {
                commands.push(vec![&line[2..]]);
                within = true;
            }
            Some(line) if within => commands.last_mut().expect("a command has begun").push(line),
            _ => within = false,
        }
    }
    commands
}

/// The lines after the command, and what the command has printed, if the entry is that command.
fn rest_after<'a>(entry: &'a Entry, lines: &'a [&'a str]) -> Option<(&'a [&'a str], &'a str)> {
    let Entry::Command { line, printed } = entry else { return None };
    let length = line.lines().count();
    (lines.len() >= length && line.lines().eq(lines[..length].iter().copied()))
        .then(|| (&lines[length..], printed.as_str()))
}

/// Whether `printed` is what `shown` says. An empty `shown` says nothing about it.
fn is_shown(shown: &[&str], printed: &str) -> bool {
    shown.is_empty() || matches(shown, &printed.lines().collect::<Vec<_>>())
}

fn matches(shown: &[&str], printed: &[&str]) -> bool {
    match (shown, printed) {
        ([], printed) => printed.is_empty(),
        ([DOTS, shown @ ..], _) => (0..=printed.len()).any(|skipped| matches(shown, &printed[skipped..])),
        ([first, shown @ ..], [line, printed @ ..]) => line_matches(first, line) && matches(shown, printed),
        (_, []) => false,
    }
}

fn line_matches(shown: &str, line: &str) -> bool {
    let Some((begin, rest)) = shown.split_once(DOTS) else { return shown == line };
    let Some(line) = line.strip_prefix(begin) else { return false };
    (0..=line.len()).filter(|at| line.is_char_boundary(*at)).any(|at| line_matches(rest, &line[at..]))
}

#[test]
fn commands_and_what_they_print() {
    let typed = |line: &str, printed: &str| Entry::Command { line: line.into(), printed: printed.into() };
    let entries = [
        typed("one", "first\nsecond\nthird 3 of 4\n"),
        Entry::Remark("nothing".into()),
        typed("cat <<END\nx\nEND", "x\n"),
        typed("one", "later\n"),
        typed("three", ""),
    ];
    let section = |text: &str| check_section(text, &entries);
    let all = "Text.\n\n    # one\n    first\n    ...\n    third ... 4\n    # cat <<END\n    x\n    END\n    x\n\nMore.\n\n    # one\n    later\n    # three\n";
    section(all).unwrap();
    for wrong in [
        "    # two\n",
        "    # one\n    first\n",
        "    # three\n    # one\n",
        "    # three\n    x\n",
        "Text.\n",
        "    # one\n    ...\n    third ... 5\n",
    ] {
        assert!(section(wrong).is_err(), "{wrong}");
    }
}
