// SPDX-License-Identifier: GPL-2.0-only
//! `pins check`: whether a pin is behind the archive.

use std::cmp::Ordering;
use std::env;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};

use super::lists::{Listed, Lists};
use super::{Pinned, version};
use crate::process::Running;
use crate::sources::mirrors::Patience;
use crate::sources::pins::Pins;
use crate::workspace::Workspace;

/// Builds ask the mirrors again after this time, and after this one if the last try has failed.
const FRESH: Duration = Duration::from_secs(24 * 3600);
const NEXT_TRY: Duration = Duration::from_secs(3600);
/// How long a build that has ended waits for the answer. A mirror that does not answer is given up
/// after [`Patience::SHORT`], and then the lists of an earlier day are read.
const WAIT: Duration = Duration::from_secs(4);

/// How a pin compares with the archive.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Newest,
    /// The archive has a newer version.
    Behind {
        newest: String,
    },
    /// A newer version is in the security archive.
    Insecure {
        newest: String,
    },
}

impl State {
    fn of(pinned: &str, versions: &[Listed]) -> Self {
        let is_newer = |listed: &&Listed| version::compare(&listed.download.version, pinned) == Ordering::Greater;
        let newer: Vec<_> = versions.iter().filter(is_newer).collect();
        let Some(newest) = newer.last().map(|listed| listed.download.version.clone()) else { return Self::Newest };
        if newer.iter().any(|listed| listed.is_security()) {
            Self::Insecure { newest }
        } else {
            Self::Behind { newest }
        }
    }

    /// The exit status of `pins check`.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Newest => 0,
            Self::Behind { .. } => 3,
            Self::Insecure { .. } => 4,
        }
    }
}

/// One line about a pin.
struct Line<'a> {
    name: &'a str,
    pinned: &'a str,
    state: &'a State,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, pinned, state } = self;
        let update = format!("run `cargo xtask pins update {name}`");
        match state {
            State::Newest => write!(f, "{name}: {pinned} is the newest version"),
            State::Behind { newest } => write!(f, "{name}: {pinned} is pinned, and Debian has {newest}: {update}"),
            State::Insecure { newest } => {
                write!(f, "{name}: {pinned} is pinned, and Debian has {newest} with security fixes: {update}")
            }
        }
    }
}

/// Compares some pins. Prints a line for each.
pub fn run(ws: &Workspace, pins: &[Pinned]) -> Result<State> {
    let lists = Lists::updated(ws)?;
    let mut worst = State::Newest;
    for pin in pins {
        let pinned = pin.version(ws)?;
        let state = State::of(pinned, &pin.versions(&lists)?);
        println!("{}", Line { name: pin.name(), pinned, state: &state });
        worst = worst.max(state);
    }
    Ok(worst)
}

/// The answer for a build: nothing is printed for pins that are the newest, and the mirrors are
/// asked once a day.
pub fn run_for_build(ws: &Workspace, pins: &[Pinned]) -> Result<()> {
    let lists = Lists::open(ws);
    let is_asked = lists.are_younger_than(FRESH, false) || lists.are_younger_than(NEXT_TRY, true);
    // If it fails, the lists of an earlier day serve.
    let updated = if is_asked { Ok(()) } else { lists.update(Patience::SHORT) };
    let mut states = Vec::new();
    for pin in pins {
        let pinned = pin.version(ws)?;
        let state = pin.versions(&lists).map(|versions| State::of(pinned, &versions));
        states.push((pin.name(), pinned, state));
    }
    notices(&updated, &states).iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// What a build prints, from the result of the download and from those of the comparisons: a line
/// for each update, and one for what went wrong first.
fn notices(updated: &Result<()>, states: &[(&str, &str, Result<State>)]) -> Vec<String> {
    let updates = states.iter().filter_map(|(name, pinned, state)| {
        let state = state.as_ref().ok().filter(|state| **state != State::Newest)?;
        Some(Line { name, pinned, state }.to_string())
    });
    let error = updated.as_ref().err().or(states.iter().find_map(|(.., state)| state.as_ref().err()));
    updates.chain(error.map(not_asked)).collect()
}

/// The line for an unknown state. The text of an error may have several lines.
fn not_asked(error: &Error) -> String {
    let text = format!("{error:#}");
    let words: Vec<_> = text.split_whitespace().collect();
    format!("cannot say whether Debian has a newer version: {}", words.join(" "))
}

/// The check of pins while something is built. It never fails: it says in one line what went
/// wrong.
pub struct Notice(Option<Result<Check>>);

impl Notice {
    /// Starts the check in a process of its own, so that it can be ended at any time. A kernel
    /// whose source is not a package is left out.
    pub fn ask(pins: &Pins, names: &[&str]) -> Self {
        let found = names.iter().filter_map(|name| Pinned::find(pins, name).transpose());
        match found.collect::<Result<Vec<_>>>() {
            Ok(pins) if pins.is_empty() => Self(None),
            Ok(pins) => Self(Some(Check::of(&pins))),
            Err(error) => Self(Some(Err(error))),
        }
    }

    /// Prints the answer.
    pub fn print(self) {
        eprint!("{}", self.text());
    }

    fn text(self) -> String {
        let answer = self.0.map(|check| check.and_then(Check::answer));
        answer.map_or_else(String::new, |answer| answer.unwrap_or_else(|error| not_asked(&error) + "\n"))
    }
}

/// A check that runs.
struct Check {
    child: Running,
    output: Receiver<io::Result<String>>,
    errors: File,
}

impl Check {
    fn of(pins: &[Pinned]) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["pins", "check", "--for-build"]).args(pins.iter().map(Pinned::name));
        Self::start(command)
    }

    fn start(mut command: Command) -> Result<Self> {
        // A file takes all errors while the output is read.
        let errors = tempfile::tempfile().context("cannot make a temporary file")?;
        let stderr = errors.try_clone().context("cannot share a temporary file")?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = Running::spawn(command)?;
        let stdout = child.take_stdout().context("the check has no output")?;
        let (sender, output) = mpsc::channel();
        thread::spawn(move || sender.send(io::read_to_string(stdout)));
        Ok(Self { child, output, errors })
    }

    /// The lines of the check, after [`WAIT`] at most.
    fn answer(mut self) -> Result<String> {
        let output = self.output.recv_timeout(WAIT).context("the check has no answer")?;
        let text = output.context("cannot read the answer of the check")?;
        let status = self.child.wait()?;
        // The check prints nothing for pins that are the newest.
        if text.is_empty() && !status.success() {
            let mut errors = Vec::new();
            self.errors.rewind()?;
            self.errors.read_to_end(&mut errors)?;
            bail!("the check failed ({status}){}", reason(&String::from_utf8_lossy(&errors)));
        }
        Ok(text)
    }
}

/// The reason in the errors of a check: its error without earlier warnings, or the text of a panic.
fn reason(errors: &str) -> String {
    let at = format!("\n{errors}").find("\nerror: ").map(|at| at + "error: ".len());
    let reason = errors[at.unwrap_or(0)..].trim();
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::super::IPTABLES;
    use super::super::lists::Part;
    use super::*;
    use crate::sources::pins::Download;

    fn listed(version: &str, is_security: bool) -> Listed {
        let [file, sha256] = [String::new(), String::new()];
        let download = Download { version: version.into(), file, sha256, size: 0, paths: Vec::new(), snapshot: None };
        Listed { download, part: if is_security { Part::Security } else { Part::Release } }
    }

    #[test]
    fn a_pin_is_behind_newer_versions_only() {
        let versions = [listed("6.12.107-1", true), listed("6.12.117-1", false), listed("6.12.118-1", true)];
        let state = |pinned: &str, count: usize| State::of(pinned, &versions[..count]);
        let newest = || "6.12.118-1".to_owned();
        assert_eq!(state("6.12.118-1", 3), State::Newest);
        assert_eq!(state("6.12.119-1", 3), State::Newest);
        assert_eq!(state("6.12.111-1", 3), State::Insecure { newest: newest() });
        assert_eq!(state("6.12.117-1", 3), State::Insecure { newest: newest() });
        assert_eq!(state("6.12.111-1", 2), State::Behind { newest: "6.12.117-1".into() });
    }

    #[test]
    fn a_build_prints_a_line_for_each_update_and_one_for_what_went_wrong() {
        let unknown = |why: &str| format!("cannot say whether Debian has a newer version: {why}");
        let failed = || Err(anyhow!("cannot update the package lists:\n    E: no route\n    W: x"));
        let no_route = unknown("cannot update the package lists: E: no route W: x");
        let behind = || Ok(State::Behind { newest: "2-1".into() });
        let update = "6.12: 1-1 is pinned, and Debian has 2-1: run `cargo xtask pins update 6.12`".to_owned();
        let lines =
            |updated, kernel, iptables| notices(&updated, &[("6.12", "1-1", kernel), (IPTABLES, "1-1", iptables)]);
        let newest = || Ok(State::Newest);
        assert_eq!(lines(Ok(()), newest(), newest()), [""; 0]);
        assert_eq!(lines(Ok(()), behind(), newest()), [update.as_str()]);
        assert_eq!(lines(Ok(()), behind(), behind()), [update.as_str(), &update.replace("6.12", IPTABLES)]);
        assert_eq!(lines(failed(), newest(), newest()), [no_route.as_str()]);
        assert_eq!(lines(failed(), behind(), newest()), [update.as_str(), &no_route]);
        assert_eq!(lines(failed(), Err(anyhow!("no list")), newest()), [no_route]);
        assert_eq!(lines(Ok(()), newest(), Err(anyhow!("no list"))), [unknown("no list")]);
    }

    fn notice(script: &str) -> String {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Notice(Some(Check::start(command))).text()
    }

    #[test]
    fn a_check_that_fails_is_not_silent() {
        let failed = |why: &str| format!("cannot say whether Debian has a newer version: the check failed ({why}\n");
        let error = "echo 'warning: no error: x' >&2; printf 'error: no pins:\\n    a\\n' >&2; exit 1";
        assert_eq!(notice(error), failed("exit status: 1): no pins: a"));
        assert_eq!(notice("echo 'a panic' >&2; exit 101"), failed("exit status: 101): a panic"));
        assert_eq!(notice("exit 1"), failed("exit status: 1)"));
        assert_eq!(notice("kill -KILL $$"), failed("signal: 9 (SIGKILL))"));
        // More than a pipe takes.
        assert!(notice("head -c 200000 /dev/zero >&2; exit 1").starts_with(failed("exit status: 1)").trim_end()));
    }

    #[test]
    fn the_lines_of_a_check_are_printed_and_its_warnings_are_not() {
        assert_eq!(notice("echo 'warning: x' >&2"), "");
        assert_eq!(notice("echo 'warning: x' >&2; echo a; echo b"), "a\nb\n");
        assert_eq!(notice("echo a; exit 1"), "a\n");
    }

    #[test]
    fn a_check_of_an_unknown_pin_says_so() {
        let text = fs_err::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/pins.toml")).unwrap();
        let mut pins = Pins::parse(&text).unwrap();
        let said = Notice::ask(&pins, &["foo", IPTABLES]).text();
        assert!(said.starts_with("cannot say whether Debian has a newer version: unknown pin foo "), "{said}");
        // There is nothing to say of a source that is not a package.
        let source = pins.kernel.series.get_mut(&pins.kernel.default).unwrap();
        source.file = "linux.tar.xz".into();
        assert!(Notice::ask(&pins, &[&pins.kernel.default]).0.is_none());
    }

    #[test]
    fn the_exit_status_tells_a_security_update() {
        let newest = String::new;
        let states = [State::Newest, State::Behind { newest: newest() }, State::Insecure { newest: newest() }];
        assert!(states.is_sorted());
        assert_eq!(states.map(|state| state.exit_status()), [0, 3, 4]);
    }
}
