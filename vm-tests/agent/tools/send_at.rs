// SPDX-License-Identifier: GPL-2.0-only
//! `send-at DEVICE SCRIPT...`: sends frames out of a device, each at its time by the guest's clock.
//! One process does all of it, so the host's timing has no influence.
//!
//! A script is a file with one message (see `proto.rs`) for each frame: its time in nanoseconds
//! since the first one, and its bytes. A frame whose time has passed is sent at once.
//!
//! Standard output is a message with one field of little-endian numbers of 64 bits: the start, and
//! for each frame the start of the kernel's tick in which it was sent, all in nanoseconds. The
//! module measures time in ticks. No frame is sent so shortly before the end of a tick that the
//! kernel could process it in the next one.

use std::io::{self, BufReader};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fs_err as fs;
use rustix::io::retry_on_intr;
use rustix::net::SocketType;
use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, clock_getres, clock_gettime};
use vm_agent::proto::{read_message, write_message};

use super::play::send;
use crate::netdev::Settler;
use crate::serve::number;
use crate::sys;

/// The longest time that sending a frame takes, in nanoseconds.
const SEND_TIME: u64 = 200_000;

pub fn send_at(device: &str, scripts: &[&str]) -> Result<()> {
    let mut socket = sys::packet_socket(SocketType::RAW, device, 0).with_context(|| device.to_owned())?;
    // The resolution of this clock is a tick.
    let tick = nanoseconds(clock_getres(ClockId::MonotonicCoarse).try_into()?)?;
    // The same frames then always have the same ticks, unless they are late.
    let start = nanoseconds(now()?)?.next_multiple_of(tick);
    let mut times = vec![start];
    for script in scripts {
        let mut script = BufReader::new(fs::File::open(script)?);
        loop {
            let step = match read_message(&mut script) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                step => step.context("script")?,
            };
            let [time, frame] = step.as_slice() else { bail!("the script has an unknown step") };
            sleep_until(Duration::from_nanos(start + number::<u64>(time)?))?;
            let time = avoid_end_of_tick(tick)?;
            send(&mut socket, frame).with_context(|| device.to_owned())?;
            times.push(time - time % tick);
        }
    }
    Settler::new()?.settle()?;
    let times: Vec<[u8; 8]> = times.into_iter().map(u64::to_le_bytes).collect();
    write_message(&mut io::stdout(), &[times.as_flattened()]).context("standard output")
}

fn now() -> Result<Duration> {
    Ok(clock_gettime(ClockId::Monotonic).try_into()?)
}

fn nanoseconds(time: Duration) -> Result<u64> {
    Ok(time.as_nanos().try_into()?)
}

fn sleep_until(time: Duration) -> Result<()> {
    if now()? < time {
        let time = time.try_into()?;
        retry_on_intr(|| clock_nanosleep_absolute(ClockId::Monotonic, &time))?;
    }
    Ok(())
}

/// Waits for the next tick if this one ends soon. Returns the time in nanoseconds. Ticks begin at
/// multiples of their length on this clock: `tick_do_update_jiffies64` in
/// <https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/kernel/time/tick-sched.c>.
fn avoid_end_of_tick(tick: u64) -> Result<u64> {
    loop {
        let time = nanoseconds(now()?)?;
        if tick - time % tick > SEND_TIME {
            return Ok(time);
        }
    }
}
