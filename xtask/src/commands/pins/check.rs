// SPDX-License-Identifier: GPL-2.0-only
//! `pins check`: whether a pin is behind the archive.

use std::cmp::Ordering;
use std::env;
use std::fmt;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::lists::{Listed, Lists};
use super::version;
use crate::process::Running;
use crate::sources::mirrors::Patience;
use crate::sources::pins::Download;
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
    fn of(pinned: &Download, versions: &[Listed]) -> Self {
        let is_newer =
            |listed: &&Listed| version::compare(&listed.download.version, &pinned.version) == Ordering::Greater;
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
    series: &'a str,
    pinned: &'a str,
    state: &'a State,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { series, pinned, state } = self;
        let update = format!("run `cargo xtask pins update {series}`");
        match state {
            State::Newest => write!(f, "{series}: {pinned} is the newest version"),
            State::Behind { newest } => write!(f, "{series}: {pinned} is pinned, and Debian has {newest}: {update}"),
            State::Insecure { newest } => {
                write!(f, "{series}: {pinned} is pinned, and Debian has {newest} with security fixes: {update}")
            }
        }
    }
}

/// Compares the pins of some series. Prints a line for each.
pub fn run(ws: &Workspace, series: &[String]) -> Result<State> {
    let lists = Lists::open(ws);
    lists.update(Patience::LONG)?;
    let mut worst = State::Newest;
    for series in series {
        let pinned = ws.pins().kernel_source(series)?;
        let state = state(&lists, series, pinned)?;
        println!("{}", Line { series, pinned: &pinned.version, state: &state });
        worst = worst.max(state);
    }
    Ok(worst)
}

fn state(lists: &Lists, series: &str, pinned: &Download) -> Result<State> {
    let package = super::source_package(series);
    let versions = lists.versions(&package)?;
    ensure!(!versions.is_empty(), "the archive has no package {package}");
    Ok(State::of(pinned, &versions))
}

/// The answer for a build: nothing is printed for a pin that is the newest, and the mirrors are
/// asked once a day.
pub fn run_for_build(ws: &Workspace, series: &str) -> Result<()> {
    let lists = Lists::open(ws);
    let is_asked = lists.are_younger_than(FRESH, false) || lists.are_younger_than(NEXT_TRY, true);
    // If it fails, the lists of an earlier day serve.
    let updated = if is_asked { Ok(()) } else { lists.update(Patience::SHORT) };
    let pinned = ws.pins().kernel_source(series)?;
    if let Some(line) = notice(series, &pinned.version, updated, state(&lists, series, pinned)) {
        println!("{line}");
    }
    Ok(())
}

/// What a build prints, from the result of the download and from that of the comparison.
fn notice(series: &str, pinned: &str, updated: Result<()>, state: Result<State>) -> Option<String> {
    match (updated, state) {
        (Ok(()), Ok(State::Newest)) => None,
        (Err(error), Ok(State::Newest) | Err(_)) | (Ok(()), Err(error)) => Some(not_asked(&format!("{error:#}"))),
        (_, Ok(state)) => Some(Line { series, pinned, state: &state }.to_string()),
    }
}

/// The line for an unknown state. The text of an error may have several lines.
fn not_asked(why: &str) -> String {
    let why: Vec<_> = why.split_whitespace().collect();
    format!("cannot say whether Debian has a newer version: {}", why.join(" "))
}

/// The check of a pin while something is built. It never fails: it says in one line what went
/// wrong. The build waits for it at most [`WAIT`].
pub struct Notice(Option<Result<(Running, Receiver<String>)>>);

impl Notice {
    /// Starts the check in a process of its own, so that it can be ended at any time.
    pub fn ask(ws: &Workspace, series: &str) -> Self {
        let package = ws.pins().kernel_source(series).is_ok_and(Download::is_package);
        Self(package.then(|| Self::start(series)))
    }

    fn start(series: &str) -> Result<(Running, Receiver<String>)> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["pins", "check", "--for-build", series]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = Running::spawn(command)?;
        let mut output = child.take_stdout().context("the check has no output")?;
        let (sender, answer) = mpsc::channel();
        thread::spawn(move || {
            let mut text = String::new();
            let _ = output.read_to_string(&mut text);
            let _ = sender.send(text);
        });
        Ok((child, answer))
    }

    /// Prints the answer.
    pub fn print(self) {
        let Some(started) = self.0 else { return };
        let answer = started.and_then(|(_child, answer)| answer.recv_timeout(WAIT).context("the check has no answer"));
        match answer {
            Ok(text) => eprint!("{text}"),
            Err(error) => eprintln!("{}", not_asked(&format!("{error:#}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::super::lists::Part;
    use super::*;

    fn listed(version: &str, is_security: bool) -> Listed {
        let [file, sha256] = [String::new(), String::new()];
        let download = Download { version: version.into(), file, sha256, size: 0, paths: Vec::new(), snapshot: None };
        Listed { download, part: if is_security { Part::Security } else { Part::Release } }
    }

    #[test]
    fn a_pin_is_behind_newer_versions_only() {
        let versions = [listed("6.12.107-1", true), listed("6.12.117-1", false), listed("6.12.118-1", true)];
        let state = |pinned: &str, count: usize| State::of(&listed(pinned, false).download, &versions[..count]);
        let newest = || "6.12.118-1".to_owned();
        assert_eq!(state("6.12.118-1", 3), State::Newest);
        assert_eq!(state("6.12.119-1", 3), State::Newest);
        assert_eq!(state("6.12.111-1", 3), State::Insecure { newest: newest() });
        assert_eq!(state("6.12.117-1", 3), State::Insecure { newest: newest() });
        assert_eq!(state("6.12.111-1", 2), State::Behind { newest: "6.12.117-1".into() });
    }

    #[test]
    fn a_build_prints_one_line_for_an_update_or_for_what_went_wrong() {
        let newest = || "6.12.118-1".to_owned();
        let line = |updated: Result<()>, state: Result<State>| notice("6.12", "6.12.117-1", updated, state);
        let failed = || Err(anyhow!("cannot update the package lists:\n    E: no route\n    W: x"));
        assert_eq!(line(Ok(()), Ok(State::Newest)), None);
        let behind = "6.12: 6.12.117-1 is pinned, and Debian has 6.12.118-1: run `cargo xtask pins update 6.12`";
        for updated in [Ok(()), failed()] {
            assert_eq!(line(updated, Ok(State::Behind { newest: newest() })).as_deref(), Some(behind));
        }
        let why = "cannot say whether Debian has a newer version: cannot update the package lists: E: no route W: x";
        assert_eq!(line(failed(), Ok(State::Newest)).as_deref(), Some(why));
        assert_eq!(line(failed(), Err(anyhow!("no lists"))).as_deref(), Some(why));
        let why = "cannot say whether Debian has a newer version: it was valid until yesterday";
        assert_eq!(line(Ok(()), Err(anyhow!("it was valid until yesterday"))).as_deref(), Some(why));
    }

    #[test]
    fn the_exit_status_tells_a_security_update() {
        let newest = String::new;
        let states = [State::Newest, State::Behind { newest: newest() }, State::Insecure { newest: newest() }];
        assert!(states.is_sorted());
        assert_eq!(states.map(|state| state.exit_status()), [0, 3, 4]);
    }
}
