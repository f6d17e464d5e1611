// SPDX-License-Identifier: GPL-2.0-only
//! Compares README's section "Deploy" with a transcript.
//!
//! In indented lines `# ` is root's prompt. The command follows, with all its lines, and then its
//! output. Three dots match anything: on a line of their own any lines, within a line any part of
//! it.

use anyhow::{Context, Result, bail, ensure};

use super::{Entry, Transcript};

const SECTION: &str = "## Deploy";
const DOTS: &str = "...";

/// Checks that the transcript has the commands of the section in the same order and with the same
/// output. The section names one kernel with the configuration `vm`; `release` and `config` replace
/// its release and its configuration.
///
/// # Errors
/// With the first command that is missing or has another output.
pub fn check_readme(readme: &str, transcript: &Transcript, release: &str, config: &str) -> Result<()> {
    let section = section(readme).context("README has no section Deploy")?;
    check_section(&of_kernel(&section, release, config)?, transcript.entries())
}

/// The section with the release and the configuration of another kernel.
fn of_kernel(section: &str, release: &str, config: &str) -> Result<String> {
    let shown = section.split_whitespace().find(|word| word.ends_with("-vm-promisc"));
    let shown = shown.context("README's section Deploy has no kernel release")?;
    Ok(section.replace(shown, release).replace("-vm", &format!("-{config}")))
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
        let matching = |entry: &Entry| rest_after(entry, &lines).map(|(shown, output)| is_shown(shown, output));
        match rest.iter().position(|entry| matching(entry) == Some(true)) {
            Some(at) => rest = &rest[at + 1..],
            None if rest.iter().any(|entry| matching(entry).is_some()) => {
                bail!("README shows another output of this command: {}", lines[0])
            }
            None => bail!("README has this command, but the test does not run it at this point: {}", lines[0]),
        }
    }
    Ok(())
}

/// The lines of each command and its output: from a prompt to the next one or to the end of the
/// block.
fn commands(section: &str) -> Vec<Vec<&str>> {
    let mut commands: Vec<Vec<&str>> = Vec::new();
    let mut within = false;
    for line in section.lines() {
        match line.strip_prefix("    ") {
            Some(line) if line.starts_with("# ") => {
                commands.push(vec![&line[2..]]);
                within = true;
            }
            Some(line) if within => commands.last_mut().expect("there is a command").push(line),
            _ => within = false,
        }
    }
    commands
}

/// If the entry is this command: README's lines after the command, and the output.
fn rest_after<'a>(entry: &'a Entry, lines: &'a [&'a str]) -> Option<(&'a [&'a str], &'a str)> {
    let Entry::Command { line, output } = entry else { return None };
    let length = line.lines().count();
    (lines.len() >= length && line.lines().eq(lines[..length].iter().copied()))
        .then(|| (&lines[length..], output.as_str()))
}

/// Whether `shown` matches the output. An empty `shown` matches any output.
fn is_shown(shown: &[&str], output: &str) -> bool {
    shown.is_empty() || matches(shown, &output.lines().collect::<Vec<_>>())
}

fn matches(shown: &[&str], output: &[&str]) -> bool {
    match (shown, output) {
        ([], output) => output.is_empty(),
        ([DOTS, shown @ ..], _) => (0..=output.len()).any(|skipped| matches(shown, &output[skipped..])),
        ([first, shown @ ..], [line, output @ ..]) => line_matches(first, line) && matches(shown, output),
        (_, []) => false,
    }
}

fn line_matches(shown: &str, line: &str) -> bool {
    let Some((begin, rest)) = shown.split_once(DOTS) else { return shown == line };
    let Some(line) = line.strip_prefix(begin) else { return false };
    (0..=line.len()).filter(|at| line.is_char_boundary(*at)).any(|at| line_matches(rest, &line[at..]))
}

#[test]
fn the_release_and_the_configuration_are_replaced() {
    let section =
        "    # uname -r\n    6.1.2-vm-promisc\n    # apt-get purge xt-traffic-vm linux-image-6.1.2-vm-promisc\n";
    let expected = "    # uname -r\n    7.0-server-promisc\n    # apt-get purge xt-traffic-server linux-image-7.0-server-promisc\n";
    assert_eq!(of_kernel(section, "7.0-server-promisc", "server").unwrap(), expected);
    assert_eq!(of_kernel(section, "6.1.2-vm-promisc", "vm").unwrap(), section);
}

#[test]
fn commands_and_their_output_are_compared() {
    let typed = |line: &str, output: &str| Entry::Command { line: line.into(), output: output.into() };
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
