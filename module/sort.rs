// SPDX-License-Identifier: GPL-2.0

//! Sorting what readers are to see.

use crate::{
    accounting::sort::{merge_sort, PAUSE},
    glue::task,
};
use kernel::{alloc::KVVec, prelude::*};

/// Sorts a list of any length. May sleep; fails if the reader has been killed.
pub(crate) fn sort<T: Copy + Ord>(items: &mut KVVec<T>) -> Result {
    let mut scratch = KVVec::with_capacity(items.len(), GFP_KERNEL_ACCOUNT)?;
    for some in items.chunks(PAUSE) {
        scratch.extend_from_slice(some, GFP_KERNEL_ACCOUNT)?;
        task::go_on()?;
    }
    merge_sort(items, &mut scratch, task::go_on)
}
