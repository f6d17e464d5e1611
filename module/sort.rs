// SPDX-License-Identifier: GPL-2.0

//! Sorting what readers are to see.

use crate::{accounting::sort::merge_sort, glue::task};
use kernel::{alloc::KVVec, prelude::*};

/// Sorts a list of any length. May sleep; fails if the reader has been killed.
pub(crate) fn sort<T: Copy + Ord>(items: &mut KVVec<T>) -> Result {
    let mut scratch = KVVec::with_capacity(items.len(), GFP_KERNEL_ACCOUNT)?;
    scratch.extend_from_slice(items, GFP_KERNEL_ACCOUNT)?;
    merge_sort(items, &mut scratch, task::go_on)
}
