// SPDX-License-Identifier: GPL-2.0
//! A whole computer in QEMU: it starts from its own disk with its own boot loader and kernel, an administrator
//! types at its terminal, and one of its network ports is on a mirror port.
//!
//! What a [`Machine`] writes to its disk goes to a file of its own, which outlives reboots and ends with it; the
//! image stays as it is. What is typed and what it prints is kept in a [transcript](Transcript).

mod console;
mod image;
mod qemu;
mod terminal;
mod transcript;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

pub use image::Image;
pub use qemu::{disk, hardware};
pub use transcript::{Entry, Transcript};

use self::qemu::{Doors, Qemu};
use self::terminal::Terminal;
use crate::guest::port::Port;
use crate::guest::qmp::Qmp;
use crate::guest::{Sender, mac_of_port, qemu as names};
use crate::log;
use traffic_model::frames::Mac;

/// From reset to the login prompt, for a kernel and a systemd that QEMU translates on a busy machine.
const BOOT_TIME: Duration = Duration::from_secs(300);
/// What a command may take if nothing else is said.
const COMMAND_TIME: Duration = Duration::from_secs(120);
/// From the command to the reset; services have 90 seconds to stop.
const SHUTDOWN_TIME: Duration = Duration::from_secs(180);
/// A port that has not received a frame so long after it was sent never will.
const FRAME_TIME: Duration = Duration::from_secs(30);

/// The network port on the mirror port, as the machine counts: its `eth1`. Port 0 has no cable.
pub const MIRROR: usize = 1;

/// What a command left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The exit code, or 128 + the signal that ended it.
    pub status: i32,
    /// Standard output and error, in the order in which they were written.
    pub text: String,
}

/// A running machine. Dropping it switches it off at once, and forgets its disk.
pub struct Machine {
    terminal: Terminal,
    qmp: Qmp,
    mirror: Port,
    qemu: Qemu,
    transcript: Transcript,
    /// How many of the frames sent so far this boot's kernel cannot have seen.
    before_boot: u64,
}

impl Machine {
    /// Switches a machine on. [`Machine::log_in`] waits until it has booted.
    ///
    /// # Errors
    /// When QEMU does not start.
    pub fn power_on(image: &Image) -> Result<Self> {
        let folder = names::folder()?;
        let doors = Doors::open(folder.path())?;
        let mirror = Port::bind(&names::host_end(folder.path(), MIRROR), format!("eth{MIRROR}"))?;
        let mut qemu = Qemu::start(image, folder)?;
        let meet = |qemu: &mut Qemu| {
            let (terminal, qmp) = qemu.accept(&doors)?;
            qmp.set_read_timeout(Some(COMMAND_TIME))?;
            let qmp = Qmp::new(qmp)?;
            // Once QEMU answers, its end of the cable is there.
            mirror.connect(&names::guest_end(qemu.folder(), MIRROR))?;
            Ok((Terminal::new(terminal)?, qmp))
        };
        let met: Result<_> = meet(&mut qemu);
        let (terminal, qmp) = met.map_err(|error| error.context(qemu.post_mortem()))?;
        Ok(Self { terminal, qmp, mirror, qemu, transcript: Transcript::default(), before_boot: 0 })
    }

    /// Waits for the login prompt and logs in as root.
    ///
    /// # Errors
    /// With the end of the console when the prompt does not come in time.
    pub fn log_in(&mut self) -> Result<()> {
        let done = self.terminal.log_in(BOOT_TIME);
        self.told(done).context("the machine does not boot")
    }

    /// Types a command at root's prompt and gives what it left. The transcript shows both.
    ///
    /// # Errors
    /// When it does not end in time, or the machine dies.
    pub fn run(&mut self, command: &str) -> Result<Output> {
        self.run_for(command, COMMAND_TIME)
    }

    /// As [`Machine::run`], for a command that may take long.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn run_for(&mut self, command: &str, patience: Duration) -> Result<Output> {
        self.transcript.typed(command);
        let output = self.terminal.run(command, patience);
        let output = self.told(output).with_context(|| command.to_owned())?;
        self.transcript.printed(&output.text);
        Ok(output)
    }

    /// Types a command that must succeed, and gives what it printed.
    ///
    /// # Errors
    /// With what it printed when its exit status is not 0; as [`Machine::run`] otherwise.
    pub fn must(&mut self, command: &str) -> Result<String> {
        self.must_for(command, COMMAND_TIME)
    }

    /// As [`Machine::must`], for a command that may take long.
    ///
    /// # Errors
    /// As [`Machine::must`].
    pub fn must_for(&mut self, command: &str, patience: Duration) -> Result<String> {
        let Output { status, text } = self.run_for(command, patience)?;
        ensure!(status == 0, "{command}: exit status {status}\n{text}");
        Ok(text)
    }

    /// Runs a command that is the test's own business and not shown in the transcript. It must succeed.
    ///
    /// # Errors
    /// As [`Machine::must`].
    pub fn quietly(&mut self, command: &str) -> Result<String> {
        let output = self.terminal.run(command, COMMAND_TIME);
        let Output { status, text } = self.told(output).with_context(|| command.to_owned())?;
        ensure!(status == 0, "{command}: exit status {status}\n{text}");
        Ok(text)
    }

    /// Types `reboot`, and waits for the login prompt of the new kernel.
    ///
    /// # Errors
    /// When the machine does not go down, or not come up again, in time.
    pub fn reboot(&mut self) -> Result<()> {
        self.transcript.typed("reboot");
        let sent = self.mirror.sender.sent()[0];
        let down = self.terminal.leave("systemctl reboot").and_then(|()| self.qmp.wait_for("RESET", SHUTDOWN_TIME));
        self.told(down).context("the machine does not go down")?;
        self.before_boot = sent;
        let forgotten = self.terminal.forget();
        self.told(forgotten)?;
        self.log_in()
    }

    /// Types `poweroff`, and waits until the machine is off. The transcript remains.
    ///
    /// # Errors
    /// When the machine does not go down in time.
    pub fn power_off(mut self) -> Result<Transcript> {
        let off = self.terminal.leave("systemctl poweroff").and_then(|()| self.qemu.wait(SHUTDOWN_TIME));
        self.told(off).context("the machine does not go down")?;
        Ok(std::mem::take(&mut self.transcript))
    }

    /// The address of the mirrored port.
    pub fn mac() -> Mac {
        mac_of_port(MIRROR)
    }

    /// Sends frames to the mirrored port, which must be up and promiscuous, and returns when the kernel has received
    /// all of them. It may still be busy with the last ones.
    ///
    /// # Errors
    /// As [`Machine::sender`] and [`Machine::await_frames`], and when the port does not take the frames.
    pub fn mirror<F: AsRef<[u8]>>(&mut self, frames: impl IntoIterator<Item = F>) -> Result<()> {
        let sender = self.sender()?;
        let sent = frames.into_iter().enumerate().try_for_each(|(number, frame)| {
            sender.send(frame.as_ref()).with_context(|| format!("frame {}", number + 1))
        });
        self.told(sent)?;
        self.await_frames()
    }

    /// What sends frames to the mirrored port, from any thread.
    ///
    /// # Errors
    /// When the port is not promiscuous.
    pub fn sender(&mut self) -> Result<Sender> {
        let promiscuous = self.qmp.await_promiscuous(&format!("port{MIRROR}"), FRAME_TIME);
        self.told(promiscuous)?;
        Ok(self.mirror.sender.clone())
    }

    /// Waits until the kernel has received every frame that was sent since it booted.
    ///
    /// # Errors
    /// When it does not, or has received more.
    pub fn await_frames(&mut self) -> Result<()> {
        let wanted = self.mirror.sender.sent()[0] - self.before_boot;
        let deadline = Instant::now() + FRAME_TIME;
        loop {
            let text = self.quietly(&format!("cat /sys/class/net/{}/statistics/rx_packets", self.mirror.device))?;
            let received: u64 = text.trim().parse().with_context(|| format!("no number: {text:?}"))?;
            ensure!(received <= wanted, "{wanted} frames were sent, but the port has received {received}");
            if received == wanted {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{wanted} frames were sent, but the port has received only {received}");
        }
    }

    /// Fails when the kernel log since boot tells of a bug.
    ///
    /// # Errors
    /// With the reports.
    pub fn check_log(&mut self) -> Result<()> {
        let alarms = log::alarms(&self.quietly("dmesg --raw")?);
        ensure!(alarms.is_empty(), "the kernel log is not clean:\n{}", alarms.join("\n\n"));
        Ok(())
    }

    /// What has been typed and printed so far.
    pub fn transcript(&mut self) -> &mut Transcript {
        &mut self.transcript
    }

    /// Adds to an error what is known about a machine that hangs or has died.
    fn told<T>(&mut self, result: Result<T>) -> Result<T> {
        result.map_err(
            |error| {
                if error.is::<std::io::Error>() { error.context(self.qemu.post_mortem()) } else { error }
            },
        )
    }
}
