// SPDX-License-Identifier: GPL-2.0

//! Memory cgroups: who pays for memory that is allocated in softirq.
//!
//! C header: `include/linux/memcontrol.h`

use kernel::{bindings, types::NotThreadSafe};

/// A reference to the memory cgroup of whoever made the rule.
///
/// In softirq, `current` is just the task that happened to be interrupted. Allocations there are
/// charged to nobody unless an active cgroup is set.
///
/// # Invariants
///
/// The pointer is null (no cgroups) or holds a reference.
pub(crate) struct Memcg(*mut bindings::mem_cgroup);

// SAFETY: Cgroups are reference counted and may be used and put from any thread.
unsafe impl Send for Memcg {}
// SAFETY: Nothing is changed through a shared reference.
unsafe impl Sync for Memcg {}

impl Memcg {
    /// The cgroup of the current task.
    pub(crate) fn of_current() -> Self {
        // SAFETY: No mm means the one of the current task.
        // INVARIANT: The function returns null or a new reference.
        Self(unsafe { bindings::get_mem_cgroup_from_mm(core::ptr::null_mut()) })
    }

    /// Charges accounted allocations to this cgroup until the guard is dropped.
    pub(crate) fn charge(&self) -> Charge<'_> {
        Charge {
            // SAFETY: By the type's invariant the pointer is null or valid, and `self` outlives the
            // guard, which takes the cgroup back.
            previous: unsafe { bindings::set_active_memcg(self.0) },
            _memcg: self,
            _not_send: NotThreadSafe,
        }
    }
}

impl Drop for Memcg {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant; null is allowed.
        unsafe { bindings::mem_cgroup_put(self.0) };
    }
}

/// While this lives, accounted allocations of this context are charged to its cgroup.
pub(crate) struct Charge<'a> {
    previous: *mut bindings::mem_cgroup,
    _memcg: &'a Memcg,
    _not_send: NotThreadSafe,
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        // SAFETY: `previous` is what was active before, in the same context.
        unsafe { bindings::set_active_memcg(self.previous) };
    }
}
