// SPDX-License-Identifier: GPL-2.0-only
//! `send-at DEVICE SCRIPT...`: sends frames out of a device, each at its time by the guest's clock.
//! One process does all of it, so the host's timing has no influence.
//!
//! A script is a file with one message (see `proto.rs`) for each frame: its time in nanoseconds
//! since the first one, and its bytes. A frame whose time has passed is sent at once.
//!
//! Standard output is a message with one field of little-endian numbers of 64 bits: the start and
//! the length of the kernel's tick, then for each frame when the tick in which it was sent began,
//! all in nanoseconds. The module measures time in ticks.

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

pub fn send_at(device: &str, scripts: &[&str]) -> Result<()> {
    let mut socket = sys::packet_socket(SocketType::RAW, device, 0).with_context(|| device.to_owned())?;
    let (start, tick) = (now(ClockId::Monotonic)?, clock_getres(ClockId::MonotonicCoarse).try_into()?);
    let mut times: Vec<Duration> = vec![start, tick];
    for script in scripts {
        let mut script = BufReader::new(fs::File::open(script)?);
        loop {
            let step = match read_message(&mut script) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                step => step.context("script")?,
            };
            let [time, frame] = step.as_slice() else { bail!("the script has an unknown step") };
            sleep_until(start + number(time).map(Duration::from_nanos)?)?;
            send(&mut socket, frame).with_context(|| device.to_owned())?;
            // This clock stands still between ticks.
            times.push(now(ClockId::MonotonicCoarse)?);
        }
    }
    Settler::new()?.settle()?;
    let times = times.iter().map(|time| u64::try_from(time.as_nanos()).map(u64::to_le_bytes));
    let times: Vec<[u8; 8]> = times.collect::<Result<_, _>>()?;
    write_message(&mut io::stdout(), &[times.as_flattened()]).context("standard output")
}

fn now(clock: ClockId) -> Result<Duration> {
    Ok(clock_gettime(clock).try_into()?)
}

fn sleep_until(time: Duration) -> Result<()> {
    if now(ClockId::Monotonic)? < time {
        let time = time.try_into()?;
        retry_on_intr(|| clock_nanosleep_absolute(ClockId::Monotonic, &time))?;
    }
    Ok(())
}
