// SPDX-License-Identifier: GPL-2.0

//! The time since boot.
//!
//! C header: [`include/linux/timekeeping.h`](srctree/include/linux/timekeeping.h)

use super::compat::time::{
    BootTime,
    ClockSource, //
};

/// Returns the nanoseconds since boot, with the time in suspend: `CLOCK_BOOTTIME`, without the
/// offset of a time namespace.
pub(crate) fn nanoseconds_since_boot() -> u64 {
    // The clock is never negative.
    BootTime::ktime_get().unsigned_abs()
}
