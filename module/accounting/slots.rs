// SPDX-License-Identifier: GPL-2.0

//! The memory that tables are made of.

use crate::atomic::{AtomicU32, Ordering::Relaxed};

/// An array that grows at its end or anywhere else, and never moves.
///
/// One context at a time makes slots; any number may look at those that are there. A slot has the
/// `Default` of its type when it is made.
pub trait Slots<T> {
    /// The slot `index`, if it has been made.
    fn get(&self, index: u32) -> Option<&T>;

    /// The slot `index`, made now if it is not there yet. `None` if memory is short or the array
    /// is as long as it may get.
    fn make(&self, index: u32) -> Option<&T>;

    /// Bytes of memory that it takes at the moment.
    fn memory(&self) -> usize;
}

/// Where tables get their arrays from.
pub trait Memory {
    /// An array of `T`.
    type Slots<T: Slot>: Slots<T>;
    /// Why there is no array.
    type Error;

    /// How many times a new slot is given up without asking, after one could not be had.
    fn backoff(&self) -> u32;

    /// An array that may get as long as `limit`, without any slot yet.
    fn slots<T: Slot>(&self, limit: u32) -> Result<Self::Slots<T>, Self::Error>;
}

/// What can be in a slot.
pub trait Slot: Default + Send + Sync + 'static {}

impl<T: Default + Send + Sync + 'static> Slot for T {}

/// Keeps those from asking who would ask in vain: after memory was short, a flood of new addresses
/// would else make every packet pay for an allocation that fails.
#[derive(Debug)]
pub struct Backoff {
    /// How many attempts are left out after a failure.
    length: u32,
    /// How many of them are still to come.
    left: AtomicU32,
}

impl Backoff {
    /// No failure yet.
    pub fn new(length: u32) -> Self {
        Self {
            length,
            left: AtomicU32::new(0),
        }
    }

    /// Makes an attempt unless one has failed not long ago. One context at a time calls this.
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

    /// Will the next attempt be left out?
    pub fn is_active(&self) -> bool {
        self.left.load(Relaxed) > 0
    }
}
