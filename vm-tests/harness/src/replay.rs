// SPDX-License-Identifier: GPL-2.0-only
//! Sends captures to a guest and reads its tables, for `cargo xtask replay`.

mod device;
mod plan;

use std::collections::HashSet;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use self::plan::Plan;
use crate::artifacts::Artifacts;
use crate::command::Output;
use crate::guest::{Config, Guest, mac_of_port};
use traffic_model::frames::Mac;
use traffic_model::model::{self, Port, Rule};

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
    /// Where the frames arrive.
    pub receiver: Receiver,
    /// When the frames arrive.
    pub pace: Pace,
    /// Whether to compare the tables and the device's statistics with the [model].
    pub check: bool,
}

/// Where the frames arrive: at `eth0`, with or without a mirror device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// The mirror device `mirror0` takes all frames of the port.
    Mirror {
        /// Whether it counts packets whose end is missing.
        sliced: bool,
    },
    /// The port is promiscuous and has no mirror device.
    Plain,
}

/// When the frames arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At the times of the captures, by a clock that jumps while nothing happens. Each capture
    /// begins when the one before has ended.
    Captured,
    /// As soon as possible: no timeout of a connection passes.
    Fast,
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
/// Prints to standard error what is not replayed, and what the mirror device does not pass to
/// PROMISC.
///
/// # Errors
/// When a capture cannot be read or has frames of which none can be sent, iptables refuses a rule,
/// a frame is lost, or the guest fails. The captures are checked before the guest boots. With
/// `check`, also when the model computes other tables or statistics or does not support a rule.
pub fn replay(options: &Options) -> Result<Vec<Table>> {
    replay_with_progress(options, |_, _| {})
}

/// As [`replay`]. Calls `progress` with the number of sent frames and the number of all frames,
/// before the first frame and after the last one, and with [`Pace::Fast`] after each.
///
/// # Errors
/// As [`replay`].
pub fn replay_with_progress(options: &Options, progress: impl FnMut(usize, usize)) -> Result<Vec<Table>> {
    let plan = Plan::new(options)?;
    plan.notes.iter().for_each(|note| eprintln!("{note}"));
    let default = [DEFAULT_RULE.to_owned()];
    let rules = if options.rules.is_empty() { &default } else { options.rules.as_slice() };
    let modelled = options.check.then(|| modelled_rules(rules)).transpose()?;
    let mut guest = boot(options, &plan)?;
    let port = open_port(&mut guest, options, &plan)?;
    rules.iter().try_for_each(|rule| add_rule(&mut guest, options.backend, rule))?;
    let times = send(&mut guest, options.pace, &plan, progress)?;
    let tables = read_tables(&mut guest)?;
    let statistics = match port {
        Port::Mirror { .. } => Some(device::report(&mut guest, plan.frames.len())?),
        Port::Plain(_) => None,
    };
    guest.check_log()?;
    for (name, rule) in modelled.iter().flatten() {
        let frames = times.iter().copied().zip(plan.frames());
        check_table(&tables, model::texts_at_times(name, rule, port, frames))?;
    }
    if let (true, Port::Mirror { sliced }, Some(got)) = (options.check, port, statistics) {
        device::check(&got, &model::statistics(plan.frames(), sliced))?;
    }
    Ok(tables)
}

/// The host's clock would let hours pass, so the captures' own times need the virtual one.
fn boot(options: &Options, plan: &Plan) -> Result<Guest> {
    let artifacts = options.artifacts.clone();
    Guest::boot(&match options.pace {
        Pace::Captured => Config { memory_mib: plan.memory_mib()?, ..Config::with_virtual_clock(artifacts) },
        Pace::Fast => Config::new(artifacts),
    })
}

/// Brings `eth0` up. With the captures' own times, it is the end of a veth pair, whose other end
/// the guest itself sends the frames to.
fn open_port(guest: &mut Guest, options: &Options, plan: &Plan) -> Result<Port> {
    let inner = options.pace == Pace::Captured;
    if inner {
        guest.must(&format!("ip link set {PORT} name unused0"))?;
        guest.add_inner_port(PORT)?;
    }
    let port = match options.receiver {
        Receiver::Mirror { sliced } => {
            device::add(guest, sliced)?;
            Port::Mirror { sliced }
        }
        Receiver::Plain => {
            let mac = unused_mac(plan.frames());
            guest.set_mac(0, mac)?;
            Port::Plain(mac)
        }
    };
    match inner {
        true => guest.bring_inner_port_up(PORT)?,
        false => guest.open_port(0)?,
    }
    Ok(port)
}

/// The name of the port.
const PORT: &str = "eth0";

/// Frames that are this late are reported.
const LATE: Duration = Duration::from_millis(100);

/// Sends all frames. Returns their times of arrival.
fn send(guest: &mut Guest, pace: Pace, plan: &Plan, mut progress: impl FnMut(usize, usize)) -> Result<Vec<Duration>> {
    let all = plan.frames.len();
    progress(0, all);
    let times = match pace {
        Pace::Captured => {
            let arrivals = guest.send_at(&plan.frames)?;
            if arrivals.delay > LATE {
                eprintln!("note: the guest was slower than the captures; a frame was {:.1?} late", arrivals.delay);
            }
            arrivals.times
        }
        Pace::Fast => {
            let frames = plan.frames().enumerate().inspect(|(sent, _)| progress(sent + 1, all));
            guest.send(0, frames.map(|(_, frame)| frame))?;
            vec![Duration::ZERO; all]
        }
    };
    progress(all, all);
    Ok(times)
}

/// Compares the files of one table.
fn check_table(tables: &[Table], wanted: Vec<(String, String)>) -> Result<()> {
    for (file, want) in wanted {
        let got = tables.iter().find(|table| table.name == file);
        let got = got.with_context(|| format!("the guest has no table {file}"))?;
        model::same_table(&file, &String::from_utf8_lossy(&got.text), &want)?;
    }
    Ok(())
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
