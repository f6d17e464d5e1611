// SPDX-License-Identifier: GPL-2.0

//! What readers need from the kernel, or from the host in tests: lists, a lock and a pause.

use super::delivery::ReadError;
use core::ops::DerefMut;

/// The kernel, or the host in tests.
pub trait Platform {
    /// Why an operation fails.
    type Error: From<ReadError>;
    /// A list that can grow.
    type List<T>: DerefMut<Target = [T]>;
    /// A mutex.
    type Lock<T>;

    /// Makes an empty list with room for `capacity` items.
    fn list<T>(capacity: usize) -> Result<Self::List<T>, Self::Error>;

    /// Appends `item` to `list`. The list grows if it is full.
    fn push<T>(list: &mut Self::List<T>, item: T) -> Result<(), Self::Error>;

    /// Removes all items but the first `length`.
    fn truncate<T>(list: &mut Self::List<T>, length: usize);

    /// Calls `f` while `lock` is held.
    fn with<T: Unpin, R>(lock: &Self::Lock<T>, f: impl FnOnce(&mut T) -> R) -> R;

    /// Lets other tasks run. Fails if the reader has been killed.
    ///
    /// Long loops call this after at most [`PAUSE`](super::sort::PAUSE) items.
    fn pause() -> Result<(), Self::Error>;
}
