// SPDX-License-Identifier: GPL-2.0
//! `setup`: what the host needs, checked always and installed when it is missing.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use rustix::process::geteuid;

use crate::{
    buildroot::KEYRING,
    process,
    workshop::{Lock, Workshop},
};

/// Programs that are called, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 7] = [
    ("mmdebstrap", "mmdebstrap"),
    ("bwrap", "bubblewrap"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("curl", "curl"),
    ("xz", "xz-utils"),
    ("tar", "tar"),
    ("apt-get", "apt"),
];

/// Installs what is missing, and says that nothing is when that is so.
pub fn run(ws: &Workshop) -> Result<()> {
    let before = missing(ws);
    let _lock = prepare(ws)?;
    if before.is_empty() {
        eprintln!("everything that is needed is installed");
    }
    Ok(())
}

/// What every other command begins with: takes the lock, and installs what is missing.
pub fn prepare(ws: &Workshop) -> Result<Lock> {
    let lock = ws.lock()?;
    ensure(ws)?;
    Ok(lock)
}

/// Installs what is missing; silent when nothing is.
fn ensure(ws: &Workshop) -> Result<()> {
    let packages = missing(ws);
    if !packages.is_empty() {
        install(ws, &packages)?;
        let still = missing(ws);
        if !still.is_empty() {
            bail!("apt-get succeeded, but these are still missing: {}", still.join(", "));
        }
    }
    if !geteuid().is_root() {
        ensure_subordinate_ids(ws)?;
    }
    ensure_sandbox(ws)
}

/// The packages that the host lacks.
fn missing(ws: &Workshop) -> Vec<&'static str> {
    let mut packages: Vec<_> =
        PROGRAMS.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    // An old keyring lacks the key that signs the release we build in.
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
    // An ordinary user's PATH may lack the sbin folders.
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

fn install(ws: &Workshop, packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    eprintln!("missing on this machine: {list}");
    let Some(apt) = find("apt-get") else {
        bail!("this machine has no apt-get; install these by hand: {list}");
    };
    // Package lists that are old, or not there at all, are the usual cause of a failed install.
    let wait = "--option=DPkg::Lock::Timeout=120";
    let mut install = vec!["install", "--yes", "--no-install-recommends", wait];
    install.extend(packages);
    if !geteuid().is_root() && find("sudo").is_none() {
        bail!("there is no sudo here; as root, run: apt-get install {list}");
    }
    if privileged(ws, &apt, &install).is_err() {
        process::check()?;
        privileged(ws, &apt, &["update"])?;
        privileged(ws, &apt, &install)?;
    }
    Ok(())
}

/// Runs a command as root, after saying so; its output goes to a log file.
fn privileged(ws: &Workshop, program: &Path, arguments: &[&str]) -> Result<()> {
    let shown = format!("{} {}", program.display(), arguments.join(" "));
    let mut command = if geteuid().is_root() {
        Command::new(program)
    } else {
        let sudo = find("sudo").with_context(|| format!("there is no sudo here; as root, run: {shown}"))?;
        // It may ask for a password, which it could not do below a spinner.
        eprintln!("this needs sudo: {shown}");
        let mut ask = Command::new(&sudo);
        ask.arg("--validate");
        if !process::run_foreground(ask)?.success() {
            bail!("sudo refuses; as root, run: {shown}");
        }
        let mut command = Command::new(sudo);
        command.arg("--").arg(program);
        command
    };
    let mut step = ws.step("setup", format!("running {shown}"))?;
    command.args(arguments).stdin(Stdio::null()).stdout(step.log()?).stderr(step.log()?);
    // Not in a process group of its own: sudo wants to be in the terminal's.
    let status = process::run_foreground(command)?;
    step.require_logged(status, &program.display().to_string())?;
    step.finish();
    Ok(())
}

/// mmdebstrap as an ordinary user needs a range of user ids for the system that it makes.
fn ensure_subordinate_ids(ws: &Workshop) -> Result<()> {
    let uid = rustix::process::getuid().as_raw().to_string();
    let name = env::var("USER").unwrap_or_else(|_| uid.clone());
    let has = |file: &str| {
        std::fs::read_to_string(file).is_ok_and(|text| {
            text.lines().any(|line| {
                let owner = line.split(':').next().unwrap_or_default();
                owner == name || owner == uid
            })
        })
    };
    if has("/etc/subuid") && has("/etc/subgid") {
        return Ok(());
    }
    eprintln!("{name} has no range of subordinate user ids, which mmdebstrap needs");
    let usermod = find("usermod").context("there is no usermod here")?;
    let range = "100000-165535";
    privileged(ws, &usermod, &["--add-subuids", range, "--add-subgids", range, &name])
}

/// Some systems forbid the namespaces that the build root needs: say so before a build fails oddly.
/// Once it has worked here it is not tried again.
fn ensure_sandbox(ws: &Workshop) -> Result<()> {
    if ws.cache().join("root").exists() {
        return Ok(());
    }
    let mut probe = Command::new("bwrap");
    probe.args(["--ro-bind", "/", "/", "--unshare-pid", "--unshare-net", "--proc", "/proc"]);
    probe.args(["--dev", "/dev", "--", "true"]);
    let mut output = Vec::new();
    let status = process::run_lines(probe, |line| output.push(line.to_owned()))?;
    if !status.success() {
        bail!(
            "bubblewrap cannot make a sandbox on this machine (are user namespaces forbidden?): {}",
            output.join("; ")
        );
    }
    Ok(())
}
