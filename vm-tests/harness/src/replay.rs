// SPDX-License-Identifier: GPL-2.0-only
//! Sends captures to a guest and reads its tables, for `cargo xtask replay`.

use std::collections::HashSet;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::artifacts::Artifacts;
use crate::command::Output;
use crate::guest::{Config, Guest, check_length, mac_of_port};
use traffic_model::capture::Capture;
use traffic_model::frames::Mac;
use traffic_model::model::{self, Rule};

/// Where the module's files are.
pub const TABLES: &str = "/proc/net/xt_traffic";

/// The default rule: it counts all IPv4 addresses.
pub const DEFAULT_RULE: &str = "-A PROMISC -m traffic --traffic --net 0.0.0.0/0 --name all";

/// The back end of iptables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// `iptables-nft`, on nf_tables: Debian's default.
    #[default]
    Nft,
    /// `iptables-legacy`, on x_tables.
    Legacy,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        })
    }
}

impl Backend {
    /// The shell command line for a rule: the arguments of an `iptables` command, or a whole
    /// command that begins with `iptables` or `ip6tables`.
    pub fn command(self, rule: &str) -> String {
        let (program, arguments) = match rule.trim().split_once(char::is_whitespace) {
            Some((program @ ("iptables" | "ip6tables"), arguments)) => (program, arguments),
            _ => ("iptables", rule),
        };
        format!("/usr/local/sbin/{program}-{self} {arguments}")
    }
}

/// What to replay.
#[derive(Clone, Debug)]
pub struct Options {
    /// The guest's kernel and file system.
    pub artifacts: Artifacts,
    /// The back end for the rules.
    pub backend: Backend,
    /// The rules, in order; [`DEFAULT_RULE`] when there are none.
    pub rules: Vec<String>,
    /// The capture files, in order.
    pub captures: Vec<PathBuf>,
    /// Whether to compare the tables with the [model].
    pub check: bool,
}

/// A file of [`TABLES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name in the folder.
    pub name: String,
    /// Its content.
    pub text: Vec<u8>,
}

/// Sends the frames of captures to a guest's mirror port. Returns its tables, sorted by name.
/// Prints warnings to standard error.
///
/// # Errors
/// When a capture cannot be read or has frames that cannot be sent, iptables refuses a rule, a
/// frame is lost, or the guest fails. The captures are checked before the guest boots. With
/// `check`, also when the model computes other tables or does not support a rule.
pub fn replay(options: &Options) -> Result<Vec<Table>> {
    replay_with_progress(options, |_, _| {})
}

/// As [`replay`]. Calls `progress` with the number of sent frames and the number of all frames,
/// before the first frame and after each.
///
/// # Errors
/// As [`replay`].
pub fn replay_with_progress(options: &Options, mut progress: impl FnMut(usize, usize)) -> Result<Vec<Table>> {
    let captures = options.captures.iter().map(|path| Capture::open(path)).collect::<Result<Vec<_>>>()?;
    for (capture, path) in captures.iter().zip(&options.captures) {
        check_frames(capture, path)?;
    }
    let mac = unused_mac(captures.iter().flat_map(sendable));
    let mut guest = Guest::boot(&Config::new(options.artifacts.clone()))?;
    guest.set_mac(0, mac)?;
    guest.open_port(0)?;
    let default = [DEFAULT_RULE.to_owned()];
    let rules = if options.rules.is_empty() { &default } else { options.rules.as_slice() };
    rules.iter().try_for_each(|rule| add_rule(&mut guest, options.backend, rule))?;
    let modelled = options.check.then(|| modelled_rules(rules)).transpose()?;
    let all = captures.iter().map(|capture| sendable(capture).count()).sum();
    let mut sent = 0;
    progress(sent, all);
    for (capture, path) in captures.iter().zip(&options.captures) {
        let frames = sendable(capture).inspect(|_| {
            sent += 1;
            progress(sent, all);
        });
        guest.send(0, frames).with_context(|| path.display().to_string())?;
    }
    let tables = read_tables(&mut guest)?;
    guest.check_log()?;
    for (name, rule) in modelled.iter().flatten() {
        let frames = captures.iter().flat_map(sendable);
        for (file, want) in model::texts(name, rule, mac, frames) {
            let got = tables
                .iter()
                .find(|table| table.name == file)
                .with_context(|| format!("the guest has no table {file}"))?;
            model::same_table(&file, &String::from_utf8_lossy(&got.text), &want)?;
        }
    }
    Ok(tables)
}

/// Parses the rules for the model, which supports one rule for each table.
fn modelled_rules(rules: &[String]) -> Result<Vec<(String, Rule)>> {
    let mut names = HashSet::new();
    let parsed = rules.iter().filter_map(|rule| Rule::parse(rule).transpose()).collect::<Result<Vec<_>>>()?;
    match parsed.iter().find(|(name, _)| !names.insert(name.clone())) {
        Some((name, _)) => bail!("the model supports one rule for each table, but {name} has more"),
        None => Ok(parsed),
    }
}

/// The frames of a capture that are not empty.
fn sendable(capture: &Capture) -> impl Iterator<Item = &[u8]> {
    capture.frames().filter(|frame| !frame.is_empty())
}

/// Checks that the frames can be sent, before a guest boots.
fn check_frames(capture: &Capture, path: &Path) -> Result<()> {
    let path = path.display();
    let empty = capture.frames().len() - sendable(capture).count();
    if empty > 0 {
        eprintln!("warning: {path}: {empty} empty frames are skipped");
    }
    for (number, frame) in capture.frames().enumerate().filter(|(_, frame)| !frame.is_empty()) {
        check_length(frame).with_context(|| format!("{path}: frame {}", number + 1))?;
    }
    eprintln!("{path}: {} frames", capture.frames().len());
    Ok(())
}

/// Prints tables, each after a line `==> NAME <==`, as `head` does.
///
/// # Errors
/// When the output cannot be written.
pub fn print(tables: &[Table], mut to: impl Write) -> Result<()> {
    for Table { name, text } in tables {
        writeln!(to, "==> {name} <==")?;
        to.write_all(text)?;
    }
    Ok(to.flush()?)
}

fn add_rule(guest: &mut Guest, backend: Backend, rule: &str) -> Result<()> {
    let Output { status, stdout, stderr } = guest.run(&backend.command(rule))?;
    ensure!(status == 0, "{stderr}{stdout}the rule was refused (exit status {status}): {rule}");
    eprint!("{stderr}{stdout}");
    Ok(())
}

/// Reads the module's tables. Files with a leading dot are not tables.
fn read_tables(guest: &mut Guest) -> Result<Vec<Table>> {
    let names = guest.must(&format!("ls {TABLES}")).context("the guest has no kernel module")?;
    let read = |name: &str| Ok(Table { name: name.to_owned(), text: guest.read(&format!("{TABLES}/{name}"))? });
    let mut tables = names.lines().map(read).collect::<Result<Vec<_>>>()?;
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tables)
}

/// An address for the guest's port that is not the destination of any frame: frames to the port's
/// own address do not pass through PROMISC.
fn unused_mac<'a>(frames: impl Iterator<Item = &'a [u8]>) -> Mac {
    let used: HashSet<Mac> = frames.filter_map(|frame| frame.first_chunk().copied()).collect();
    let mut mac = mac_of_port(0);
    // There are 2^32 such addresses; a capture has fewer frames.
    while used.contains(&mac) {
        let end: &mut [u8; 4] = mac.last_chunk_mut().expect("it has six bytes");
        *end = u32::from_be_bytes(*end).wrapping_add(1).to_be_bytes();
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_with_and_without_the_program() {
        let command = |rule| Backend::Legacy.command(rule);
        assert_eq!(command("-A PROMISC -j ACCEPT"), "/usr/local/sbin/iptables-legacy -A PROMISC -j ACCEPT");
        assert_eq!(command("iptables -L"), "/usr/local/sbin/iptables-legacy -L");
        assert_eq!(command("ip6tables -P PROMISC DROP"), "/usr/local/sbin/ip6tables-legacy -P PROMISC DROP");
        assert_eq!(Backend::Nft.command("-L"), "/usr/local/sbin/iptables-nft -L");
    }

    #[test]
    fn the_port_gets_an_unused_address() {
        let default = mac_of_port(0);
        assert_eq!(unused_mac(std::iter::empty()), default);
        let to_default = [&default[..], &[0; 8]].concat();
        let mac = unused_mac([to_default.as_slice(), &[1, 2, 3]].into_iter());
        assert_ne!(mac, default);
        assert_eq!(mac[0] & 3, 2, "a locally administered unicast address");
    }

    #[test]
    fn tables_are_printed_with_their_names() {
        let table = |name: &str, text: &[u8]| Table { name: name.into(), text: text.into() };
        let mut out = Vec::new();
        print(&[table("a", b"x\n"), table("b", b"")], &mut out).unwrap();
        assert_eq!(out, b"==> a <==\nx\n==> b <==\n");
    }
}
