// SPDX-License-Identifier: GPL-2.0

//! The memory that tables are made of.

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

    /// An array that may get as long as `limit`, without any slot yet.
    fn slots<T: Slot>(&self, limit: u32) -> Result<Self::Slots<T>, Self::Error>;
}

/// What can be in a slot.
pub trait Slot: Default + Send + Sync + 'static {}

impl<T: Default + Send + Sync + 'static> Slot for T {}
