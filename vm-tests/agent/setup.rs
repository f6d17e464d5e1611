// SPDX-License-Identifier: GPL-2.0
//! From bare initramfs to working machine.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;

use crate::{failed, sys};

/// Patched tools first, then the stock ones.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const MODULE: &str = "/lib/modules/xt_traffic.ko";

/// What the host wants to know about the machine once it is up.
pub struct Machine {
    /// `loaded`, `absent`, or why loading failed.
    pub module: String,
    /// How many CPUs are online.
    pub cpus: usize,
}

/// Mounts, links, the loopback interface, the module.
pub fn boot() -> Result<Machine, String> {
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
    install_busybox()?;
    // A port under test has no address of its own: not even the link-local IPv6 one it would make itself.
    write_sysctl("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1")?;
    let status = failed("/bin/sh", shell("ifconfig lo up").status())?;
    if !status.success() {
        return Err("cannot bring the loopback interface up".into());
    }
    let cpus = failed("CPUs", std::thread::available_parallelism())?.get();
    Ok(Machine { module: load_module(), cpus })
}

/// Whether the kernel command line asks for a shell on the console instead of a served port.
pub fn wants_shell() -> Result<bool, String> {
    let line = failed("/proc/cmdline", fs::read_to_string("/proc/cmdline"))?;
    Ok(line.split_whitespace().any(|word| word == "agent.shell"))
}

/// Debian's busybox shell runs its own small `ip` whatever the search path says, unless a function has the name.
const PRELUDE: &str = "ip() { /usr/sbin/ip \"$@\"; }";

/// `/bin/sh -c LINE` with the guest's search path, not yet started.
pub fn shell(line: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg(format!("{PRELUDE}\n{line}"))
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", "/root")
        .env("TERM", "dumb");
    command
}

fn mount(kind: &str, target: &str) -> Result<(), String> {
    // sysfs makes /sys/kernel/debug itself, but only in a kernel that has debugfs.
    if kind == "debugfs" && !Path::new(target).is_dir() {
        return Ok(());
    }
    failed(target, fs::create_dir_all(target))?;
    match sys::mount_pseudo(kind, target) {
        // The kernel may have mounted /dev by itself (CONFIG_DEVTMPFS_MOUNT does not for an initramfs).
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
        result => failed(&format!("mount {target}"), result),
    }
}

/// The root file system is extracted packages, without what their scripts would have done: busybox has no
/// links yet. Its applets never replace a real program.
fn install_busybox() -> Result<(), String> {
    if Path::new("/bin/sh").exists() {
        return Ok(());
    }
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let busybox = busybox.ok_or("no /bin/sh and no busybox in the initramfs")?;
    failed("/bin", fs::create_dir_all("/bin"))?;
    let list = failed(busybox, Command::new(busybox).arg("--list").output())?;
    for applet in String::from_utf8_lossy(&list.stdout).lines() {
        let real = PATH.split(':').any(|folder| Path::new(folder).join(applet).exists());
        if !real {
            failed(applet, std::os::unix::fs::symlink(busybox, Path::new("/bin").join(applet)))?;
        }
    }
    Ok(())
}

/// Sets a sysctl that a small kernel may lack.
fn write_sysctl(path: &str, value: &str) -> Result<(), String> {
    if Path::new(path).exists() { failed(path, fs::write(path, value)) } else { Ok(()) }
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
