// SPDX-License-Identifier: GPL-2.0

//! The recent flows of one kind on one CPU.
//!
//! Each kind of flow has an array of its own, so flows of one kind never replace those of another.
//! An array consists of sets of four flows, like the lines of a set-associative cache. The hash of
//! a flow selects two sets, and the flow is in one of them. With two choices hardly any set is full
//! while there is room in others (<https://doi.org/10.1109/71.963420>).
//!
//! An array starts with one page of sets. When two sets have no room for a new flow, more sets are
//! added by linear hashing (<https://en.wikipedia.org/wiki/Linear_hashing>), up to a limit. At the
//! limit, or without memory, the new flow replaces a living one, and that is counted.

use super::{
    counters::add_to,
    flow::{Flow, Flows, Ticks},
    hash::Seed,
    slots::{Backoff, Memory, Slots},
};
use crate::atomic::{
    fence, size, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use core::ptr;

/// The number of flows in a set: as many as fit in a cache line.
const WAYS: usize = size(4, 2) as usize;
/// Eight flows have this number of sets when an array is at its limit. With two choices, sets that
/// are filled to two thirds rarely replace a living flow.
pub(super) const SETS_PER_EIGHT_FLOWS: u32 = 3;
/// The largest number of bytes that a flow takes, if the array is at its limit.
pub const BYTES_PER_FLOW: u64 = (size_of::<Set>() as u64 * SETS_PER_EIGHT_FLOWS as u64) / 8;
/// The number of sets that an array starts with: one page.
const INITIAL_SETS: u32 = size(64, 1);
/// If the first set of a new flow is full, and the second has no more than this number of places
/// left, sets are added. So most flows are in their first set, where they are found faster.
const SCARCE: usize = 1;
/// The number of sets that are added at once.
const GROWTH: u32 = 8;

/// A place for one flow.
#[derive(Debug, Default)]
pub(super) struct Way {
    tag: AtomicU64,
    /// The time at which the flow expires, times two, plus one if it had a second packet. 0 if
    /// there is no flow here.
    end: AtomicU64,
}

impl Way {
    /// Returns whether the flow with this tag is here and alive. Any CPU may call this.
    #[inline]
    fn has(&self, tag: u64, now: Ticks) -> bool {
        // `put` stores the tag, then the end with Release. This loads the end with Acquire, then
        // the tag again: a reader that sees the end of a new flow also sees its tag.
        self.tag.load(Relaxed) == tag && self.is_alive(now) && self.tag.load(Relaxed) == tag
    }

    #[inline]
    fn is_alive(&self, now: Ticks) -> bool {
        self.end.load(Acquire) > (now << 1 | 1)
    }

    fn put(&self, tag: u64, end: u64) {
        // Release, so that a search that sees this tag also sees the move of the flow that was here
        // (see `Array::contains`).
        self.tag.store(tag, Release);
        self.end.store(end, Release);
    }

    /// Stores that another packet of `flow`, which is here, arrives at `now`.
    #[inline]
    pub(super) fn renew(&self, flow: Flow, now: Ticks) {
        // Release, or other CPUs may see this end with an older tag (see `has`).
        self.end.store(flow.end(now) | 1, Release);
    }

    fn copy(&self, from: &Self) {
        self.put(from.tag.load(Relaxed), from.end.load(Relaxed));
    }

    /// Release, so that a CPU that sees this also sees all stores before.
    fn clear(&self) {
        self.end.store(0, Release);
    }

    /// The order in which flows are replaced: expired ones, then those with one packet, then the
    /// others, of which that one is first which expires first.
    fn rank(&self, now: Ticks) -> (bool, u64) {
        let end = self.end.load(Relaxed);
        (self.is_alive(now) && end & 1 != 0, end)
    }
}

/// The flows of one set, in one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Set([Way; WAYS]);

impl Set {
    #[inline]
    fn find(&self, tag: u64, now: Ticks) -> Option<&Way> {
        self.0.iter().find(|way| way.has(tag, now))
    }

    /// The number of places without a living flow.
    fn room(&self, now: Ticks) -> usize {
        self.0.iter().filter(|way| !way.is_alive(now)).count()
    }
}

/// The recent flows of one kind.
pub(super) struct Array<M: Memory> {
    seed: Seed,
    /// Other CPUs read these too.
    pub(super) sets: M::Slots<Set>,
    /// The [`Shape`], packed.
    shape: AtomicU64,
    /// The largest number of sets.
    limit: u32,
    /// It changes after flows were copied to other sets, and before they are removed from the old
    /// ones. So another CPU can tell that it may have missed a flow.
    moves: AtomicU32,
    pub(super) cold: Cold,
}

/// Fields that change when a flow is replaced. They have a cache line that other CPUs do not read
/// in the packet path.
#[repr(align(64))]
pub(super) struct Cold {
    backoff: Backoff,
    pub(super) forgotten: AtomicU64,
    pub(super) unremembered: AtomicU64,
}

impl<M: Memory> Array<M> {
    pub(super) fn new(flows: &Flows, memory: &M) -> Result<Self, M::Error> {
        Ok(Self {
            seed: flows.seed,
            sets: memory.slots(flows.limit)?,
            shape: AtomicU64::new(Shape::new(flows.limit.min(INITIAL_SETS)).pack()),
            limit: flows.limit,
            moves: AtomicU32::new(0),
            cold: Cold {
                backoff: Backoff::new(memory.backoff()),
                forgotten: AtomicU64::new(0),
                unremembered: AtomicU64::new(0),
            },
        })
    }

    #[inline]
    fn shape(&self) -> Shape {
        Shape::unpack(self.shape.load(Acquire))
    }

    /// The place of a living flow in the set that `choice` selects.
    #[inline]
    pub(super) fn find_in_set(&self, choice: u32, tag: u64, now: Ticks) -> Option<&Way> {
        self.sets.get(self.shape().set(choice))?.find(tag, now)
    }

    /// As [`RecentFlows::contains`](super::recent_flows::RecentFlows::contains).
    pub(super) fn contains(&self, flow: Flow, now: Ticks) -> bool {
        /// A search misses a flow only if the owner moves just that flow meanwhile.
        const ATTEMPTS: u32 = 4;
        for _ in 0..ATTEMPTS {
            let before = self.moves.load(Acquire);
            let mut choices = [flow.first, self.second(flow)].into_iter();
            if choices.any(|choice| self.find_in_set(choice, flow.tag, now).is_some()) {
                return true;
            }
            // If the search has seen that a flow was removed from a set, or that another flow is in
            // its place, this sees that `moves` has changed. The fence pairs with the Release
            // stores in `Way::clear` and `Way::put`. Without it, the load below can be reordered
            // before those of tags that differ, which are Relaxed.
            fence(Acquire);
            if self.moves.load(Relaxed) == before {
                return false;
            }
        }
        false
    }

    /// Stores a new flow. Returns false if there is no memory for it.
    #[cold]
    #[inline(never)]
    pub(super) fn insert(&self, flow: Flow, now: Ticks) -> bool {
        let Some(first) = self.make(self.shape().set(flow.first)) else {
            add_to(&self.cold.unremembered, 1);
            return false;
        };
        match first.0.iter().find(|way| !way.is_alive(now)) {
            Some(way) => way.put(flow.tag, flow.end(now)),
            None => self.insert_where_room_is_scarce(flow, now),
        }
        true
    }

    #[cold]
    #[inline(never)]
    fn insert_where_room_is_scarce(&self, flow: Flow, now: Ticks) {
        let mut sets = self.choices(flow);
        let room = |sets: [Option<&Set>; 2]| {
            let sets = sets.into_iter().flatten();
            sets.map(|set| set.room(now)).fold(0, usize::saturating_add)
        };
        let is_dense = || self.is_dense(self.shape().set(flow.first), now);
        if room(sets) <= SCARCE && is_dense() && self.grow() {
            sets = self.choices(flow);
        }
        if room(sets) == 0 && !self.make_room(sets, now) && self.grow() {
            sets = self.choices(flow);
        }
        // The set with more room, or both if they are full.
        let most = sets.into_iter().flatten().map(|set| set.room(now)).max();
        let candidates = sets
            .into_iter()
            .flatten()
            .filter(|set| Some(set.room(now)) == most);
        let ways = candidates.flat_map(|set| &set.0);
        let Some(way) = ways.min_by_key(|way| way.rank(now)) else {
            return;
        };
        if way.is_alive(now) {
            add_to(&self.cold.forgotten, 1);
        }
        way.put(flow.tag, flow.end(now));
    }

    /// Estimates whether at least three eighths of all places have living flows, by the sets after
    /// set `number`. Without it, an array would grow for ever, because at any load two sets are
    /// full once in a while.
    fn is_dense(&self, number: u32, now: Ticks) -> bool {
        const SAMPLE: u32 = 8;
        let used = self.shape().used;
        let sample = (1..=SAMPLE).filter_map(|n| {
            let other = number.wrapping_add(n);
            self.sets.get(other.checked_sub(used).unwrap_or(other))
        });
        let room = sample.map(|set| set.room(now));
        room.fold(0, usize::saturating_add) <= SAMPLE as usize * WAYS / 8 * 5
    }

    /// Moves a flow from one of two full sets to the other set in which it can be. Returns `false`
    /// if there is none with room.
    fn make_room(&self, sets: [Option<&Set>; 2], now: Ticks) -> bool {
        let shape = self.shape();
        for (set, way) in sets
            .into_iter()
            .flatten()
            .flat_map(|set| set.0.iter().map(move |way| (set, way)))
        {
            let others = self.seed.resume(way.tag.load(Relaxed)).choices();
            let others = others.map(|choice| self.sets.get(shape.set(choice)));
            let mut others = others
                .into_iter()
                .flatten()
                .filter(|other| !ptr::eq(*other, set));
            let place = others.find_map(|other| other.0.iter().find(|way| !way.is_alive(now)));
            if let Some(place) = place {
                place.copy(way);
                self.publish_moves();
                way.clear();
                return true;
            }
        }
        false
    }

    /// Must be called after flows were copied, and before they are removed from their old places.
    fn publish_moves(&self) {
        let moves = self.moves.load(Relaxed);
        self.moves.store(moves.wrapping_add(1), Release);
    }

    /// The two sets for a flow. `None` for a set that has no memory.
    fn choices(&self, flow: Flow) -> [Option<&Set>; 2] {
        let shape = self.shape();
        [flow.first, self.second(flow)].map(|choice| self.make(shape.set(choice)))
    }

    /// What selects the second set of a flow.
    pub(super) fn second(&self, flow: Flow) -> u32 {
        self.seed.resume(flow.tag).second_index()
    }

    /// Set `number`, allocated now if need be. `None` if there is no memory.
    fn make(&self, number: u32) -> Option<&Set> {
        let make = || self.cold.backoff.attempt(|| self.sets.make(number));
        self.sets.get(number).or_else(make)
    }

    /// Adds sets. Returns whether there are more than before.
    fn grow(&self) -> bool {
        let before = self.shape().used;
        for _ in 0..GROWTH {
            let new = self.shape().used;
            if new >= self.limit || self.make(new).is_none() {
                break;
            }
            self.split(new);
        }
        self.shape().used > before
    }

    /// Uses set `new`, which follows those that are used, and moves to it the flows that belong
    /// there.
    fn split(&self, new: u32) {
        let old = self.shape().set(new);
        let (Some(from), Some(to)) = (self.sets.get(old), self.sets.get(new)) else {
            return;
        };
        let shape = Shape::new(new.wrapping_add(1));
        let moves = |way: &Way| {
            let choices = self.seed.resume(way.tag.load(Relaxed)).choices();
            choices.into_iter().all(|choice| shape.set(choice) != old)
        };
        let both = || from.0.iter().zip(&to.0).filter(|(way, _)| moves(way));
        both().for_each(|(way, place)| place.copy(way));
        self.shape.store(shape.pack(), Release);
        self.publish_moves();
        both().for_each(|(way, _)| way.clear());
    }
}

/// The number of sets that an array uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// At least one.
    used: u32,
    /// The bits of a choice that distinguish this number of sets.
    mask: u32,
}

impl Shape {
    fn new(used: u32) -> Self {
        let mask = u32::MAX
            .checked_shr(used.saturating_sub(1).leading_zeros())
            .unwrap_or(0);
        Self { used, mask }
    }

    fn pack(self) -> u64 {
        u64::from(self.mask) << 32 | u64::from(self.used)
    }

    #[inline]
    fn unpack(packed: u64) -> Self {
        Self {
            used: packed as u32,
            mask: (packed >> 32) as u32,
        }
    }

    /// The number of the set that `choice` selects.
    ///
    /// Let 2^n < `used` <= 2^(n+1). Sets that are split already, and the sets that they were split
    /// into, are selected by n+1 bits. The others are selected by n bits.
    #[inline]
    fn set(self, choice: u32) -> u32 {
        let wide = choice & self.mask;
        if wide < self.used {
            wide
        } else {
            wide & (self.mask >> 1)
        }
    }
}

#[cfg(all(test, loom))]
#[path = "../tests/interleavings/flow_array.rs"]
mod interleavings;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_selects_a_set_that_is_used() {
        for used in [1, 2, 3, 4, 5, 63, 64, 65, u32::MAX] {
            let shape = Shape::new(used);
            assert_eq!(Shape::unpack(shape.pack()), shape);
            for choice in (0..1000).chain([u32::MAX, u32::MAX / 2, used - 1]) {
                assert!(shape.set(choice) < used);
            }
        }
    }
}
