// SPDX-License-Identifier: GPL-2.0

//! The kernel's tick counter. Reading it is a single load.
//!
//! C header: [`include/linux/jiffies.h`](srctree/include/linux/jiffies.h)

use kernel::{
    bindings,
    time::msecs_to_jiffies, //
};

/// Returns the number of jiffies in a second.
pub(crate) fn hz() -> u64 {
    // `bindings::HZ` is `USER_HZ`, the frequency that user space sees.
    msecs_to_jiffies(1000) as u64
}

/// Returns the time in jiffies.
///
/// The counter starts a few minutes below 2^32. It does not wrap around on 64-bit kernels.
#[inline]
pub(crate) fn jiffies() -> u64 {
    // SAFETY: `jiffies` is a static of the kernel, aligned and initialized. The timer interrupt
    // changes it with single stores, which a volatile load reads as a whole.
    unsafe { (&raw const bindings::jiffies).read_volatile() as u64 }
}
