// SPDX-License-Identifier: GPL-2.0
//! The QEMU process: its arguments, its sockets, its end.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::state::State;
use super::{Config, mac_of_port};
use crate::accel::QEMU;
use crate::door::Door;

/// `sun_path` holds 108 bytes with its final NUL; the longest name in the folder has 10.
const MAX_FOLDER: usize = 90;

/// The machine. (`pc` works too, but has its interrupt routes in ACPI code that a debug kernel needs ten seconds
/// for, with each device.)
pub(crate) const MACHINE: &str = "q35";

/// The kernel's command line. A quiet console saves time (each character is an exit from the guest); an oops
/// is shown all the same, becomes a panic, and ends QEMU.
pub(super) const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 oops=panic log_buf_len=4M nokaslr mitigations=off \
                            random.trust_cpu=on no_timer_check";

/// Names the file with the devices' state to the shell that QEMU starts: a path in an environment variable
/// needs no quoting.
const STATE_VARIABLE: &str = "XT_VM_DEVICES";
/// Where QEMU writes the state to, and reads it from.
pub(super) const STATE_OUT: &str = "exec:exec cat >\"$XT_VM_DEVICES\"";
pub(super) const STATE_IN: &str = "exec:exec cat <\"$XT_VM_DEVICES\"";

/// A running QEMU and the folder with its files. Dropping it ends both.
pub(super) struct Qemu {
    child: Child,
    folder: TempDir,
}

/// The listening ends that QEMU connects to when it starts.
pub(super) struct Doors {
    agent: Door,
    qmp: Door,
}

/// How a guest begins.
pub(super) enum Start<'a> {
    /// Boots, with its memory in a file, so that its state can be saved.
    Boot(&'a State),
    /// Goes on from a saved state.
    Resume(&'a State),
    /// Boots, with a person's terminal as its console, and nobody else to talk to.
    Shell,
}

/// A folder for one guest's sockets and files, in the usual place for temporary files or, if that has too long
/// a name for a socket, in /tmp.
pub(crate) fn folder() -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("xt-vm-");
    let usual = std::env::temp_dir();
    let place = if usual.as_os_str().len() < MAX_FOLDER - 16 { usual.as_path() } else { Path::new("/tmp") };
    builder.tempdir_in(place).with_context(|| place.display().to_string())
}

/// The frame socket's path on our side of port `n`.
pub(crate) fn host_end(folder: &Path, n: usize) -> PathBuf {
    folder.join(format!("host{n}"))
}

/// The frame socket's path on QEMU's side of port `n`.
pub(crate) fn guest_end(folder: &Path, n: usize) -> PathBuf {
    folder.join(format!("guest{n}"))
}

impl Doors {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        Ok(Self { agent: Door::open(folder, "agent")?, qmp: Door::open(folder, "qmp")? })
    }
}

impl Qemu {
    /// Starts QEMU. The folder must already hold the sockets of the doors and our ends of the ports.
    pub(super) fn start(config: &Config, start: &Start, folder: TempDir) -> Result<Self> {
        let mut command = Command::new(QEMU);
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(config.clock.arguments()?)
            .args(["-smp", &config.cpus.to_string(), "-m", &format!("{}M", config.memory_mib)]);
        match start {
            Start::Boot(state) => {
                memory_arguments(&mut command, config, state, true);
                boot_arguments(&mut command, config, folder.path(), COMMAND_LINE)?;
                talk_arguments(&mut command, config, folder.path())?;
            }
            Start::Resume(state) => {
                memory_arguments(&mut command, config, state, false);
                // The kernel is in the memory already.
                command.args(["-incoming", "defer"]);
                talk_arguments(&mut command, config, folder.path())?;
            }
            Start::Shell => {
                command.args(["-machine", MACHINE, "-serial", "mon:stdio"]);
                boot_arguments(&mut command, config, folder.path(), &format!("{COMMAND_LINE} agent.shell"))?;
            }
        }
        let child = command.spawn().with_context(|| format!("cannot run {QEMU}"))?;
        Ok(Self { child, folder })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The connections that QEMU makes to the doors: the agent's and QMP's.
    pub(super) fn accept(&mut self, doors: &Doors) -> Result<(UnixStream, UnixStream)> {
        Ok((doors.agent.accept(&mut self.child)?, doors.qmp.accept(&mut self.child)?))
    }

    /// Waits until QEMU ends by itself.
    pub(super) fn wait(&mut self) -> Result<std::process::ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// What is known about a guest that has failed: whether QEMU still runs, and the end of what it and the
    /// guest's console have said.
    pub(super) fn post_mortem(&mut self) -> String {
        // Its connections close a moment before it ends.
        let deadline = Instant::now() + Duration::from_millis(500);
        let state = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break format!("QEMU has ended ({status})"),
                _ if Instant::now() > deadline => break "QEMU is still running".into(),
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        let tail = |name: &str| {
            let bytes = std::fs::read(self.folder.path().join(name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(60)..].join("\n")
        };
        format!("{state}; QEMU said:\n{}\nthe guest's console said:\n{}", tail("qemu.log"), tail("console"))
    }

    /// Everything that the guest's console has shown.
    pub(super) fn console(&self) -> String {
        let bytes = std::fs::read(self.folder.path().join("console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn port_arguments(command: &mut Command, folder: &Path, n: usize) {
    let [ours, theirs] = [host_end(folder, n), guest_end(folder, n)].map(|path| path.display().to_string());
    let mac = mac_of_port(n).map(|byte| format!("{byte:02x}")).join(":");
    command.arg("-netdev").arg(format!(
        "dgram,id=net{n},local.type=unix,local.path={},remote.type=unix,remote.path={}",
        escape(&theirs),
        escape(&ours)
    ));
    // The large MTU makes the driver offer buffers that hold a frame of 64 KiB.
    command
        .arg("-device")
        .arg(format!("virtio-net-pci,id=port{n},netdev=net{n},mac={mac},host_mtu=65535,romfile=,addr={:#x}", 0x10 + n));
}

/// The memory in a file. A guest that is to be saved writes to the file, one that goes on from there does not.
fn memory_arguments(command: &mut Command, config: &Config, state: &State, write: bool) {
    let share = if write { "on" } else { "off" };
    let path = escape(&state.memory().display().to_string());
    let size = config.memory_mib;
    command
        .args(["-machine", &format!("{MACHINE},memory-backend=memory"), "-object"])
        .arg(format!("memory-backend-file,id=memory,size={size}M,mem-path={path},share={share}"))
        .env(STATE_VARIABLE, state.devices());
}

fn boot_arguments(command: &mut Command, config: &Config, folder: &Path, line: &str) -> Result<()> {
    let initramfs = folder.join("initramfs");
    config.artifacts.write_initramfs(&initramfs)?;
    command.arg("-kernel").arg(config.artifacts.kernel()).arg("-initrd").arg(initramfs).args(["-append", line]);
    Ok(())
}

/// Ports, console in a file, the agent's port, QMP, and QEMU's own messages in a file.
fn talk_arguments(command: &mut Command, config: &Config, folder: &Path) -> Result<()> {
    for n in 0..config.ports {
        port_arguments(command, folder, n);
    }
    let path = |name: &str| escape(&folder.join(name).display().to_string());
    let said = File::create(folder.join("qemu.log"))?;
    command
        .args(["-device", "virtio-serial-pci"])
        .args(["-chardev", &format!("file,id=console,path={}", path("console")), "-serial", "chardev:console"])
        .args(["-chardev", &format!("socket,id=agent,path={}", path("agent"))])
        .args(["-device", "virtserialport,chardev=agent,name=agent"])
        .args(["-chardev", &format!("socket,id=qmp,path={}", path("qmp")), "-mon", "chardev=qmp,mode=control"])
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said);
    Ok(())
}

/// A comma ends a value in QEMU's option strings, two commas are one.
pub(crate) fn escape(value: &str) -> String {
    value.replace(',', ",,")
}
