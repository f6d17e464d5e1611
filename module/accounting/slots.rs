// SPDX-License-Identifier: GPL-2.0

//! The memory that tables are made of.

/// An array that grows at its end and never moves.
///
/// One context at a time makes slots; any number may look at those that are there. A slot is
/// zero (the `Default` of its type) when it is made.
pub trait Slots<T> {
    /// The slot `index`, if it has been made.
    fn get(&self, index: u32) -> Option<&T>;

    /// The slot `index`, made now if it is not there yet. `None` if memory is short or the array
    /// is as long as it may get.
    fn make(&self, index: u32) -> Option<&T>;
}

/// Slots on the heap, for tests on the host.
#[cfg(test)]
pub mod host {
    extern crate std;

    use super::Slots;
    use std::{boxed::Box, sync::OnceLock, vec::Vec};

    const PER_PAGE: u32 = 64;

    /// An array of at most `limit` slots.
    pub struct HeapSlots<T> {
        limit: u32,
        pages: Vec<OnceLock<Box<[T]>>>,
    }

    impl<T: Default> HeapSlots<T> {
        /// An empty array.
        pub fn new(limit: u32) -> Self {
            let pages = limit.div_ceil(PER_PAGE);
            Self { limit, pages: (0..pages).map(|_| OnceLock::new()).collect() }
        }
    }

    impl<T: Default> Slots<T> for HeapSlots<T> {
        fn get(&self, index: u32) -> Option<&T> {
            let page = self.pages.get((index / PER_PAGE) as usize)?.get()?;
            page.get((index % PER_PAGE) as usize)
        }

        fn make(&self, index: u32) -> Option<&T> {
            if index >= self.limit {
                return None;
            }
            self.pages[(index / PER_PAGE) as usize].get_or_init(|| (0..PER_PAGE).map(|_| T::default()).collect());
            self.get(index)
        }
    }
}
