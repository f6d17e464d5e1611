// SPDX-License-Identifier: GPL-2.0-only
//! Frames that the guest sends to itself, at times of its own clock.
//!
//! They leave through one end of a veth pair and arrive at the other, which is a mirror port.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vm_agent::proto::{read_message, write_message};

use super::Guest;
use crate::command::COMMAND_TIMEOUT;

/// The end that sends the frames.
pub(super) const FEED: &str = "feed0";
/// The end at which they arrive: the mirror port.
pub const INNER_PORT: &str = "mirror0";
const SCRIPT: &str = "/tmp/.script";

/// A step of [`Guest::play`].
#[derive(Clone, Debug)]
pub enum Step {
    /// These frames arrive at [`INNER_PORT`].
    Send(Vec<Vec<u8>>),
    /// Time passes.
    Sleep(Duration),
    /// Reads a file.
    Show(String),
}

impl Guest {
    /// Makes the inner mirror port and brings it up.
    ///
    /// # Errors
    /// When the guest refuses it.
    pub fn open_inner_port(&mut self) -> Result<()> {
        self.add_inner_port(INNER_PORT)?;
        self.bring_inner_port_up(INNER_PORT)
    }

    /// Makes an inner port with this name, which stays down.
    ///
    /// # Errors
    /// When the guest refuses it.
    pub fn add_inner_port(&mut self, name: &str) -> Result<()> {
        self.extend_backlogs()?;
        self.must(&format!("ip link add {FEED} mtu 65535 type veth peer name {name} mtu 65535")).map(drop)
    }

    /// Brings an inner port up as a mirror port.
    ///
    /// # Errors
    /// When the guest refuses it.
    pub fn bring_inner_port_up(&mut self, name: &str) -> Result<()> {
        self.must(&format!(
            "ip link set {name} promisc on up && ip link set {FEED} up && \
             until test $(cat /sys/class/net/{FEED}/carrier) = 1; do :; done"
        ))?;
        Ok(())
    }

    /// Makes room for bursts of packets in the CPUs' backlogs. Packets that are steered to another
    /// CPU or arrive at a virtual device pass through them.
    ///
    /// # Errors
    /// When the guest refuses it.
    pub fn extend_backlogs(&mut self) -> Result<()> {
        self.must("echo 1000000 >/proc/sys/net/core/netdev_max_backlog").map(drop)
    }

    /// Steers the packets of port `n` to CPU `n` (receive packet steering), for the ports 0 and 1.
    ///
    /// # Errors
    /// When the guest refuses it.
    pub fn steer_ports_to_cpus(&mut self) -> Result<()> {
        self.extend_backlogs()?;
        self.must("for n in 0 1; do echo $((n + 1)) >/sys/class/net/eth$n/queues/rx-0/rps_cpus; done").map(drop)
    }

    /// Runs steps in order. Returns the content of the files of [`Step::Show`].
    ///
    /// # Errors
    /// When a frame cannot be sent, a file cannot be read, or the guest has ended.
    pub fn play(&mut self, steps: &[Step]) -> Result<Vec<String>> {
        let asleep: Duration =
            steps.iter().map(|step| if let Step::Sleep(time) = step { *time } else { Duration::ZERO }).sum();
        self.write(SCRIPT, &Self::script(steps)?)?;
        let line = format!("/init play {FEED} {SCRIPT} >{SCRIPT}.shown");
        let output = self.run_for(&line, COMMAND_TIMEOUT + asleep)?;
        ensure!(output.status == 0, "{line}: {}", output.stderr);
        self.check_backlogs()?;
        let shown = self.read(&format!("{SCRIPT}.shown"))?;
        let shown = read_message(&mut shown.as_slice()).context("the output of the script")?;
        shown.into_iter().map(|text| String::from_utf8(text).context("a file is not UTF-8")).collect()
    }

    /// The script for the agent's tool `play`.
    ///
    /// # Errors
    /// When a frame is too long.
    pub fn script(steps: &[Step]) -> Result<Vec<u8>> {
        let mut script = Vec::new();
        for step in steps {
            let message = match step {
                Step::Send(frames) => [vec![b"send".to_vec()], frames.clone()].concat(),
                Step::Sleep(time) => vec![b"sleep".to_vec(), time.as_millis().to_string().into()],
                Step::Show(path) => vec![b"show".to_vec(), path.clone().into()],
            };
            write_message(&mut script, &message)?;
        }
        Ok(script)
    }

    /// Sleeps in the guest. With [`super::Clock::Virtual`] at least `time` passes.
    ///
    /// # Errors
    /// When the guest has ended.
    pub fn sleep(&mut self, time: Duration) -> Result<()> {
        let line = format!("sleep {:.3}", time.as_secs_f64());
        self.run_for(&line, COMMAND_TIMEOUT + time)?.success(&line).map(drop)
    }
}
