// SPDX-License-Identifier: GPL-2.0

//! Sorting large arrays.
//!
//! C header: `include/linux/sort.h`

use core::cmp::Ordering;
use kernel::{
    bindings,
    ffi::{c_int, c_void},
};

/// Sorts `slice`, and lets others run now and then. May sleep.
///
/// `core`'s sorting recurses, with frames of hundreds of bytes and to a depth that depends on the
/// data, which here come from the network: more than a kernel stack holds. This one is a heapsort.
pub(crate) fn sort<T: Copy + Ord>(slice: &mut [T]) {
    // SAFETY: The array is `len` elements of this size, which `compare` takes. Elements are `Copy`,
    // so they may be moved as bytes, which is what happens without a function to swap them.
    unsafe {
        bindings::sort_nonatomic(slice.as_mut_ptr().cast(), slice.len(), size_of::<T>(), Some(compare::<T>), None)
    };
}

/// # Safety
///
/// Both pointers must be to valid values of type `T`.
unsafe extern "C" fn compare<T: Ord>(a: *const c_void, b: *const c_void) -> c_int {
    // SAFETY: The caller promises it.
    let (a, b) = unsafe { (&*a.cast::<T>(), &*b.cast::<T>()) };
    match a.cmp(b) {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    }
}
