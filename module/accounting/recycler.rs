// SPDX-License-Identifier: GPL-2.0

//! Finds the row that a new key replaces when all rows are in use.
//!
//! The recycler goes round the rows with two hands, as a clock algorithm does. The first looks at
//! rows on probation, the second at established rows. A search looks at a bounded number of rows.
//! If it finds none, there is no other search in the same tick of the clock.
//!
//! A key whose row was recycled not long ago is not one of a scan. Its new row is established at
//! once. Otherwise keys that come in turns could recycle each other's rows for ever. S3-FIFO calls
//! the list of such keys the ghost queue (<https://doi.org/10.1145/3600006.3613147>).

use super::{
    age::{Age, Look},
    hash::Hash,
    slots::{Backoff, Memory, Slots},
};
use crate::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// The largest number of ages that a hand passes in a search.
const STEPS: u32 = 1024;
/// The largest number of rows that a hand fetches from memory in a search.
const LOOKS: u32 = 128;

/// The ages of the rows of one CPU. Only this CPU uses them, except for [`Age::born`].
pub struct Recycler<M: Memory> {
    /// See [`Age::to_word`].
    ages: M::Slots<AtomicU64>,
    /// The number of rows on probation.
    probation: AtomicU32,
    /// The next row for each hand.
    probation_hand: AtomicU32,
    established_hand: AtomicU32,
    /// The fingerprints of keys whose rows were recycled. A part of the hash selects the place.
    ghosts: M::Slots<AtomicU32>,
    /// The number of places in `ghosts` minus one.
    ghosts_mask: u32,
    /// Skips allocations of ghosts after one has failed.
    backoff: Backoff,
    /// The tick of the last search that found no row.
    failed: AtomicU64,
}

impl<M: Memory> Recycler<M> {
    /// A recycler for at most `rows` rows.
    ///
    /// # Errors
    ///
    /// Returns the error of `memory` if it cannot provide the arrays.
    pub fn new(rows: u32, memory: &M) -> Result<Self, M::Error> {
        let ghosts = rows.div_ceil(2).next_power_of_two();
        Ok(Self {
            ages: memory.slots(rows)?,
            probation: AtomicU32::new(0),
            probation_hand: AtomicU32::new(0),
            established_hand: AtomicU32::new(0),
            ghosts: memory.slots(ghosts)?,
            ghosts_mask: ghosts.wrapping_sub(1),
            backoff: Backoff::new(memory.backoff()),
            failed: AtomicU64::new(u64::MAX),
        })
    }

    /// Allocates the age of a row. `None` if there is no memory.
    pub fn make(&self, row: u32) -> Option<()> {
        self.ages.make(row).map(|_| ())
    }

    /// Sets the age of a new row. The row before must not be counted as on probation any more.
    pub fn set_new(&self, row: u32, age: Age) {
        self.set(row, age);
        if age.is_on_probation() {
            self.change_probation(1);
        }
    }

    /// The number of the row among all rows that were made. Any CPU may call this.
    pub fn born(&self, row: u32) -> u32 {
        self.age(row).map_or(0, |age| age.born)
    }

    /// An idle row among the first `rows`, which is no longer counted as on probation. `None` if
    /// none was found. `sum` must return the sum of the counters of a row. `now` is the time in
    /// ticks, and `period` the period of `now`.
    pub fn take_idle(
        &self,
        rows: u32,
        now: u64,
        period: u16,
        sum: impl Fn(u32) -> u64,
    ) -> Option<u32> {
        if self.failed.load(Relaxed) == now {
            return None;
        }
        let found = self.find_idle(rows, period, &sum);
        match found {
            Some(_) => self.change_probation(-1),
            None => self.failed.store(now, Relaxed),
        }
        found
    }

    /// An idle row, which is on probation.
    fn find_idle(&self, rows: u32, period: u16, sum: impl Fn(u32) -> u64) -> Option<u32> {
        let found = self.search(&self.probation_hand, rows, |row, age| {
            if !age.is_on_probation() {
                return Search::Pass;
            }
            match age.look(sum(row), period) {
                Look::Idle => return Search::Found,
                Look::InUse(age) => {
                    self.set(row, age);
                    self.change_probation(-1);
                }
            }
            Search::Looked
        });
        // An eighth of the rows is for new keys.
        if self.probation.load(Relaxed) > rows / 8 {
            return found;
        }
        let established = self.search(&self.established_hand, rows, |row, age| {
            if age.is_on_probation() {
                return Search::Pass;
            }
            match age.look_at_established(sum(row), period) {
                Look::Idle => {
                    self.set_new(row, age.on_probation());
                    return Search::Found;
                }
                Look::InUse(age) => self.set(row, age),
            }
            Search::Looked
        });
        found.or(established)
    }

    /// Calls `look` with the rows from `hand` on, until it finds one, or has looked at enough.
    fn search(
        &self,
        hand: &AtomicU32,
        rows: u32,
        look: impl Fn(u32, Age) -> Search,
    ) -> Option<u32> {
        let (mut row, mut looks) = (hand.load(Relaxed), 0u32);
        let mut found = None;
        for _ in 0..STEPS.min(rows) {
            let this = if row < rows { row } else { 0 };
            row = this.wrapping_add(1);
            match self.age(this).map_or(Search::Pass, |age| look(this, age)) {
                Search::Pass => {}
                Search::Looked if looks < LOOKS => looks = looks.wrapping_add(1),
                Search::Looked => break,
                Search::Found => {
                    found = Some(this);
                    break;
                }
            }
        }
        hand.store(row, Relaxed);
        found
    }

    /// Remembers that the row of the key with this hash was recycled. If there is no memory for it,
    /// it is not remembered.
    pub fn add_ghost(&self, key: Hash) {
        let ghost = Ghost::of(key);
        let place = ghost.place & self.ghosts_mask;
        let make = || self.backoff.attempt(|| self.ghosts.make(place));
        if let Some(place) = self.ghosts.get(place).or_else(make) {
            place.store(ghost.fingerprint, Relaxed);
        }
    }

    /// Forgets that the row of the key was recycled. Returns whether it was remembered.
    pub fn remove_ghost(&self, key: Hash) -> bool {
        let ghost = Ghost::of(key);
        let place = self.ghosts.get(ghost.place & self.ghosts_mask);
        let Some(place) = place.filter(|place| place.load(Relaxed) == ghost.fingerprint) else {
            return false;
        };
        place.store(0, Relaxed);
        true
    }

    /// The bytes of memory that the ages take.
    pub fn memory(&self) -> usize {
        self.ages.memory() + self.ghosts.memory()
    }

    fn age(&self, row: u32) -> Option<Age> {
        Some(Age::from_word(self.ages.get(row)?.load(Relaxed)))
    }

    fn set(&self, row: u32, age: Age) {
        if let Some(word) = self.ages.get(row) {
            word.store(age.to_word(), Relaxed);
        }
    }

    fn change_probation(&self, difference: i32) {
        let count = self.probation.load(Relaxed);
        self.probation
            .store(count.wrapping_add_signed(difference), Relaxed);
    }
}

/// What a hand does next.
enum Search {
    /// It goes on to the next row.
    Pass,
    /// It has fetched the row. It goes on if it has not fetched many.
    Looked,
    /// The row is idle.
    Found,
}

/// A key whose row was recycled.
struct Ghost {
    place: u32,
    /// Not 0, which marks a free place.
    fingerprint: u32,
}

impl Ghost {
    fn of(key: Hash) -> Self {
        let fingerprint = key.second_index();
        Self {
            place: key.index(),
            fingerprint: fingerprint | u32::from(fingerprint == 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{accounting::hash::Seed, host::Heap};

    #[test]
    fn ghosts_are_forgotten_when_they_come_back_or_are_replaced() {
        let Ok(recycler) = Recycler::<Heap>::new(128, &Heap::ENDLESS);
        let key = |n| Seed::new(7).hash().word(n);
        assert!(!recycler.remove_ghost(key(0)));
        recycler.add_ghost(key(0));
        assert!(!recycler.remove_ghost(key(1)));
        assert!(recycler.remove_ghost(key(0)) && !recycler.remove_ghost(key(0)));
        (0..10_000).for_each(|n| recycler.add_ghost(key(n)));
        let left = (0..10_000).filter(|n| recycler.remove_ghost(key(*n)));
        assert_eq!(left.count(), 64);
    }
}
