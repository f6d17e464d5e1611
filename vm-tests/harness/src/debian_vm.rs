// SPDX-License-Identifier: GPL-2.0-only
//! The Debian VM: it boots from a disk image with its own boot loader and kernel. The harness types
//! commands at its serial terminal. One of its network ports is a mirror port.
//!
//! What a [`DebianVm`] writes to its disk goes to a temporary file, which survives reboots; the
//! image does not change. A [transcript](Transcript) holds the commands and their output.

mod image;
mod readme;
mod terminal;
mod transcript;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

pub use self::image::Image;
pub use self::readme::check_readme;
pub use self::transcript::{Entry, Transcript};

use self::terminal::Terminal;
use crate::command::{COMMAND_TIMEOUT, Output};
use crate::qemu::{MACHINE, Port, QEMU, Qemu, Sender, Setup, TERMINAL, escape};
use crate::{accel, kernel_log, poll};

/// Enough for apt, and to build an initramfs.
const MEMORY: &str = "1G";
/// Two processors would wait for each other while the guests of other tests keep the host busy.
const CPUS: &str = "1";

/// From reset to the login prompt, with TCG on a busy host.
const BOOT_TIMEOUT: Duration = Duration::from_secs(300);
/// From the command to the reset; systemd gives services 90 seconds to stop.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(180);
/// A port that has not received a frame after this time has lost it.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// The number of the mirror port, `eth1`. Port 0 is not connected.
pub const MIRROR: usize = 1;

/// A running Debian VM. Dropping it stops it at once and removes its changes to the disk.
pub struct DebianVm {
    terminal: Terminal,
    qemu: Qemu,
    transcript: Transcript,
    /// How many frames were sent before the last boot.
    before_boot: u64,
}

impl DebianVm {
    /// Starts the virtual machine. [`DebianVm::log_in`] waits until it has booted.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn power_on(image: &Image) -> Result<Self> {
        let mut setup = Setup::new(&hardware()?)?;
        setup.command.args(disk(&image.disk, "snapshot=on")).args(disk(&image.packages, "readonly=on"));
        setup.add_network_device(0, "hubport,id=net0,hubid=0", "");
        setup.add_port(MIRROR, "")?;
        let (qemu, stream) = setup.start(TERMINAL)?;
        let (terminal, transcript) = (Terminal::new(stream)?, Transcript::default());
        Ok(Self { terminal, qemu, transcript, before_boot: 0 })
    }

    /// Waits for the login prompt and logs in as root.
    ///
    /// # Errors
    /// When the prompt does not appear in time: with the end of the console.
    pub fn log_in(&mut self) -> Result<()> {
        let done = self.terminal.log_in(BOOT_TIMEOUT);
        self.qemu.explain(done).context("the Debian VM does not boot")
    }

    /// Runs a command as root and adds it and its output to the transcript.
    ///
    /// # Errors
    /// When it does not end in time, or QEMU has ended.
    pub fn run(&mut self, command: &str) -> Result<Output> {
        self.run_for(command, COMMAND_TIMEOUT)
    }

    /// As [`DebianVm::run`], with a timeout.
    ///
    /// # Errors
    /// As [`DebianVm::run`].
    pub fn run_for(&mut self, command: &str, timeout: Duration) -> Result<Output> {
        self.transcript.add_command(command);
        let output = self.terminal.run(command, timeout);
        let output = self.qemu.explain(output).with_context(|| command.to_owned())?;
        self.transcript.add_output(&output.stdout);
        Ok(output)
    }

    /// Runs a command that must succeed and returns its output.
    ///
    /// # Errors
    /// When its exit status is not 0: with its output. As [`DebianVm::run`] otherwise.
    pub fn must(&mut self, command: &str) -> Result<String> {
        self.must_for(command, COMMAND_TIMEOUT)
    }

    /// As [`DebianVm::must`], with a timeout.
    ///
    /// # Errors
    /// As [`DebianVm::must`].
    pub fn must_for(&mut self, command: &str, timeout: Duration) -> Result<String> {
        self.run_for(command, timeout)?.success(command)
    }

    /// As [`DebianVm::must`], without adding anything to the transcript.
    ///
    /// # Errors
    /// As [`DebianVm::must`].
    pub fn quietly(&mut self, command: &str) -> Result<String> {
        let output = self.terminal.run(command, COMMAND_TIMEOUT);
        self.qemu.explain(output).with_context(|| command.to_owned())?.success(command)
    }

    /// Types `reboot` and waits for the login prompt.
    ///
    /// # Errors
    /// When the system does not shut down or boot in time.
    pub fn reboot(&mut self) -> Result<()> {
        self.transcript.add_command("reboot");
        let sent = self.port().sender.sent()[0];
        let down = self.terminal.send("systemctl reboot");
        let down = down.and_then(|()| self.qemu.qmp.wait_for("RESET", SHUTDOWN_TIMEOUT));
        self.qemu.explain(down).context("the Debian VM does not shut down")?;
        self.before_boot = sent;
        let discarded = self.terminal.discard_output();
        self.qemu.explain(discarded)?;
        self.log_in()
    }

    /// Types `poweroff`, waits until QEMU ends, and returns the transcript.
    ///
    /// # Errors
    /// When the system does not shut down in time.
    pub fn power_off(mut self) -> Result<Transcript> {
        let off = self.terminal.send("systemctl poweroff");
        let off = off.and_then(|()| self.qemu.process.wait(SHUTDOWN_TIMEOUT));
        let status = self.qemu.explain(off).context("the Debian VM does not shut down")?;
        ensure!(status.success(), "QEMU failed ({status})");
        Ok(self.transcript)
    }

    /// Sends frames to the mirror port, which must be up and promiscuous. Returns when the kernel
    /// has received them; it may still process the last ones.
    ///
    /// # Errors
    /// As [`DebianVm::sender`] and [`DebianVm::await_frames`], and when the port does not accept
    /// the frames.
    pub fn mirror<F: AsRef<[u8]>>(&mut self, frames: impl IntoIterator<Item = F>) -> Result<()> {
        let sent = self.sender()?.send_all(frames);
        self.qemu.explain(sent)?;
        self.await_frames()
    }

    /// Returns a sender for the mirror port.
    ///
    /// # Errors
    /// When the port is not promiscuous.
    pub fn sender(&mut self) -> Result<Sender> {
        let promiscuous = self.qemu.qmp.await_promiscuous(MIRROR, FRAME_TIMEOUT);
        self.qemu.explain(promiscuous)?;
        Ok(self.port().sender.clone())
    }

    /// Waits until the kernel has received all frames that were sent since it booted.
    ///
    /// # Errors
    /// When it has received fewer after a timeout, or more.
    pub fn await_frames(&mut self) -> Result<()> {
        let wanted = self.port().sender.sent()[0] - self.before_boot;
        let count = format!("cat /sys/class/net/{}/statistics/rx_packets", self.port().device);
        let mut received = 0;
        let done = poll(FRAME_TIMEOUT, "the port to receive all frames", || {
            let text = self.quietly(&count)?;
            received = text.trim().parse().with_context(|| format!("not a number: {text:?}"))?;
            Ok((received >= wanted).then_some(()))
        });
        done.with_context(|| format!("{wanted} frames were sent, but the port has received {received}"))?;
        ensure!(received == wanted, "{wanted} frames were sent, but the port has received {received}");
        Ok(())
    }

    /// Checks the kernel log since boot for reports of bugs.
    ///
    /// # Errors
    /// With the reports.
    pub fn check_log(&mut self) -> Result<()> {
        kernel_log::check(&self.quietly("dmesg --raw")?)
    }

    /// The commands so far with their output.
    pub fn transcript(&mut self) -> &mut Transcript {
        &mut self.transcript
    }

    fn port(&self) -> &Port {
        &self.qemu.ports[0]
    }
}

/// QEMU and its arguments for processors and memory, without other devices.
///
/// # Errors
/// When the environment selects an unknown accelerator.
pub fn hardware() -> Result<Vec<&'static str>> {
    let mut words = QEMU.to_vec();
    words.extend(["-machine", MACHINE, "-smp", CPUS, "-m", MEMORY]);
    words.extend(accel::best()?.arguments(accel::Threads::Each));
    Ok(words)
}

/// QEMU's arguments for a disk with the content of the file `path`; `options` are more options of
/// `-drive`.
pub fn disk(path: &Path, options: &str) -> [String; 2] {
    ["-drive".to_owned(), format!("file={},format=raw,if=virtio,{options}", escape(path))]
}
