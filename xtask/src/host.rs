// SPDX-License-Identifier: GPL-2.0-only
//! The host: what the commands need of it, and the changes that `setup` makes. All other commands
//! only check the host.

use std::env;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use fs_err as fs;
use rustix::process::{geteuid, getuid};
use xshell::{Shell, cmd};

use crate::process;
use crate::sources::mirrors::KEYRING;
use crate::workspace::{Lock, Workspace};

/// Programs that xtask runs, and their Debian packages.
const PROGRAMS: [(&str, &str); 9] = [
    ("mmdebstrap", "mmdebstrap"),
    ("bwrap", "bubblewrap"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("curl", "curl"),
    ("xz", "xz-utils"),
    ("tar", "tar"),
    ("apt-get", "apt"),
    // The tests sign repositories.
    ("gpg", "gpg"),
    ("gpg-agent", "gpg-agent"),
];

/// The files with the ranges of subordinate ids: subuid(5), subgid(5).
const SUBORDINATE_IDS: [&str; 2] = ["/etc/subuid", "/etc/subgid"];
/// The size of a range: SUB_UID_COUNT in login.defs(5).
const RANGE: u64 = 65_536;
/// The first subordinate id: SUB_UID_MIN in login.defs(5).
const FIRST: u64 = 100_000;

/// Whether to ask before the host is changed.
#[derive(Args, Clone, Debug, Default)]
pub struct Consent {
    /// Install packages without asking
    #[arg(long, short)]
    pub yes: bool,
}

/// Takes the lock and fails if the host lacks something. Commands that build begin with it.
pub fn require(ws: &Workspace) -> Result<Lock> {
    let changes = needed_changes(ws)?;
    if !changes.is_empty() {
        bail!("this host is not set up yet; `cargo xtask setup` would{}", describe(&changes));
    }
    let lock = ws.lock()?;
    check_sandbox(ws)?;
    Ok(lock)
}

/// Sets the host up. Commands for newcomers begin with it.
pub fn ensure_ready(ws: &Workspace, consent: &Consent) -> Result<()> {
    let changes = needed_changes(ws)?;
    if changes.is_empty() { Ok(()) } else { make(ws, &changes, consent) }
}

/// A change of the host.
pub struct Change {
    description: String,
    /// The command that makes it, as root.
    command: Vec<String>,
}

impl Change {
    fn install(packages: &[&str]) -> Self {
        let apt = ["apt-get", "install", "--yes", "--no-install-recommends", "--quiet"];
        let command = [&apt[..], &["--option=DPkg::Lock::Timeout=120"], packages].concat();
        let description = format!("install the packages {}", packages.join(" "));
        Self { description, command: command.into_iter().map(String::from).collect() }
    }

    /// A range of subordinate user and group ids, for mmdebstrap as an ordinary user:
    /// <https://manpages.debian.org/trixie/mmdebstrap/mmdebstrap.1.en.html#unshare>
    fn add_ids(user: &str, first: u64) -> Self {
        let range = format!("{first}-{}", first + RANGE - 1);
        let description = format!("add the subordinate ids {range} for {user} to {}", SUBORDINATE_IDS.join(" and "));
        let command = ["usermod", "--add-subuids", &range, "--add-subgids", &range, user];
        Self { description, command: command.map(String::from).to_vec() }
    }

    fn make(&self) -> Result<()> {
        if !geteuid().is_root() {
            let hint = |problem| format!("{problem}; as root, run: {}", self.command.join(" "));
            let mut ask = Command::new(find("sudo").with_context(|| hint("sudo is missing"))?);
            ask.arg("--validate");
            process::run_foreground(ask).with_context(|| hint("sudo refuses"))?;
        }
        let result = privileged(&self.command);
        if result.is_ok() || self.command[0] != "apt-get" {
            return result;
        }
        // The usual cause of a failure is that the package lists are old or missing.
        process::check()?;
        privileged(&["apt-get", "update"])?;
        privileged(&self.command)
    }
}

/// The changes, one a line.
fn describe(changes: &[Change]) -> String {
    changes.iter().map(|change| format!("\n    {}", change.description)).collect()
}

/// Prints the changes without making them.
pub fn print_changes(changes: &[Change]) {
    eprintln!("this host needs these changes:{}", describe(changes));
}

/// Makes the changes, after a question if a person is at the terminal.
pub fn make(ws: &Workspace, changes: &[Change], consent: &Consent) -> Result<()> {
    let _lock = ws.lock()?;
    print_changes(changes);
    if !consent.yes && std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        eprint!("Continue? [Y/n] ");
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).context("cannot read the answer")?;
        ensure!(matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes"), "nothing was changed");
    }
    for change in changes {
        change.make().with_context(|| format!("cannot {}", change.description))?;
    }
    let left = needed_changes(ws)?;
    ensure!(left.is_empty(), "the commands succeeded, but this is still needed:{}", describe(&left));
    Ok(())
}

/// The changes that the host needs before the other commands can run.
pub fn needed_changes(ws: &Workspace) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    let packages = missing_packages(ws);
    if !packages.is_empty() {
        changes.push(Change::install(&packages));
    }
    if !geteuid().is_root() {
        changes.extend(missing_ids()?);
    }
    Ok(changes)
}

fn missing_packages(ws: &Workspace) -> Vec<&'static str> {
    let missing = PROGRAMS.iter().filter(|(program, _)| find(program).is_none());
    let mut packages: Vec<_> = missing.map(|(_, package)| *package).collect();
    // An old keyring lacks the key of the build root's release.
    let key = format!("/usr/share/keyrings/debian-archive-{}-stable.gpg", ws.pins().suite);
    if !Path::new(KEYRING).exists() || !Path::new(&key).exists() {
        packages.push("debian-archive-keyring");
    }
    if !geteuid().is_root() && find("newuidmap").is_none() {
        packages.push("uidmap");
    }
    packages
}

fn find(program: &str) -> Option<PathBuf> {
    // The PATH of an ordinary user may lack the sbin folders.
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Prints a command and runs it as root.
fn privileged(words: &[impl AsRef<str>]) -> Result<()> {
    let words: Vec<_> = words.iter().map(AsRef::as_ref).collect();
    let shown = words.join(" ");
    let program = find(words[0]).with_context(|| format!("{} is missing", words[0]))?;
    let mut command = Command::new(&program);
    if !geteuid().is_root() {
        command = Command::new(find("sudo").context("sudo is missing")?);
        command.arg("--").arg(program);
    }
    eprintln!("running as root: {shown}");
    // sudo must stay in the terminal's process group, to ask for the password.
    command.args(&words[1..]).stdin(Stdio::null());
    process::run_foreground(command)
}

/// The subordinate ids that the user lacks. `getsubids` asks the same sources as mmdebstrap, which
/// may be others than the files (`subid:` in nsswitch.conf(5)).
fn missing_ids() -> Result<Option<Change>> {
    let sh = Shell::new()?;
    let uid = getuid().as_raw().to_string();
    let user = env::var("USER").unwrap_or_else(|_| uid.clone());
    let texts = SUBORDINATE_IDS.map(|file| fs::read_to_string(file).unwrap_or_default());
    let has_ids = match find("getsubids") {
        Some(getsubids) => [None, Some("-g")].into_iter().all(|option| {
            let ids = cmd!(sh, "{getsubids} {option...} {user}").quiet().ignore_stderr().read();
            ids.is_ok_and(|ids| !ids.is_empty())
        }),
        None => texts.iter().all(|text| ranges(text).any(|(owner, _)| owner == user || owner == uid)),
    };
    if has_ids {
        return Ok(None);
    }
    let nsswitch = fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    if nsswitch.lines().any(|line| line.starts_with("subid:") && line.trim_end() != "subid: files") {
        bail!(
            "{user} has no subordinate ids, and nsswitch.conf has another source for them than the files: ask its administrator"
        );
    }
    Ok(Some(Change::add_ids(&user, first_free(&texts))))
}

/// The owner of each range in a subuid(5) or subgid(5), and the id after its last one.
fn ranges(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (owner, range) = line.split_once(':')?;
        let (first, count) = range.split_once(':')?;
        Some((owner, first.parse::<u64>().ok()? + count.trim().parse::<u64>().ok()?))
    })
}

/// The first id above all ranges of the files.
fn first_free(texts: &[String]) -> u64 {
    texts.iter().flat_map(|text| ranges(text)).map(|(_, end)| end).max().unwrap_or(FIRST).max(FIRST)
}

/// Fails if this host does not allow the namespaces of the build root. An existing build root shows
/// that it does.
fn check_sandbox(ws: &Workspace) -> Result<()> {
    if ws.cache().join("root").exists() {
        return Ok(());
    }
    let sh = Shell::new()?;
    let probe = cmd!(sh, "bwrap --ro-bind / / --unshare-pid --unshare-net --proc /proc --dev /dev -- true");
    let output = probe.quiet().ignore_status().output()?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "bubblewrap cannot make a sandbox (are user namespaces disabled?): {}",
        message.trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_range_is_above_all_others() {
        let texts = |uid: &str, gid: &str| [uid.to_owned(), gid.to_owned()];
        assert_eq!(first_free(&texts("", "")), 100_000);
        assert_eq!(first_free(&texts("a:100000:65536\n", "a:100000:65536\n")), 165_536);
        assert_eq!(first_free(&texts("a:100000:65536\n", "b:300000:1000\n# x\n")), 301_000);
        assert_eq!(first_free(&texts("low:1000:10\n", "")), 100_000);
    }

    #[test]
    fn a_change_is_described() {
        let change = Change::add_ids("ann", 165_536);
        let text = "add the subordinate ids 165536-231071 for ann to /etc/subuid and /etc/subgid";
        assert_eq!(change.description, text);
        assert_eq!(Change::install(&["curl", "tar"]).description, "install the packages curl tar");
    }
}
