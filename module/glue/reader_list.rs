// SPDX-License-Identifier: GPL-2.0

//! Lists for readers. When memory is short, a reader gets an error, and nobody is killed for it.

use super::{
    budget::Budget,
    compat::prelude::*, //
};
use core::ops::{
    Deref,
    DerefMut, //
};
use kernel::alloc::Flags;

/// Returns the flags for an allocation that fails rather than invoking the OOM killer, and without
/// a report: <https://docs.kernel.org/core-api/memory-allocation.html>.
fn flags() -> Flags {
    GFP_KERNEL_ACCOUNT | __GFP_NOWARN | __GFP_RETRY_MAYFAIL
}

/// A list that can grow, within the budget of the readers.
pub(crate) struct List<T> {
    items: KVVec<T>,
    budget: &'static Budget,
    /// The bytes that were taken from the budget.
    bytes: u64,
}

impl<T> List<T> {
    /// Makes an empty list with room for `capacity` items.
    ///
    /// Fails with [`ENOMEM`] if there is no memory, or if the budget is used up.
    ///
    /// # Context
    ///
    /// Process context. Might sleep.
    pub(crate) fn with_capacity(capacity: usize) -> Result<Self> {
        let mut list = Self {
            items: KVVec::new(),
            budget: Budget::of_current_reader(),
            bytes: 0,
        };
        list.reserve(capacity)?;
        Ok(list)
    }

    /// Appends an item. The list grows if it is full.
    ///
    /// Fails with [`ENOMEM`] if there is no memory, or if the budget is used up.
    ///
    /// # Context
    ///
    /// Process context. Might sleep.
    pub(crate) fn push(&mut self, item: T) -> Result {
        if self.items.len() == self.items.capacity() {
            self.reserve(self.items.len().max(64))?;
        }
        Ok(self.items.push(item, flags())?)
    }

    /// Removes all items but the first `length`.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.items.truncate(length);
    }

    /// Makes room for `additional` items.
    fn reserve(&mut self, additional: usize) -> Result {
        let bytes = additional.checked_mul(size_of::<T>()).ok_or(ENOMEM)? as u64;
        if !self.budget.take(bytes) {
            return Err(ENOMEM);
        }
        self.bytes += bytes;
        Ok(self.items.reserve(additional, flags())?)
    }
}

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items
    }
}

impl<T> DerefMut for List<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.items
    }
}

impl<T> Drop for List<T> {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}
