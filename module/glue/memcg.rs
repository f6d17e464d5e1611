// SPDX-License-Identifier: GPL-2.0

//! Memory cgroups, for allocations in softirq.
//!
//! C headers: [`include/linux/memcontrol.h`](srctree/include/linux/memcontrol.h),
//! [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use core::ptr;
use kernel::bindings;

/// A reference to a memory cgroup.
///
/// Softirqs interrupt arbitrary tasks, so the kernel charges no cgroup for what they allocate,
/// unless they name one with [`charge`](Self::charge).
///
/// # Invariants
///
/// The pointer is null, which stands for no cgroup, or owns a reference.
pub(crate) struct Memcg(*mut bindings::mem_cgroup);

// SAFETY: The reference count is atomic, and any thread may use and put a cgroup.
unsafe impl Send for Memcg {}
// SAFETY: `charge` changes only the state of the context that calls it, not the cgroup.
unsafe impl Sync for Memcg {}

impl Memcg {
    /// Returns the cgroup of the current task.
    pub(crate) fn of_current() -> Self {
        // SAFETY: The argument may be null. The function then takes the cgroup of the current
        // context.
        // INVARIANT: It returns null or a new reference.
        Self(unsafe { bindings::get_mem_cgroup_from_mm(ptr::null_mut()) })
    }

    /// Calls `f`. The accounted allocations in it are charged to this cgroup.
    pub(crate) fn charge<R>(&self, f: impl FnOnce() -> R) -> R {
        // SAFETY: By the type invariants the pointer is null or a valid cgroup. `self` is borrowed
        // until this function returns, and before that the active cgroup is changed back. Rust
        // code in the kernel does not unwind, so `f` cannot leave in any other way.
        let previous = unsafe { bindings::set_active_memcg(self.0) };
        let result = f();
        // SAFETY: `previous` was active when this function was called. The code that made it active
        // holds a reference until it changes it back, which is after this function has returned,
        // because calls are nested. This is still the same context.
        unsafe { bindings::set_active_memcg(previous) };
        result
    }
}

impl Drop for Memcg {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the pointer is null, which is allowed, or `self` owns a
        // reference, which it gives up here.
        unsafe { bindings::mem_cgroup_put(self.0) };
    }
}
