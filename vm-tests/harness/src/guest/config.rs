// SPDX-License-Identifier: GPL-2.0-only
//! The hardware of a guest.

use anyhow::Result;

use crate::accel::{self, Threads};
use crate::artifacts::Artifacts;

/// How a guest is built.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its kernel and root file system.
    pub artifacts: Artifacts,
    /// The number of CPUs.
    pub cpus: u32,
    /// The number of network ports: `eth0` and so on.
    pub ports: usize,
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// Its clock.
    pub clock: Clock,
    /// The threads that run its CPUs, unless its clock is virtual.
    pub threads: Threads,
}

impl Config {
    /// Two CPUs, two ports and 512 MiB. All tests use the same numbers, so that all guests start
    /// from one saved state.
    pub fn new(artifacts: Artifacts) -> Self {
        let threads = Threads::Each;
        Self { artifacts, cpus: 2, ports: 2, memory_mib: 512, clock: Clock::Real, threads }
    }

    /// For tests that change rules many times while frames arrive.
    pub fn safe_for_patching(artifacts: Artifacts) -> Self {
        Self { threads: Threads::SafeForPatching, ..Self::new(artifacts) }
    }

    /// For tests of timeouts: [`Clock::Virtual`], which allows one CPU.
    pub fn with_virtual_clock(artifacts: Artifacts) -> Self {
        Self { cpus: 1, clock: Clock::Virtual, ..Self::new(artifacts) }
    }
}

/// What drives a guest's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The host's clock: a second in the guest takes a second.
    Real,
    /// The executed instructions: each takes a nanosecond. When the CPU is idle, the clock jumps to
    /// the next timer: `sleep 600` returns at once and the clock shows ten minutes more.
    ///
    /// The clock also jumps while the guest waits for the host, so [`super::Guest::play`] must do
    /// what has to happen at a certain time.
    Virtual,
}

/// QEMU counts instructions only with TCG and only for one CPU.
const COUNTED: [&str; 6] = ["-accel", "tcg,thread=single", "-cpu", "max", "-icount", "shift=0,sleep=off"];

impl Clock {
    /// QEMU's arguments for the clock and the accelerator.
    pub(super) fn arguments(self, threads: Threads) -> Result<Vec<&'static str>> {
        Ok(match self {
            Self::Real => accel::best()?.arguments(threads).to_vec(),
            Self::Virtual => COUNTED.to_vec(),
        })
    }

    /// Text that identifies the CPU model.
    pub(super) fn cpu(self) -> Result<String> {
        Ok(accel::cpu(match self {
            Self::Real => accel::best()?,
            Self::Virtual => accel::Accel::Tcg,
        }))
    }
}
