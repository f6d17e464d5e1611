// SPDX-License-Identifier: GPL-2.0-only
//! The guest: boots, runs commands, receives frames, and returns the content of files.

mod agent;
mod boot;
mod config;
mod inner_port;
mod leaks;
mod saved_state;
mod timed;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use traffic_model::frames::Mac;

pub use self::boot::shell;
pub use self::config::{Clock, Config};
pub use self::inner_port::{INNER_PORT, Step};
pub use self::timed::Arrivals;
pub use crate::qemu::{MAX_FRAME, Sender, check_length, mac_of_port};

use self::agent::Agent;
use self::boot::Start;
use self::saved_state::SavedState;
use crate::command::{COMMAND_TIMEOUT, Output};
use crate::kernel_log;
use crate::qemu::{AGENT, Port, Qemu};

/// From power on to the agent's first answer, for a debug kernel without KVM on a busy host.
const BOOT_TIMEOUT: Duration = Duration::from_secs(180);
/// The longest time between two frames that a port receives.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A command that runs in the guest.
#[must_use = "finish_command returns its result"]
pub struct Running(u32);

/// A running guest. Dropping it stops it at once.
pub struct Guest {
    agent: Agent,
    qemu: Qemu,
    clock: Clock,
    /// When the guest last did something that may have allocated memory.
    last_change: Instant,
}

impl Guest {
    /// Starts a guest. Returns when its agent answers and the kernel module is loaded, if there is
    /// one.
    ///
    /// # Errors
    /// When the guest does not boot or cannot load the module: with the end of the console.
    pub fn boot(config: &Config) -> Result<Self> {
        let make = |state: &SavedState| boot::save(&mut Self::start_qemu(config, Start::Boot(state))?);
        let state = SavedState::find_or_make(&boot::identity(config)?, config.memory_mib, make)?;
        Self::start_qemu(config, Start::Resume(&state))
    }

    fn start_qemu(config: &Config, start: Start) -> Result<Self> {
        let (mut qemu, channel) = boot::setup(config, start)?.start(AGENT).context("the guest does not boot")?;
        let connect = |qemu: &mut Qemu| {
            if let Start::Resume(_) = start {
                boot::resume(&mut qemu.qmp)?;
            }
            let mut agent = Agent::new(channel)?;
            let module = agent.hello(BOOT_TIMEOUT)?;
            ensure!(["loaded", "absent"].contains(&module.as_str()), "{module}");
            Ok(agent)
        };
        let agent = connect(&mut qemu)
            .map_err(|error: anyhow::Error| error.context(qemu.process.post_mortem()))
            .context("the guest does not boot")?;
        Ok(Self { agent, qemu, clock: config.clock, last_change: Instant::now() })
    }

    /// Runs a shell command line. Its orphans stay zombies while a command of [`Guest::start`] is
    /// unfinished.
    ///
    /// # Errors
    /// When it does not end within [`COMMAND_TIMEOUT`], or the guest has ended.
    pub fn run(&mut self, line: &str) -> Result<Output> {
        self.run_for(line, COMMAND_TIMEOUT)
    }

    /// As [`Guest::run`], with a timeout by the guest's clock.
    ///
    /// # Errors
    /// When the command does not end in time, or the guest has ended.
    pub fn run_for(&mut self, line: &str, timeout: Duration) -> Result<Output> {
        self.ask(|agent| agent.run(line, timeout))
    }

    /// Runs a shell command line that must succeed. Returns its standard output.
    ///
    /// # Errors
    /// When its exit status is not 0: with its output. As [`Guest::run`] otherwise.
    pub fn must(&mut self, line: &str) -> Result<String> {
        self.run(line)?.success(line)
    }

    /// Starts a shell command line; [`Guest::finish_command`] waits for it. Until then, orphans of
    /// all commands stay zombies.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, line: &str) -> Result<Running> {
        self.ask(|agent| agent.start(line)).map(Running)
    }

    /// Waits for the end of a command. Kills it after the timeout.
    ///
    /// # Errors
    /// When it was killed.
    #[expect(clippy::needless_pass_by_value, reason = "a command ends once")]
    pub fn finish_command(&mut self, command: Running, timeout: Duration) -> Result<Output> {
        self.ask(|agent| agent.finish(command.0, timeout))
    }

    /// Reads a file until its end.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&mut self, path: &str) -> Result<Vec<u8>> {
        self.ask(|agent| agent.read(path))
    }

    /// Reads a text file.
    ///
    /// # Errors
    /// When it cannot be read or is not UTF-8.
    pub fn read_text(&mut self, path: &str) -> Result<String> {
        String::from_utf8(self.read(path)?).with_context(|| path.to_owned())
    }

    /// Writes a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.ask(|agent| agent.write(path, bytes))
    }

    /// Sets the address of port `n`, which must be down.
    ///
    /// # Errors
    /// When the guest refuses it.
    pub fn set_mac(&mut self, n: usize, mac: Mac) -> Result<()> {
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        self.must(&format!("ip link set dev eth{n} address {mac}")).map(drop)
    }

    /// Moves port `n`, which must be down, into an existing network namespace.
    ///
    /// # Errors
    /// When the guest refuses it.
    pub fn move_port(&mut self, n: usize, netns: &str) -> Result<()> {
        self.must(&format!("ip link set dev eth{n} netns {netns}"))?;
        netns.clone_into(&mut self.qemu.ports[n].netns);
        Ok(())
    }

    /// Brings port `n` up as a mirror port: promiscuous, without an address. It then receives all
    /// frames that [`Guest::sender`] sends. Before, it receives none.
    ///
    /// # Errors
    /// When the guest refuses it.
    pub fn open_port(&mut self, n: usize) -> Result<()> {
        let netns = match self.qemu.ports[n].netns.as_str() {
            "" => String::new(),
            name => format!("-n {name} "),
        };
        self.must(&format!("ip {netns}link set dev eth{n} promisc on up"))?;
        self.await_promiscuous(n)
    }

    /// Waits until port `n`, which a command has made promiscuous, receives all frames.
    ///
    /// # Errors
    /// When the port is not promiscuous.
    pub fn await_promiscuous(&mut self, n: usize) -> Result<()> {
        let promiscuous = self.qemu.qmp.await_promiscuous(n, COMMAND_TIMEOUT);
        self.explain(promiscuous)
    }

    /// Returns a sender for port `n`.
    pub fn sender(&self, n: usize) -> Sender {
        self.qemu.ports[n].sender.clone()
    }

    /// Sends frames to port `n` and waits until the guest has processed them.
    ///
    /// # Errors
    /// As [`Sender::send`] and [`Guest::await_frames`].
    pub fn send<F: AsRef<[u8]>>(&mut self, n: usize, frames: impl IntoIterator<Item = F>) -> Result<()> {
        let sent = self.sender(n).send_all(frames);
        self.explain(sent)?;
        self.await_frames(n)
    }

    /// Waits until port `n` has received every frame that was sent to it, and the guest has
    /// processed them.
    ///
    /// # Errors
    /// When the port's counters differ from ours, or the guest has ended.
    pub fn await_frames(&mut self, n: usize) -> Result<()> {
        let counted = self.count_frames(n);
        self.explain(counted)?;
        self.ask(Agent::settle)?;
        self.check_backlogs()
    }

    /// Checks that no CPU has dropped packets because its backlog was full. This happens only to
    /// packets that a test steers to other CPUs or through virtual devices.
    fn check_backlogs(&mut self) -> Result<()> {
        let text = self.read_text("/proc/net/softnet_stat")?;
        for (cpu, line) in text.lines().enumerate() {
            let dropped = line.split(' ').nth(1).context("softnet_stat has another format")?;
            let dropped = u32::from_str_radix(dropped, 16)?;
            ensure!(dropped == 0, "CPU {cpu} has dropped {dropped} packets from its backlog");
        }
        Ok(())
    }

    fn count_frames(&mut self, n: usize) -> Result<()> {
        let Port { sender, device, netns, .. } = &self.qemu.ports[n];
        let [sent, too_short] = sender.sent();
        let mut before = 0;
        let mut deadline = Instant::now() + STALL_TIMEOUT;
        // Not `poll`: each received frame extends the deadline.
        let [received, refused] = loop {
            let now = self.agent.received(netns, device, sent, Duration::from_secs(1))?;
            if now[0] >= sent || Instant::now() > deadline {
                break now;
            }
            if now[0] > before {
                (before, deadline) = (now[0], Instant::now() + STALL_TIMEOUT);
            }
        };
        ensure!(received == sent, "{sent} frames were sent to {device}, but it has received {received}");
        ensure!(
            refused == too_short,
            "{too_short} frames of less than 14 bytes were sent to {device}, but it has refused {refused}"
        );
        Ok(())
    }

    /// The frames that the guest has sent out of port `n` since the last call.
    pub fn sent_by_guest(&self, n: usize) -> Vec<Vec<u8>> {
        self.qemu.ports[n].received()
    }

    /// The kernel log, one record per line: `<priority>[microseconds] text`.
    ///
    /// # Errors
    /// When the guest has ended.
    pub fn kernel_log(&mut self) -> Result<String> {
        self.ask(Agent::log)
    }

    /// Ends a guest whose test has passed: checks for memory leaks, if the kernel has kmemleak, and
    /// checks the kernel log.
    ///
    /// # Errors
    /// With the kernel's reports.
    pub fn finish(mut self) -> Result<()> {
        self.check_leaks()?;
        self.check_log()
    }

    /// Checks the kernel log and the console for reports of bugs.
    ///
    /// # Errors
    /// With the reports.
    pub fn check_log(&mut self) -> Result<()> {
        kernel_log::check(&self.kernel_log()?)?;
        kernel_log::check(&self.qemu.process.console())
    }

    fn ask<T>(&mut self, request: impl FnOnce(&mut Agent) -> Result<T>) -> Result<T> {
        let result = request(&mut self.agent);
        self.explain(result)
    }

    /// As [`Qemu::explain`], and notes the time.
    fn explain<T>(&mut self, result: Result<T>) -> Result<T> {
        self.last_change = Instant::now();
        self.qemu.explain(result)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // The console may show why a test failed.
        if std::thread::panicking() {
            eprintln!("{}", self.qemu.process.post_mortem());
        }
    }
}
