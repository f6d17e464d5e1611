// SPDX-License-Identifier: GPL-2.0

//! Lists for readers. When memory is short, a reader gets an error, and nobody is killed for it.

use super::budget::Budget;
use core::{
    alloc::Layout,
    ops::{
        Deref,
        DerefMut, //
    },
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    alloc::{
        allocator::KVmalloc,
        AllocError,
        Allocator,
        Flags,
        NumaNode,
        Vec, //
    },
    bindings,
    prelude::*, //
};

/// `GFP_KERNEL_ACCOUNT`, but an allocation fails rather than invoking the OOM killer, and without a
/// report: <https://docs.kernel.org/core-api/memory-allocation.html>.
const GFP_READER: bindings::gfp_t =
    bindings::GFP_KERNEL_ACCOUNT | bindings::__GFP_NOWARN | 1 << bindings::___GFP_RETRY_MAYFAIL_BIT;

/// Allocates as [`KVmalloc`] does, always with [`GFP_READER`].
struct ReaderMemory;

// SAFETY: Both functions are those that `KVmalloc` calls. They keep memory valid until it is freed,
// take any pointer that they have returned, and fulfil the guarantees of `realloc`.
unsafe impl Allocator for ReaderMemory {
    const MIN_ALIGN: usize = KVmalloc::MIN_ALIGN;

    unsafe fn realloc(
        ptr: Option<NonNull<u8>>,
        layout: Layout,
        old_layout: Layout,
        flags: Flags,
        nid: NumaNode,
    ) -> Result<NonNull<[u8]>, AllocError> {
        if layout.size() == 0 {
            // SAFETY: The safety requirements are the same.
            return unsafe { KVmalloc::realloc(ptr, layout, old_layout, flags, nid) };
        }
        let old = match ptr {
            Some(ptr) if old_layout.size() > 0 => ptr.as_ptr(),
            _ => ptr::null_mut(),
        };
        // SAFETY: By the safety requirements `old` is null or comes from this allocator.
        let new = unsafe {
            bindings::kvrealloc_node_align(
                old.cast(),
                layout.size(),
                layout.align(),
                GFP_READER,
                bindings::NUMA_NO_NODE,
            )
        };
        let new = NonNull::new(new.cast()).ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(new, layout.size()))
    }
}

/// A list that can grow, within the budget of the readers.
pub(crate) struct List<T> {
    items: Vec<T, ReaderMemory>,
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
            items: Vec::new(),
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
        self.items.push_within_capacity(item).map_err(|_| ENOMEM)
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
        Ok(self.items.reserve(additional, GFP_KERNEL)?)
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
