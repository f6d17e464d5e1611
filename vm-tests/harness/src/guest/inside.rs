// SPDX-License-Identifier: GPL-2.0
//! Frames that the guest sends to itself: at times of its own clock, or faster than the host could.
//!
//! They leave through one end of a veth pair, and arrive at the other, which is a mirror port like any other.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{COMMAND_TIME, Guest, agent};

/// The end that takes the frames.
const FEED: &str = "feed0";
/// The end at which they arrive: the mirror port.
pub const INNER_PORT: &str = "mirror0";
const SCRIPT: &str = "/tmp/.script";

/// Something that happens inside a guest.
#[derive(Clone, Debug)]
pub enum Step {
    /// These frames arrive at [`INNER_PORT`].
    Send(Vec<Vec<u8>>),
    /// So much time passes.
    Pass(Duration),
    /// A file is read.
    Show(String),
}

impl Guest {
    /// Makes the inner mirror port and brings it up.
    ///
    /// # Errors
    /// When the guest refuses it.
    pub fn open_inner_port(&mut self) -> Result<()> {
        // What arrives goes through a CPU's backlog, which must not be too short for a burst.
        self.must("echo 1000000 >/proc/sys/net/core/netdev_max_backlog")?;
        self.must(&format!(
            "ip link add {FEED} mtu 65535 type veth peer name {INNER_PORT} mtu 65535 && \
             ip link set {INNER_PORT} promisc on up && ip link set {FEED} up && \
             until test $(cat /sys/class/net/{FEED}/carrier) = 1; do :; done"
        ))?;
        Ok(())
    }

    /// Does one step after the other; gives what the files of [`Step::Show`] held.
    ///
    /// # Errors
    /// When a frame cannot be sent, a file not be read, or the guest dies.
    pub fn play(&mut self, steps: &[Step]) -> Result<Vec<String>> {
        let mut script = Vec::new();
        let mut asleep = Duration::ZERO;
        for step in steps {
            match step {
                Step::Send(frames) => message(&mut script, b"send", frames)?,
                Step::Pass(time) => {
                    asleep += *time;
                    message(&mut script, b"pass", &[time.as_millis().to_string()])?;
                }
                Step::Show(path) => message(&mut script, b"show", &[path])?,
            }
        }
        self.write(SCRIPT, &script)?;
        let line = format!("/init play {FEED} {SCRIPT} >{SCRIPT}.shown");
        let output = self.run_for(&line, COMMAND_TIME + asleep)?;
        ensure!(output.status == 0, "{line}: {}", output.stderr);
        self.check_backlogs()?;
        let shown = self.read(&format!("{SCRIPT}.shown"))?;
        let shown = agent::read_message(&mut shown.as_slice()).context("what the script has shown")?;
        shown.into_iter().map(|text| String::from_utf8(text).context("a file that is no text")).collect()
    }

    /// Sends frames to the inner port, and returns when the guest has dealt with all of them.
    ///
    /// # Errors
    /// As [`Guest::play`].
    pub fn send_inside<F: AsRef<[u8]>>(&mut self, frames: impl IntoIterator<Item = F>) -> Result<()> {
        let frames = frames.into_iter().map(|frame| frame.as_ref().to_vec()).collect();
        self.play(&[Step::Send(frames)]).map(drop)
    }

    /// Returns when so much time has passed in the guest. (With [`super::Clock::Virtual`], at least so much.)
    ///
    /// # Errors
    /// When the guest dies.
    pub fn pass_time(&mut self, time: Duration) -> Result<()> {
        let output = self.run_for(&format!("sleep {:.3}", time.as_secs_f64()), COMMAND_TIME + time)?;
        ensure!(output.status == 0, "sleep: {}", output.stderr);
        Ok(())
    }
}

fn message(script: &mut Vec<u8>, word: &[u8], fields: &[impl AsRef<[u8]>]) -> Result<()> {
    let fields: Vec<&[u8]> = std::iter::once(word).chain(fields.iter().map(AsRef::as_ref)).collect();
    Ok(agent::write_message(script, &fields)?)
}
