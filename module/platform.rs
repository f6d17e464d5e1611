// SPDX-License-Identifier: GPL-2.0

//! What the accounting needs from the kernel for readers.

use crate::{
    accounting::platform::Platform,
    glue::task::{
        cond_resched,
        fatal_signal_pending, //
    },
};
use kernel::{
    alloc::KVVec,
    prelude::*,
    sync::Mutex, //
};

/// The kernel.
///
/// # Context
///
/// Process context. All functions might sleep.
pub(crate) struct Kernel;

impl Platform for Kernel {
    type Error = Error;
    type List<T> = KVVec<T>;
    type Lock<T> = Pin<KBox<Mutex<T>>>;

    fn list<T>(capacity: usize) -> Result<KVVec<T>> {
        Ok(KVVec::with_capacity(capacity, GFP_KERNEL_ACCOUNT)?)
    }

    fn push<T>(list: &mut KVVec<T>, item: T) -> Result {
        Ok(list.push(item, GFP_KERNEL_ACCOUNT)?)
    }

    fn truncate<T>(list: &mut KVVec<T>, length: usize) {
        list.truncate(length);
    }

    fn with<T, R>(lock: &Self::Lock<T>, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut lock.lock())
    }

    fn pause() -> Result {
        cond_resched();
        if fatal_signal_pending() {
            return Err(EINTR);
        }
        Ok(())
    }
}
