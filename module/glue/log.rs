// SPDX-License-Identifier: GPL-2.0

//! Messages that users can cause.

use kernel::bindings;

/// Is there room in the log for another message of networking code? Who may make rules in a
/// namespace of his own must not be able to fill the log.
pub(crate) fn permitted() -> bool {
    // SAFETY: Callable from any context, without arguments.
    unsafe { bindings::net_ratelimit() != 0 }
}
