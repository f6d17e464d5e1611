// SPDX-License-Identifier: GPL-2.0

//! Random numbers.
//!
//! C header: [`include/linux/random.h`](srctree/include/linux/random.h)

use kernel::bindings;

/// Returns an unpredictable number.
pub(crate) fn get_random_u64() -> u64 {
    // SAFETY: The function takes no arguments, and the random number generator locks its own
    // state with interrupts off, so any context may call it.
    unsafe { bindings::get_random_u64() }
}
