// SPDX-License-Identifier: GPL-2.0

//! The current task, in long loops.
//!
//! C headers: [`include/linux/sched.h`](srctree/include/linux/sched.h),
//! [`include/linux/sched/signal.h`](srctree/include/linux/sched/signal.h)

use kernel::bindings;

/// Lets other tasks run if the current one has used up its time.
///
/// # Context
///
/// Process context. Might sleep. A call in atomic context is a bug, which
/// `CONFIG_DEBUG_ATOMIC_SLEEP` reports. As in the kernel crate, functions that sleep are safe
/// nevertheless (see [`might_sleep`](kernel::task::might_sleep)).
pub(crate) fn cond_resched() {
    // SAFETY: The function takes no arguments, and accesses nothing but the state of the current
    // task and of the scheduler, under the scheduler's own locks.
    unsafe { bindings::cond_resched() };
}

/// Returns whether the current task has been killed.
pub(crate) fn fatal_signal_pending() -> bool {
    // SAFETY: There is always a current task.
    let current = unsafe { bindings::get_current() };
    // SAFETY: The current task is valid at least until this function returns, because the function
    // runs in it.
    unsafe { bindings::fatal_signal_pending(current) != 0 }
}
