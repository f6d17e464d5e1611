// SPDX-License-Identifier: GPL-2.0
//! The QEMU process of a machine: its arguments, its sockets, its end.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::console::plain;
use super::{Image, MIRROR};
use crate::accel::{self, QEMU};
use crate::door::Door;
use crate::guest::mac_of_port;
use crate::guest::qemu::{MACHINE, escape, guest_end, host_end};

/// Enough for apt, and for an initramfs to be packed in.
const MEMORY: &str = "1G";
const CPUS: &str = "2";

/// The listening ends that QEMU connects to when it starts.
pub(super) struct Doors {
    terminal: Door,
    qmp: Door,
}

impl Doors {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        Ok(Self { terminal: Door::open(folder, "terminal")?, qmp: Door::open(folder, "qmp")? })
    }
}

/// A running QEMU and the folder with its files. Dropping it ends both.
pub(super) struct Qemu {
    child: Child,
    folder: TempDir,
}

impl Qemu {
    /// Starts QEMU. The folder must already hold the sockets of the doors and our end of the mirror port.
    pub(super) fn start(image: &Image, folder: TempDir) -> Result<Self> {
        let words = hardware()?;
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(disk(image.disk(), "snapshot=on")).args(disk(image.packages(), "readonly=on"));
        port_arguments(&mut command, folder.path());
        talk_arguments(&mut command, folder.path())?;
        let child = command.spawn().with_context(|| format!("cannot run {QEMU}"))?;
        Ok(Self { child, folder })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The connections that QEMU makes to the doors: the terminal's and QMP's.
    pub(super) fn accept(&mut self, doors: &Doors) -> Result<(UnixStream, UnixStream)> {
        Ok((doors.terminal.accept(&mut self.child)?, doors.qmp.accept(&mut self.child)?))
    }

    /// Waits until QEMU ends by itself, as it does when the machine is switched off.
    pub(super) fn wait(&mut self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "QEMU failed ({status})");
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(std::io::Error::from(ErrorKind::TimedOut)).context("QEMU does not end");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What is known about a machine that has failed: whether QEMU still runs, and the end of what it and the
    /// machine's console have said.
    pub(super) fn post_mortem(&mut self) -> String {
        // Its connections close a moment before it ends.
        let state = match self.wait(Duration::from_millis(500)) {
            Ok(()) => "QEMU has ended".to_owned(),
            Err(error) if error.is::<std::io::Error>() => "QEMU is still running".to_owned(),
            Err(error) => error.to_string(),
        };
        let tail = |name: &str| {
            let text = plain(&std::fs::read(self.folder.path().join(name)).unwrap_or_default());
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(60)..].join("\n")
        };
        format!("{state}; QEMU said:\n{}\nthe console said:\n{}", tail("qemu.log"), tail("console"))
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// QEMU and the arguments for a machine without anything but processors and memory.
///
/// # Errors
/// When the environment asks for an acceleration that there is not.
pub fn hardware() -> Result<Vec<&'static str>> {
    let mut words = vec![QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-machine", MACHINE];
    words.extend(accel::best()?.arguments());
    words.extend(["-smp", CPUS, "-m", MEMORY]);
    Ok(words)
}

/// QEMU's arguments for a disk that is the file `path`; `options` are QEMU's.
pub fn disk(path: &Path, options: &str) -> [String; 2] {
    ["-drive".to_owned(), format!("file={},format=raw,if=virtio,{options}", escape(&path.display().to_string()))]
}

/// A port without a cable, as the one by which an administrator would reach the box, and the one on the mirror port.
fn port_arguments(command: &mut Command, folder: &Path) {
    let [ours, theirs] =
        [host_end(folder, MIRROR), guest_end(folder, MIRROR)].map(|path| escape(&path.display().to_string()));
    let backends = [
        "hubport,id=net0,hubid=0".to_owned(),
        format!("dgram,id=net{MIRROR},local.type=unix,local.path={theirs},remote.type=unix,remote.path={ours}"),
    ];
    for (n, backend) in backends.iter().enumerate() {
        let mac = mac_of_port(n).map(|byte| format!("{byte:02x}")).join(":");
        let device = format!("virtio-net-pci,id=port{n},netdev=net{n},mac={mac},romfile=,addr={:#x}", 0x10 + n);
        command.args(["-netdev", backend, "-device", &device]);
    }
}

/// The console in a file, the terminal, QMP, and QEMU's own messages in a file. Two serial lines, because kernel
/// messages would get into what commands print.
fn talk_arguments(command: &mut Command, folder: &Path) -> Result<()> {
    let path = |name: &str| escape(&folder.join(name).display().to_string());
    let said = File::create(folder.join("qemu.log"))?;
    command
        .args(["-chardev", &format!("file,id=console,path={}", path("console")), "-serial", "chardev:console"])
        .args(["-chardev", &format!("socket,id=terminal,path={}", path("terminal")), "-serial", "chardev:terminal"])
        .args(["-chardev", &format!("socket,id=qmp,path={}", path("qmp")), "-mon", "chardev=qmp,mode=control"])
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said);
    Ok(())
}
