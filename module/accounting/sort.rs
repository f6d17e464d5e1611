// SPDX-License-Identifier: GPL-2.0

//! A merge sort for long lists in a kernel: it does not recurse, and it can be interrupted.

use super::platform::Platform;

/// The length of the runs that are sorted in place before they are merged.
const RUN: usize = 32;
/// The largest number of items that are moved between two pauses.
pub const PAUSE: usize = 1024;

/// Sorts a list of any length. The sort is stable.
///
/// # Errors
///
/// Fails if there is no memory for a copy of the list, or if a pause fails.
pub fn sort<P: Platform, T: Copy + Ord>(items: &mut P::List<T>) -> Result<(), P::Error> {
    let mut scratch = P::list(items.len())?;
    for chunk in items.chunks(PAUSE) {
        for item in chunk {
            P::push(&mut scratch, *item)?;
        }
        P::pause()?;
    }
    merge_sort(items, &mut scratch, P::pause)
}

/// Sorts `items`. The sort is stable. Calls `pause` after at most [`PAUSE`] items.
///
/// `scratch` must be as long as `items`. Its contents are overwritten.
///
/// The sort of `core` recurses with stack frames of hundreds of bytes, to a depth that depends on
/// the data. The data come from the network, so the stack of the kernel could overflow. The
/// kernel's own `sort()` is a heapsort, whose access to memory is random: it takes ten times as
/// long for millions of items.
///
/// # Errors
///
/// Stops at the first error that `pause` returns, and returns it. `items` are in no particular
/// order then.
pub fn merge_sort<T: Copy + Ord, E>(
    items: &mut [T],
    scratch: &mut [T],
    mut pause: impl FnMut() -> Result<(), E>,
) -> Result<(), E> {
    for some in items.chunks_mut(PAUSE) {
        some.chunks_mut(RUN).for_each(insertion_sort);
        pause()?;
    }
    let (mut from, mut to) = (&mut *items, &mut *scratch);
    let (mut width, mut in_scratch) = (RUN, false);
    while width < from.len() {
        for (pair, out) in from.chunks(2 * width).zip(to.chunks_mut(2 * width)) {
            merge(pair.split_at(width.min(pair.len())), out, &mut pause)?;
        }
        core::mem::swap(&mut from, &mut to);
        (width, in_scratch) = (2 * width, !in_scratch);
    }
    if in_scratch {
        for (to, from) in items.chunks_mut(PAUSE).zip(scratch.chunks(PAUSE)) {
            to.copy_from_slice(from);
            pause()?;
        }
    }
    Ok(())
}

fn insertion_sort<T: Copy + Ord>(run: &mut [T]) {
    for end in 1..run.len() {
        let item = run[end];
        let place = run[..end]
            .iter()
            .rposition(|other| *other <= item)
            .map_or(0, |before| before + 1);
        run.copy_within(place..end, place + 1);
        run[place] = item;
    }
}

/// Merges two sorted slices into `out`, which is as long as both together.
fn merge<T: Copy + Ord, E>(
    (mut left, mut right): (&[T], &[T]),
    out: &mut [T],
    mut pause: impl FnMut() -> Result<(), E>,
) -> Result<(), E> {
    for some in out.chunks_mut(PAUSE) {
        for slot in some {
            let from = match (left.first(), right.first()) {
                (Some(l), Some(r)) if r < l => &mut right,
                (Some(_), _) => &mut left,
                (None, _) => &mut right,
            };
            if let Some((first, rest)) = from.split_first() {
                *slot = *first;
                *from = rest;
            }
        }
        pause()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::{vec, vec::Vec};

    fn sorted<T: Copy + Ord>(mut items: Vec<T>) -> Vec<T> {
        let mut scratch = items.clone();
        merge_sort::<_, ()>(&mut items, &mut scratch, || Ok(())).unwrap();
        items
    }

    #[test]
    fn lists_of_any_length_and_order_are_sorted() {
        let mut state = 1u64;
        for length in (0..200).chain([1000, 1023, 1024, 1025, 10_000]) {
            let mut next = || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                (state >> 33) % 500
            };
            let random: Vec<u64> = (0..length).map(|_| next()).collect();
            let mut expected = random.clone();
            expected.sort();
            assert_eq!(sorted(random), expected);
            assert_eq!(sorted(expected.clone()), expected);
            let descending = expected.iter().rev().copied().collect();
            assert_eq!(sorted(descending), expected);
        }
    }

    #[test]
    fn equal_items_keep_their_order() {
        #[derive(Clone, Copy, Debug, Eq)]
        struct Item(u32, usize);
        impl PartialEq for Item {
            fn eq(&self, other: &Self) -> bool {
                self.0 == other.0
            }
        }
        impl PartialOrd for Item {
            fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for Item {
            fn cmp(&self, other: &Self) -> core::cmp::Ordering {
                self.0.cmp(&other.0)
            }
        }
        let items = (0..1000).map(|n| Item(n as u32 * 7 % 10, n)).collect();
        assert!(sorted(items)
            .windows(2)
            .all(|pair| pair[0].0 != pair[1].0 || pair[0].1 < pair[1].1));
    }

    #[test]
    fn pauses_come_often_enough() {
        const LENGTH: usize = 1 << 15;
        let (mut items, mut scratch) = (vec![1; LENGTH], vec![1; LENGTH]);
        let mut pauses = 0;
        let pause = || {
            pauses += 1;
            Ok::<_, ()>(())
        };
        merge_sort(&mut items, &mut scratch, pause).unwrap();
        // One pass sorts the runs. Each of the others merges pairs of runs.
        let passes = 1 + (LENGTH / RUN).ilog2() as usize;
        assert!(pauses >= passes * LENGTH / PAUSE, "{pauses}");
    }

    #[test]
    fn an_error_of_a_pause_ends_the_sort() {
        let (mut items, mut scratch) = (vec![1; 1000], vec![1; 1000]);
        let mut left = 3;
        let pause = || {
            left -= 1;
            if left == 0 {
                Err("enough")
            } else {
                Ok(())
            }
        };
        assert_eq!(merge_sort(&mut items, &mut scratch, pause), Err("enough"));
    }
}
