// SPDX-License-Identifier: GPL-2.0

//! Random numbers.

use kernel::bindings;

/// A number that cannot be guessed.
pub(crate) fn random_u64() -> u64 {
    // SAFETY: Callable from any context, without arguments.
    unsafe { bindings::get_random_u64() }
}
