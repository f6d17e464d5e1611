// SPDX-License-Identifier: GPL-2.0

//! A sequence lock: one context changes data, and others read it without waiting for each other.
//!
//! <https://docs.kernel.org/locking/seqlock.html>

use crate::atomic::{
    fence, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

/// The version of some data. The data consists of atomic variables.
#[derive(Debug, Default)]
pub struct Version(AtomicU32);

impl Version {
    /// Calls `change`, which changes the data. What was read at the same time is not consistent.
    ///
    /// Must not be called by two contexts at the same time.
    pub fn change(&self, change: impl FnOnce()) {
        let before = self.0.load(Relaxed);
        self.0.store(before.wrapping_add(1), Relaxed);
        // Whoever sees a store of `change`, or a later one, also sees the store above: this fence
        // pairs with the one in `is_current`.
        fence(Release);
        change();
        self.0.store(before.wrapping_add(2), Release);
    }

    /// Begins to read the data. `None` if it is being changed.
    pub fn begin(&self) -> Option<Reading> {
        let version = self.0.load(Acquire);
        (version & 1 == 0).then_some(Reading(version))
    }

    /// Returns whether the data that was read since [`begin`](Self::begin) is consistent.
    #[must_use]
    pub fn is_current(&self, Reading(version): Reading) -> bool {
        fence(Acquire);
        self.0.load(Relaxed) == version
    }
}

/// The version of the data when a reader began.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Reading(u32);
