// SPDX-License-Identifier: GPL-2.0

//! The memory that all tables together may take. `memory.c` defines the bounds.

use super::net::Net;
use crate::atomic::{
    AtomicU64,
    Ordering::Relaxed, //
};
use kernel::ffi::{
    c_uint,
    c_void, //
};

extern "C" {
    fn xt_traffic_memory_bound(initial: bool) -> u64;
    fn xt_traffic_current_is_initial() -> bool;
    fn xt_traffic_net_is_initial(net: *const c_void) -> bool;
    fn xt_traffic_online_cpus() -> c_uint;
}

/// The memory for the tables of some network namespaces, or for their readers.
///
/// Except for the first pages of each CPU, the memory of tables is allocated page by page, as
/// packets need it. A table reserves what it can take at most, so that the next table gets less.
pub(crate) struct Budget {
    /// Whether it is for the initial network namespace. Otherwise it is for all others together.
    initial: bool,
    /// The bytes that are allocated.
    used: AtomicU64,
    /// The bytes that tables have reserved.
    reserved: AtomicU64,
    /// The bound in bytes. Packets cannot wait for its calculation.
    bound: AtomicU64,
}

static INITIAL: Budget = Budget::new(true);
static OTHERS: Budget = Budget::new(false);
static INITIAL_READERS: Budget = Budget::new(true);
static OTHER_READERS: Budget = Budget::new(false);

impl Budget {
    const fn new(initial: bool) -> Self {
        Self {
            initial,
            used: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            bound: AtomicU64::new(0),
        }
    }

    /// Returns the budget for the tables of a namespace.
    pub(crate) fn of(net: &Net) -> &'static Self {
        // SAFETY: `net` is borrowed, so the pointer is valid. The function only compares it.
        match unsafe { xt_traffic_net_is_initial(net.as_ptr().cast()) } {
            true => &INITIAL,
            false => &OTHERS,
        }
    }

    /// Returns the budget for what the current task reads. It is as large as that for the tables of
    /// the task's network namespace.
    pub(super) fn of_current_reader() -> &'static Self {
        // SAFETY: The function only reads the state of the current task.
        let budget = match unsafe { xt_traffic_current_is_initial() } {
            true => &INITIAL_READERS,
            false => &OTHER_READERS,
        };
        budget.bound();
        budget
    }

    /// Returns the bytes that are allocated.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Returns the bound in bytes. A change of the module's parameter takes effect here.
    pub(crate) fn bound(&self) -> u64 {
        // SAFETY: The function only reads variables, with single loads.
        let bound = unsafe { xt_traffic_memory_bound(self.initial) };
        self.bound.store(bound, Relaxed);
        bound
    }

    /// Reserves memory for a table. `size` gets the bytes that it may take on each CPU, and returns
    /// those that it wants to take, with what it has calculated.
    pub(crate) fn reserve<T>(&'static self, size: impl FnOnce(u64) -> (u64, T)) -> (Reserved, T) {
        // SAFETY: The function only reads a variable.
        let cpus = u64::from(unsafe { xt_traffic_online_cpus() }.max(1));
        let left = self.bound().saturating_sub(self.reserved.load(Relaxed));
        // A third of what is left: other tables may follow.
        let (bytes, result) = size(left / 3 / cpus);
        let bytes = bytes.saturating_mul(cpus);
        self.reserved.fetch_add(bytes, Relaxed);
        let reserved = Reserved {
            budget: self,
            bytes,
        };
        (reserved, result)
    }

    /// Takes memory. Returns `false` if the bound would be exceeded.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let used = self.used.fetch_add(bytes, Relaxed).wrapping_add(bytes);
        let fits = used <= self.bound.load(Relaxed);
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    /// Gives memory back.
    pub(super) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Relaxed);
    }
}

/// The memory that a table has reserved.
pub(crate) struct Reserved {
    budget: &'static Budget,
    bytes: u64,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.reserved.fetch_sub(self.bytes, Relaxed);
    }
}
