// SPDX-License-Identifier: GPL-2.0

//! The memory of tables, as the accounting sees it.

use crate::atomic::{AtomicU32, Ordering::Relaxed};

/// An array whose slots are allocated one by one, in any order, and never move.
///
/// Only one context at a time may call [`Self::make`]. Any number of contexts may call
/// [`Self::get`] at the same time. A new slot has the `Default` of its type.
pub trait Slots<T> {
    /// The slot `index`. `None` if it is not allocated.
    fn get(&self, index: u32) -> Option<&T>;

    /// The slot `index`, allocated now if need be. `None` if there is no memory or if `index` is
    /// not below the limit of the array.
    fn make(&self, index: u32) -> Option<&T>;

    /// The bytes of memory that the allocated slots take.
    fn memory(&self) -> usize;
}

/// An allocator of arrays.
pub trait Memory {
    /// An array of `T`.
    type Slots<T: Slot>: Slots<T>;
    /// The error if an array cannot be allocated.
    type Error;

    /// The number of allocations to skip after one has failed (see [`Backoff`]).
    fn backoff(&self) -> u32;

    /// An array of at most `limit` slots, none of which is allocated yet.
    ///
    /// # Errors
    ///
    /// Fails if there is no memory for the array's own bookkeeping.
    fn slots<T: Slot>(&self, limit: u32) -> Result<Self::Slots<T>, Self::Error>;
}

/// A type that can be in a slot.
pub trait Slot: Default + Send + Sync + 'static {}

impl<T: Default + Send + Sync + 'static> Slot for T {}

/// Skips a number of allocations after one has failed. Without it, when memory is short, a flood
/// of new addresses makes every packet pay for an allocation that fails.
#[derive(Debug)]
pub struct Backoff {
    /// The number of attempts to skip after a failure.
    length: u32,
    /// The number of attempts still to skip.
    left: AtomicU32,
}

impl Backoff {
    /// Skips `length` attempts after each failure.
    pub fn new(length: u32) -> Self {
        Self {
            length,
            left: AtomicU32::new(0),
        }
    }

    /// Calls `make`, unless the attempt is to be skipped. `None` if it is skipped or fails.
    ///
    /// Must not be called by two contexts at the same time.
    pub fn attempt<T>(&self, make: impl FnOnce() -> Option<T>) -> Option<T> {
        if let Some(left) = self.left.load(Relaxed).checked_sub(1) {
            self.left.store(left, Relaxed);
            return None;
        }
        let made = make();
        if made.is_none() {
            self.left.store(self.length, Relaxed);
        }
        made
    }

    /// Returns whether the next attempt will be skipped.
    pub fn is_active(&self) -> bool {
        self.left.load(Relaxed) > 0
    }
}
