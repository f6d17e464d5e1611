// SPDX-License-Identifier: GPL-2.0

//! Network namespaces, and the rate limit of messages.
//!
//! C headers: [`include/net/net_namespace.h`](srctree/include/net/net_namespace.h),
//! [`include/linux/net.h`](srctree/include/linux/net.h)

use core::ptr::NonNull;
use kernel::{
    bindings,
    types::Opaque, //
};

/// A network namespace (`struct net`) that is in use.
///
/// # Invariants
///
/// The namespace is valid, and its exit callbacks do not begin, as long as there is a reference.
#[repr(transparent)]
pub(crate) struct Net(Opaque<bindings::net>);

impl Net {
    /// Borrows a namespace.
    ///
    /// # Safety
    ///
    /// `net` must be valid for `'a`, and its exit callbacks must not begin before `'a` ends.
    pub(super) unsafe fn from_raw<'a>(net: *mut bindings::net) -> &'a Self {
        // SAFETY: `net` is valid for `'a` by the safety requirements, and `Net` is transparent.
        // INVARIANT: The safety requirements say the same.
        unsafe { &*net.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::net {
        self.0.get()
    }
}

/// A reference to a network namespace. The exit callbacks do not begin before it is dropped.
///
/// # Invariants
///
/// The pointer owns a reference that `maybe_get_net` has taken.
pub(super) struct NetRef(NonNull<bindings::net>);

// SAFETY: The reference count is atomic, and `put_net` may be called by any thread.
unsafe impl Send for NetRef {}
// SAFETY: A shared reference gives no access to anything.
unsafe impl Sync for NetRef {}

impl NetRef {
    /// Takes a reference, unless the last one has been dropped.
    ///
    /// # Safety
    ///
    /// `net` must be valid during the call. Its reference count may be zero.
    pub(super) unsafe fn get(net: NonNull<bindings::net>) -> Option<Self> {
        // SAFETY: `net` is valid by the safety requirements. `maybe_get_net` checks the reference
        // count.
        let net = unsafe { bindings::maybe_get_net(net.as_ptr()) };
        // INVARIANT: The function returned null or a new reference.
        NonNull::new(net).map(Self)
    }
}

impl Drop for NetRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariants `self` owns a reference, which it gives up here.
        unsafe { bindings::put_net(self.0.as_ptr()) };
    }
}

/// Returns whether networking code may log another message now.
///
/// Users who can make rules in a namespace of their own can cause messages. They must not be able
/// to fill the log. [`net_info_ratelimited!`] and [`net_err_ratelimited!`] call this.
pub(crate) fn net_ratelimit() -> bool {
    // SAFETY: The function takes no arguments, and locks its own state with interrupts off, so any
    // context may call it.
    unsafe { bindings::net_ratelimit() != 0 }
}

/// Logs information, unless there were too many messages.
///
/// The arguments are formatted with `core`. The accounting implements its traits, and not those of
/// `kernel::fmt`, which `pr_info!` requires since Linux 6.19.
macro_rules! net_info_ratelimited {
    ($($message:tt)+) => {
        if $crate::glue::net::net_ratelimit() {
            kernel::pr_info!("{}", format_args!($($message)+));
        }
    };
}
pub(crate) use net_info_ratelimited;

/// Logs an error as [`net_info_ratelimited!`] logs information.
macro_rules! net_err_ratelimited {
    ($($message:tt)+) => {
        if $crate::glue::net::net_ratelimit() {
            kernel::pr_err!("{}", format_args!($($message)+));
        }
    };
}
pub(crate) use net_err_ratelimited;
