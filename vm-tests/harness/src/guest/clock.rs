// SPDX-License-Identifier: GPL-2.0
//! Two kinds of time in a guest.

use anyhow::Result;

use crate::accel;

/// What a guest's clock goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The host's: a second in the guest takes a second.
    Real,
    /// The instructions that its one CPU executes, a nanosecond each. When it has nothing to do, its time jumps to
    /// the next timer: `sleep 600` takes no time, and the clock shows ten minutes more.
    ///
    /// The clock also runs away while the guest waits for the host, so what has to happen at a certain time
    /// must be done inside, by [`super::Guest::play`].
    Virtual,
}

/// QEMU counts instructions only when it translates them, and only of one CPU at a time.
const COUNTED: [&str; 6] = ["-accel", "tcg,thread=single", "-cpu", "max", "-icount", "shift=0,sleep=off"];

impl Clock {
    /// QEMU's arguments for the clock and for what executes the guest's code.
    pub(super) fn arguments(self) -> Result<Vec<&'static str>> {
        Ok(match self {
            Self::Real => accel::best()?.arguments().to_vec(),
            Self::Virtual => COUNTED.to_vec(),
        })
    }

    /// The guest's CPU, in words that change when it does.
    pub(super) fn cpu(self) -> Result<String> {
        Ok(accel::cpu(match self {
            Self::Real => accel::best()?,
            Self::Virtual => accel::Accel::Tcg,
        }))
    }
}
