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
/// output. The section shows the packages of the configuration `server`. `releases` and
/// `metapackage` replace its kernels, also Debian's, in the order of their first appearance, and
/// its metapackage.
///
/// # Errors
/// With the first command that is missing or has another output.
pub fn check_readme(readme: &str, transcript: &Transcript, releases: &[&str], metapackage: &str) -> Result<()> {
    let section = section(readme).context("README has no section Deploy")?;
    check_section(&of_kernels(&section, releases, metapackage)?, transcript.entries())
}

/// The section with other kernels and another metapackage.
fn of_kernels(section: &str, releases: &[&str], metapackage: &str) -> Result<String> {
    let words = || section.split(|c| !is_of_name(c));
    let mut shown: Vec<&str> = Vec::new();
    for release in words().filter(|word| is_release(word)) {
        if !shown.contains(&release) {
            shown.push(release);
        }
    }
    ensure!(shown.len() == releases.len(), "README's section Deploy shows these kernels: {}", shown.join(", "));
    let of_series = |word: &&str| word.strip_prefix("xt-traffic-").is_some_and(|series| series.starts_with(digit));
    let shown_metapackage = words().find(of_series).context("README's section Deploy has no metapackage")?;
    let replaced = |name: &str| {
        let known = shown.iter().zip(releases).find(|(shown, _)| **shown == name).map(|(_, release)| *release);
        known.or((name == shown_metapackage).then_some(metapackage)).unwrap_or(name).to_owned()
    };
    let parts = section.split_inclusive(|c| !is_of_name(c)).map(|part| {
        let name = part.trim_end_matches(|c| !is_of_name(c));
        replaced(name) + &part[name.len()..]
    });
    Ok(parts.collect())
}

/// Whether a word is the release of a kernel, one of ours or one of Debian's.
fn is_release(word: &str) -> bool {
    word.starts_with(digit) && (word.contains("-promisc.") || word.ends_with("-amd64"))
}

/// Whether a character can be part of the name of a package or a kernel.
fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '+')
}

fn digit(c: char) -> bool {
    c.is_ascii_digit()
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
fn kernels_and_the_metapackage_are_replaced() {
    let section = "    # uname -r\n    6.1.2-promisc.3\n    Setting up xt-traffic-6.1 ...\n    \
                   xt-traffic: kernel 6.1.2-promisc.4 is installed, but 6.1.2-promisc.3 is running\n";
    let expected = "    # uname -r\n    6.1.2-promisc.4-vm\n    Setting up xt-traffic-6.1-vm ...\n    \
                    xt-traffic: kernel 6.1.2-promisc.5-vm is installed, but 6.1.2-promisc.4-vm is running\n";
    let releases = ["6.1.2-promisc.4-vm", "6.1.2-promisc.5-vm"];
    assert_eq!(of_kernels(section, &releases, "xt-traffic-6.1-vm").unwrap(), expected);
    let debian = format!("{section}    # grub-reboot 'Debian>Linux 6.1.3+deb13-amd64'\n    6.1.3+deb13-amd64\n");
    let expected = format!("{expected}    # grub-reboot 'Debian>Linux 6.1.9+deb13-amd64'\n    6.1.9+deb13-amd64\n");
    let with_debian = [&releases[..], &["6.1.9+deb13-amd64"]].concat();
    assert_eq!(of_kernels(&debian, &with_debian, "xt-traffic-6.1-vm").unwrap(), expected);
    assert!(of_kernels(&debian, &releases, "xt-traffic-6.1-vm").is_err());
    let same = of_kernels(section, &["6.1.2-promisc.3", "6.1.2-promisc.4"], "xt-traffic-6.1");
    assert_eq!(same.unwrap(), section);
    assert!(of_kernels(section, &releases[..1], "xt-traffic-6.1-vm").is_err());
    assert!(of_kernels("6.1.2-promisc.3", &releases[..1], "xt-traffic-6.1-vm").is_err());
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
