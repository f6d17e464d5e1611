// SPDX-License-Identifier: GPL-2.0

//! The atomic types that all of this module uses.
//!
//! Kernel code obeys the Linux kernel memory model (LKMM, [`tools/memory-model`]), while the
//! atomic types of `core` obey the C11 model, and no variable may be accessed under both. The
//! variables of this module are accessed by its own Rust code alone, through the types below, so
//! one model holds for all accesses to each of them.
//!
//! `kernel::sync::atomic` cannot take their place: Linux 6.12 does not have it, and each of its
//! operations calls a C function, also in the packet path. When it can, this file is the only one
//! to change.
//!
//! [`tools/memory-model`]: srctree/tools/memory-model/Documentation/explanation.txt

#[cfg(not(loom))]
use core::sync;
// The tests in `tests/interleavings` run each order of the accesses that the C11 model allows.
#[cfg(loom)]
use loom::sync;

pub use sync::atomic::{
    fence,
    AtomicBool,
    AtomicPtr,
    AtomicU32,
    AtomicU64,
    Ordering, //
};

/// A size: `real`, or `small` in the tests that run each order of accesses. They take far too long
/// with a real size.
pub(crate) const fn size(real: u32, small: u32) -> u32 {
    if cfg!(loom) {
        small
    } else {
        real
    }
}
