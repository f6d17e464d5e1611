// SPDX-License-Identifier: GPL-2.0

//! A clock that costs a load.
//!
//! C header: `include/linux/jiffies.h`

use crate::accounting::flows::{Clock, Ticks};
use kernel::{bindings, time::msecs_to_jiffies};

/// The clock that [`now`] reads.
pub(crate) fn clock() -> Clock {
    // Not `bindings::HZ`, which is the one that user space sees.
    Clock {
        ticks_per_second: msecs_to_jiffies(1000) as Ticks,
    }
}

/// Ticks. They start a few minutes below 2^32, and do not wrap around on 64 bits.
#[inline]
pub(crate) fn now() -> Ticks {
    // SAFETY: The variable is always there, and changes as a whole.
    unsafe { (&raw const bindings::jiffies).read_volatile() as Ticks }
}
