// SPDX-License-Identifier: GPL-2.0

//! Being a good neighbour in long work on behalf of a task.
//!
//! C headers: `include/linux/sched.h`, `include/linux/sched/signal.h`

use kernel::{bindings, prelude::*};

/// Lets others run who have waited long enough. May sleep.
pub(crate) fn let_others_run() {
    // SAFETY: Called where sleeping is allowed.
    unsafe { bindings::cond_resched() };
}

/// As [`let_others_run`]; fails if the task has been killed, so that there is nobody to work for.
pub(crate) fn go_on() -> Result {
    let_others_run();
    // SAFETY: The current task is always there.
    match unsafe { bindings::fatal_signal_pending(bindings::get_current()) } {
        0 => Ok(()),
        _ => Err(EINTR),
    }
}
