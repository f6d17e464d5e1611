// SPDX-License-Identifier: GPL-2.0

//! What the accounting needs from the kernel for readers.

use crate::{
    accounting::platform::Platform,
    glue::{
        reader_list::List,
        task::{
            cond_resched,
            fatal_signal_pending, //
        },
    },
};
use kernel::{
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
    type List<T> = List<T>;
    type Lock<T> = Pin<KBox<Mutex<T>>>;

    fn list<T>(capacity: usize) -> Result<List<T>> {
        List::with_capacity(capacity)
    }

    fn push<T>(list: &mut List<T>, item: T) -> Result {
        list.push(item)
    }

    fn truncate<T>(list: &mut List<T>, length: usize) {
        list.truncate(length);
    }

    fn with<T: Unpin, R>(lock: &Self::Lock<T>, f: impl FnOnce(&mut T) -> R) -> R {
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
