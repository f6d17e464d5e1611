// SPDX-License-Identifier: GPL-2.0
//! A box in QEMU: boots, does what it is told, takes frames, and is looked at.

mod agent;
mod clock;
mod inside;
mod leaks;
pub(crate) mod port;
pub(crate) mod qemu;
pub(crate) mod qmp;
mod state;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

pub use agent::Output;
pub use clock::Clock;
pub use inside::{INNER_PORT, Step};
pub use port::{MAX_FRAME, Sender, check_length};

use self::agent::Agent;
use self::port::Port;
use self::qemu::{Doors, Qemu, Start};
use self::qmp::Qmp;
use self::state::State;
use crate::artifacts::Artifacts;
use crate::log;
use traffic_model::frames::Mac;

/// From power on to the agent's first word. A debug kernel on a busy machine without KVM takes its time.
const BOOT_TIME: Duration = Duration::from_secs(180);
/// What a command may take if nothing else is said: only one that hangs takes as long, even where the host is slow.
pub const COMMAND_TIME: Duration = Duration::from_secs(120);
/// A port that takes no further frame for so long will not take any more.
const STALL_TIME: Duration = Duration::from_secs(30);

/// What a guest is to be like.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its kernel and file system.
    pub artifacts: Artifacts,
    /// How many CPUs.
    pub cpus: u32,
    /// How many network ports: `eth0` and so on.
    pub ports: usize,
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// What its time goes by.
    pub clock: Clock,
}

impl Config {
    /// Two CPUs, two ports, 512 MiB: enough for every test, so that all guests start from one saved state.
    pub fn new(artifacts: Artifacts) -> Self {
        Self { artifacts, cpus: 2, ports: 2, memory_mib: 512, clock: Clock::Real }
    }

    /// For tests of what happens in the course of time: [`Clock::Virtual`], and so one CPU.
    pub fn with_virtual_clock(artifacts: Artifacts) -> Self {
        Self { cpus: 1, clock: Clock::Virtual, ..Self::new(artifacts) }
    }
}

/// The address of port `n` as it leaves the factory. Locally administered, so no real device has it.
pub fn mac_of_port(n: usize) -> Mac {
    [0x02, 0x78, 0x74, 0x74, 0x72, n as u8]
}

/// A command that runs in the guest while the host does other things.
#[must_use = "a command whose end nobody waits for has no result"]
pub struct Running(u32);

/// A running guest. Dropping it switches it off at once.
pub struct Guest {
    agent: Agent,
    qmp: Qmp,
    ports: Vec<Port>,
    qemu: Qemu,
    has_module: bool,
    clock: Clock,
    /// When the guest last did something that can have allocated memory.
    last_change: Instant,
    passed: bool,
}

impl Guest {
    /// Boots a guest, and returns when its agent is there and the kernel module loaded.
    ///
    /// # Errors
    /// With the end of the console when it does not boot, or when it has the module and cannot load it.
    pub fn boot(config: &Config) -> Result<Self> {
        Self::launch(config, &Start::Resume(&State::of(config)?))
    }

    /// Really boots one, whose state can be saved then.
    fn power_on(config: &Config, state: &State) -> Result<Self> {
        Self::launch(config, &Start::Boot(state))
    }

    fn launch(config: &Config, start: &Start) -> Result<Self> {
        let folder = qemu::folder()?;
        let doors = Doors::open(folder.path())?;
        let ports = (0..config.ports)
            .map(|n| Port::bind(&qemu::host_end(folder.path(), n), format!("eth{n}")))
            .collect::<Result<Vec<_>>>()?;
        let mut qemu = Qemu::start(config, start, folder)?;
        match Self::meet(&mut qemu, start, &doors, &ports) {
            Ok((agent, qmp, has_module)) => {
                let clock = config.clock;
                Ok(Self { agent, qmp, ports, qemu, has_module, clock, last_change: Instant::now(), passed: false })
            }
            Err(error) => Err(error.context(qemu.post_mortem()).context("the guest does not boot")),
        }
    }

    /// Writes the state of the devices to a file and halts the guest. The memory is in its file already.
    fn save(&mut self) -> Result<()> {
        self.stop_leak_scans()?;
        leave_memory_out(&mut self.qmp)?;
        self.qmp.command("migrate", &json!({ "uri": qemu::STATE_OUT }))?;
        let deadline = Instant::now() + COMMAND_TIME;
        loop {
            let answer = self.qmp.command("query-migrate", &json!({}))?;
            match answer["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => bail!("QEMU cannot save the guest: {answer}"),
                _ => ensure!(Instant::now() < deadline, "saving the guest takes too long: {answer}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn meet(qemu: &mut Qemu, start: &Start, doors: &Doors, ports: &[Port]) -> Result<(Agent, Qmp, bool)> {
        let (agent, qmp) = qemu.accept(doors)?;
        qmp.set_read_timeout(Some(COMMAND_TIME))?;
        let mut qmp = Qmp::new(qmp)?;
        if let Start::Resume(_) = start {
            leave_memory_out(&mut qmp)?;
            qmp.command("migrate-incoming", &json!({ "uri": qemu::STATE_IN }))?;
        }
        let mut agent = Agent::new(agent)?;
        let module = agent.hello(BOOT_TIME)?;
        for (n, port) in ports.iter().enumerate() {
            port.connect(&qemu::guest_end(qemu.folder(), n))?;
        }
        let has_module = match module.as_str() {
            "loaded" => true,
            "absent" => false,
            error => bail!("{error}"),
        };
        Ok((agent, qmp, has_module))
    }

    /// Whether the guest's image holds the kernel module (and then it is loaded).
    pub fn has_module(&self) -> bool {
        self.has_module
    }

    /// Runs a shell command line and gives what it left, whatever its exit status.
    ///
    /// # Errors
    /// When it does not end within [`COMMAND_TIME`], or the guest dies.
    pub fn run(&mut self, line: &str) -> Result<Output> {
        self.run_for(line, COMMAND_TIME)
    }

    /// As [`Guest::run`], for a command that may take long.
    ///
    /// # Errors
    /// When it does not end in time by the guest's clock, or the guest dies.
    pub fn run_for(&mut self, line: &str, patience: Duration) -> Result<Output> {
        let output = self.agent.run(line, patience);
        self.told(output)
    }

    /// Runs a shell command line that must succeed, and gives its standard output.
    ///
    /// # Errors
    /// With what it said when its exit status is not 0; as [`Guest::run`] otherwise.
    pub fn must(&mut self, line: &str) -> Result<String> {
        let Output { status, stdout, stderr } = self.run(line)?;
        ensure!(status == 0, "{line}: exit status {status}\n{stderr}{stdout}");
        Ok(stdout)
    }

    /// Starts a shell command line; [`Guest::finish_command`] waits for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, line: &str) -> Result<Running> {
        let pid = self.agent.start(line);
        self.told(pid).map(Running)
    }

    /// Waits for the end of a command, at most for `patience`, after which it is killed.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn finish_command(&mut self, command: Running, patience: Duration) -> Result<Output> {
        let output = self.agent.finish(command.0, patience);
        self.told(output)
    }

    /// A file's bytes, in one `read` after the other until its end.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&mut self, path: &str) -> Result<Vec<u8>> {
        let bytes = self.agent.read(path);
        self.told(bytes)
    }

    /// A text file.
    ///
    /// # Errors
    /// When it cannot be read, or holds no UTF-8.
    pub fn read_text(&mut self, path: &str) -> Result<String> {
        String::from_utf8(self.read(path)?).with_context(|| path.to_owned())
    }

    /// Writes a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        let done = self.agent.write(path, bytes);
        self.told(done)
    }

    /// Gives port `n` another address, which works while the port is down.
    ///
    /// # Errors
    /// When the guest refuses it.
    pub fn set_mac(&mut self, n: usize, mac: Mac) -> Result<()> {
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        self.must(&format!("ip link set dev eth{n} address {mac}")).map(drop)
    }

    /// Moves port `n`, still closed, into a network namespace that exists (`ip netns add`).
    ///
    /// # Errors
    /// When the guest refuses it.
    pub fn move_port(&mut self, n: usize, netns: &str) -> Result<()> {
        self.must(&format!("ip link set dev eth{n} netns {netns}"))?;
        netns.clone_into(&mut self.ports[n].netns);
        Ok(())
    }

    /// Brings port `n` up as a mirror port: promiscuous, without an address. From then on it receives every
    /// frame that [`Guest::sender`] sends, and before that none.
    ///
    /// # Errors
    /// When the guest refuses it.
    pub fn open_port(&mut self, n: usize) -> Result<()> {
        let netns = match self.ports[n].netns.as_str() {
            "" => String::new(),
            name => format!("-n {name} "),
        };
        self.must(&format!("ip {netns}link set dev eth{n} promisc on up"))?;
        let promiscuous = self.qmp.await_promiscuous(&format!("port{n}"), COMMAND_TIME);
        self.told(promiscuous)
    }

    /// What sends frames to port `n`, from any thread.
    pub fn sender(&self, n: usize) -> Sender {
        self.ports[n].sender.clone()
    }

    /// Sends frames to port `n`, and returns when the guest has dealt with all of them.
    ///
    /// # Errors
    /// As [`Sender::send`] and [`Guest::await_frames`].
    pub fn send<F: AsRef<[u8]>>(&mut self, n: usize, frames: impl IntoIterator<Item = F>) -> Result<()> {
        let sender = self.sender(n);
        let sent = frames.into_iter().enumerate().try_for_each(|(number, frame)| {
            sender.send(frame.as_ref()).with_context(|| format!("frame {}", number + 1))
        });
        self.told(sent)?;
        self.await_frames(n)
    }

    /// Waits until the guest's port `n` has received every frame that was sent to it, and the guest has dealt
    /// with all of them.
    ///
    /// # Errors
    /// When the port's count is another than ours, or the guest dies.
    pub fn await_frames(&mut self, n: usize) -> Result<()> {
        let counted = self.count_frames(n);
        self.told(counted)?;
        let settled = self.agent.settle().and_then(|()| self.check_backlogs());
        self.told(settled)
    }

    /// Fails when a CPU has thrown packets away because its backlog was full, which only happens to packets that
    /// a test has steered to other CPUs or through virtual devices.
    fn check_backlogs(&mut self) -> Result<()> {
        let text = String::from_utf8(self.agent.read("/proc/net/softnet_stat")?)?;
        for (cpu, line) in text.lines().enumerate() {
            let dropped = line.split(' ').nth(1).context("softnet_stat has changed")?;
            let dropped = u32::from_str_radix(dropped, 16)?;
            ensure!(dropped == 0, "CPU {cpu} has dropped {dropped} packets from its backlog");
        }
        Ok(())
    }

    fn count_frames(&mut self, n: usize) -> Result<()> {
        let Port { sender, device, netns, .. } = &self.ports[n];
        let [sent, runts] = sender.sent();
        let mut before = 0;
        let mut deadline = Instant::now() + STALL_TIME;
        let [received, refused] = loop {
            let now = self.agent.received(netns, device, sent, Duration::from_secs(1))?;
            if now[0] >= sent || Instant::now() > deadline {
                break now;
            }
            if now[0] > before {
                (before, deadline) = (now[0], Instant::now() + STALL_TIME);
            }
        };
        ensure!(received == sent, "{sent} frames were sent to {device}, but it has received {received}");
        ensure!(
            refused == runts,
            "{runts} frames of less than 14 bytes were sent to {device}, but it has refused {refused}"
        );
        Ok(())
    }

    /// What the guest itself has sent out of port `n` so far.
    pub fn sent_by_guest(&self, n: usize) -> Vec<Vec<u8>> {
        self.ports[n].sent_by_guest()
    }

    /// The kernel log so far, a record a line: `<priority>[microseconds] text`.
    ///
    /// # Errors
    /// When the guest dies.
    pub fn kernel_log(&mut self) -> Result<String> {
        let log = self.agent.log();
        self.told(log)
    }

    /// Ends a guest whose test has passed: looks for leaks if the kernel can, and for trouble in its log.
    ///
    /// # Errors
    /// With the reports when there are any.
    pub fn finish(mut self) -> Result<()> {
        self.check_leaks()?;
        self.check_log()?;
        self.passed = true;
        Ok(())
    }

    /// Fails when the kernel log tells of a bug.
    ///
    /// # Errors
    /// With the reports.
    pub fn check_log(&mut self) -> Result<()> {
        let mut alarms = log::alarms(&self.kernel_log()?);
        alarms.extend(log::alarms(&self.qemu.console()));
        ensure!(alarms.is_empty(), "the guest's kernel log is not clean:\n{}", alarms.join("\n\n"));
        Ok(())
    }

    /// Adds to an error what is known about a guest that has died, and keeps the time.
    fn told<T>(&mut self, result: Result<T>) -> Result<T> {
        self.last_change = Instant::now();
        result
            .map_err(|error| if error.is::<std::io::Error>() { error.context(self.qemu.post_mortem()) } else { error })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // A failed assertion in a test says nothing about the kernel; its console does.
        if std::thread::panicking() && !self.passed {
            eprintln!("{}", self.qemu.post_mortem());
        }
    }
}

/// Says that the guest's memory, which both QEMUs have in the same file, is not part of the saved state.
fn leave_memory_out(qmp: &mut Qmp) -> Result<()> {
    let capability = json!({ "capability": "x-ignore-shared", "state": true });
    qmp.command("migrate-set-capabilities", &json!({ "capabilities": [capability] })).map(drop)
}

/// Runs a guest whose console is the terminal, until its shell ends.
///
/// # Errors
/// When QEMU cannot be started or fails.
pub fn shell(config: &Config) -> Result<()> {
    let mut qemu = Qemu::start(config, &Start::Shell, qemu::folder()?)?;
    let status = qemu.wait()?;
    ensure!(status.success(), "QEMU failed ({status})");
    Ok(())
}
