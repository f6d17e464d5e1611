// SPDX-License-Identifier: GPL-2.0-only
//! Sets up the system: mounts, loopback interface, kernel module.

use std::ffi::CStr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::system::finit_module;

/// The patched tools precede Debian's.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const MODULE: &str = "/lib/modules/xt_traffic.ko";
/// Guests have little memory. Tables that are compared with the model must have all their rows.
const PARAMETERS: &CStr = c"memory=90%";

/// Sets up the system. Returns the state of the kernel module: `loaded`, `absent`, or an error.
pub fn boot() -> Result<String> {
    for (kind, target) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("debugfs", "/sys/kernel/debug"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
    ] {
        mount_pseudo(kind, target)?;
    }
    // Ports get no link-local IPv6 address, so they send nothing.
    let sysctl = "/proc/sys/net/ipv6/conf/default/addr_gen_mode";
    if Path::new(sysctl).exists() {
        fs::write(sysctl, "1")?;
    }
    ensure!(shell("ifconfig lo up").status()?.success(), "cannot bring the loopback interface up");
    Ok(load_module())
}

/// Whether the kernel command line requests a shell on the console.
pub fn wants_shell() -> Result<bool> {
    Ok(fs::read_to_string("/proc/cmdline")?.split_whitespace().any(|word| word == "agent.shell"))
}

/// `/bin/sh -c LINE` with the guest's environment.
pub fn shell(line: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(line).env_clear().env("PATH", PATH).env("HOME", "/root").env("TERM", "dumb");
    command
}

fn mount_pseudo(kind: &str, target: &str) -> Result<()> {
    // A kernel without debugfs has no /sys/kernel/debug.
    if kind == "debugfs" && !Path::new(target).is_dir() {
        return Ok(());
    }
    fs::create_dir_all(target)?;
    match mount(kind, target, kind, MountFlags::empty(), None) {
        // The kernel may have mounted it.
        Err(Errno::BUSY) => Ok(()),
        result => result.with_context(|| format!("mount {target}")),
    }
}

fn load_module() -> String {
    let Ok(module) = fs::File::open(MODULE) else { return "absent".into() };
    match finit_module(module.file(), PARAMETERS, 0) {
        Ok(()) => "loaded".into(),
        Err(error) => format!("cannot load {MODULE}: {error}"),
    }
}
