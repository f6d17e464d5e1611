// SPDX-License-Identifier: GPL-2.0-only
//! Sets up the system: mounts, loopback interface, kernel module.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;

use crate::{context, sys};

/// The patched tools precede Debian's.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const MODULE: &str = "/lib/modules/xt_traffic.ko";

/// The state of the system after setup.
pub struct System {
    /// The state of the kernel module: `loaded`, `absent`, or an error.
    pub module: String,
    /// The number of online CPUs.
    pub cpus: usize,
}

/// Sets up the system.
pub fn boot() -> Result<System, String> {
    for (kind, target) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("debugfs", "/sys/kernel/debug"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
    ] {
        mount(kind, target)?;
    }
    // Ports get no link-local IPv6 address, so they send nothing.
    write_sysctl("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1")?;
    let status = context("/bin/sh", shell("ifconfig lo up").status())?;
    if !status.success() {
        return Err("cannot bring the loopback interface up".into());
    }
    let cpus = context("CPUs", std::thread::available_parallelism())?.get();
    Ok(System { module: load_module(), cpus })
}

/// Whether the kernel command line requests a shell on the console.
pub fn wants_shell() -> Result<bool, String> {
    let line = context("/proc/cmdline", fs::read_to_string("/proc/cmdline"))?;
    Ok(line.split_whitespace().any(|word| word == "agent.shell"))
}

/// `/bin/sh -c LINE` with the guest's environment.
pub fn shell(line: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(line).env_clear().env("PATH", PATH).env("HOME", "/root").env("TERM", "dumb");
    command
}

fn mount(kind: &str, target: &str) -> Result<(), String> {
    // A kernel without debugfs has no /sys/kernel/debug.
    if kind == "debugfs" && !Path::new(target).is_dir() {
        return Ok(());
    }
    context(target, fs::create_dir_all(target))?;
    match sys::mount_pseudo(kind, target) {
        // The kernel may have mounted it.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
        result => context(&format!("mount {target}"), result),
    }
}

/// Sets a sysctl if the kernel has it.
fn write_sysctl(path: &str, value: &str) -> Result<(), String> {
    if Path::new(path).exists() { context(path, fs::write(path, value)) } else { Ok(()) }
}

fn load_module() -> String {
    match File::open(MODULE) {
        Err(_) => "absent".into(),
        Ok(module) => match sys::insert_module(&module, "") {
            Ok(()) => "loaded".into(),
            Err(error) => format!("cannot load {MODULE}: {error}"),
        },
    }
}
