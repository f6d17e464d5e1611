// SPDX-License-Identifier: GPL-2.0

//! What was delivered to readers, for a file that is cleared by reading.
//!
//! The counters of the CPUs are never reset, because only their own CPU may write them. Instead, a
//! ledger has a [`Listing`] of all rows with what was delivered of each. All readers of a file use
//! the same ledger. A reader that starts at the beginning of the file replaces the listing by a new
//! one.
//!
//! When a row was recycled, its counts are in the row `*`. So what was delivered of it counts as
//! delivered of the row `*` from then on. The number [`Counted::born`] tells whether a row is still
//! the same one.

use super::{
    counters::Totals,
    key::{Key, Owner},
    listing::{self, ListedRow, Listing},
    platform::Platform,
    row::Counted,
    sort::PAUSE,
};

/// A row of one CPU, and what was delivered of it.
#[derive(Clone, Copy, Debug)]
pub struct Delivered<const PAIRS: usize> {
    cpu: u32,
    born: u32,
    totals: Totals<PAIRS>,
    delivered: Totals<PAIRS>,
}

impl<const PAIRS: usize> ListedRow<PAIRS> for Delivered<PAIRS> {
    fn new<K>(cpu: u32, row: Counted<K, PAIRS>) -> Self {
        Self {
            cpu,
            born: row.born,
            totals: row.totals,
            delivered: Totals::default(),
        }
    }
}

impl<const PAIRS: usize> Delivered<PAIRS> {
    /// Returns whether this is the same row as `other`, at another time.
    fn is_same(&self, other: &Self) -> bool {
        (self.cpu, self.born) == (other.cpu, other.born)
    }
}

/// The listing of a [`Ledger`].
pub type LedgerListing<P, K, const PAIRS: usize> = Listing<P, K, Delivered<PAIRS>>;

/// The bytes that a ledger takes for a row.
pub const fn bytes_per_row<K, const PAIRS: usize>() -> usize {
    listing::bytes_per_row::<K, Delivered<PAIRS>>()
}

/// What was delivered to readers.
pub struct Ledger<P: Platform, K, const PAIRS: usize> {
    listing: LedgerListing<P, K, PAIRS>,
    /// The counts of the row `*`.
    others: Totals<PAIRS>,
    /// What was delivered of the row `*`.
    delivered_others: Totals<PAIRS>,
}

/// The kernel's mutex lends only such values mutably. None of the fields is ever pinned.
impl<P: Platform, K, const PAIRS: usize> Unpin for Ledger<P, K, PAIRS> {}

impl<P: Platform, K: Key, const PAIRS: usize> Ledger<P, K, PAIRS> {
    /// A ledger without rows.
    ///
    /// # Errors
    ///
    /// Fails if there is no memory.
    pub fn new() -> Result<Self, P::Error> {
        Ok(Self {
            listing: LedgerListing::<P, K, PAIRS>::new(0)?,
            others: Totals::default(),
            delivered_others: Totals::default(),
        })
    }

    /// Replaces the listing. `listing` must be newer than the one before, and `others` must have
    /// the counts of the row `*` at the same time.
    pub fn replace(&mut self, mut listing: LedgerListing<P, K, PAIRS>, others: Totals<PAIRS>) {
        let mut next = 0;
        for (n, (key, old)) in (1..).zip(self.listing.iter()) {
            if n % PAUSE == 0 {
                // A reader that has been killed must complete this nevertheless.
                let _ = P::pause();
            }
            let Some(old) = self.listing.row(old) else {
                continue;
            };
            while listing.entry(next).is_some_and(|(new, _)| new < key) {
                next += 1;
            }
            let same = (next..)
                .map_while(|position| listing.entry(position).filter(|(new, _)| *new == key))
                .find(|(_, row)| listing.row(*row).is_some_and(|new| new.is_same(old)));
            match same.and_then(|(_, row)| listing.row_mut(row)) {
                Some(new) => new.delivered = old.delivered,
                // The row was recycled.
                None => self.delivered_others.merge(old.delivered),
            }
        }
        self.listing = listing;
        self.others = others;
    }

    /// The first row after that of `last`, and what was not delivered of it yet. It is delivered
    /// from now on. The first row of all if `last` is `None`. The row `*` comes after all others.
    pub fn take_after(&mut self, last: Option<K>) -> (Owner<K>, Totals<PAIRS>) {
        let Some((key, range)) = self.listing.after(last) else {
            let left = self.others.without(self.delivered_others);
            self.delivered_others = self.others;
            return (Owner::Others, left);
        };
        let mut sum = Totals::default();
        for position in range {
            if let Some(row) = self.row_at(position) {
                sum.merge(row.totals.without(row.delivered));
                row.delivered = row.totals;
            }
        }
        (Owner::One(key), sum)
    }

    /// Takes back what [`take_after`](Self::take_after) has returned. What was taken of rows that
    /// were recycled meanwhile is left to deliver of the row `*`, which has their counts now.
    pub fn give_back(&mut self, owner: Owner<K>, mut totals: Totals<PAIRS>) {
        let positions = match owner {
            Owner::One(key) => self.listing.of_key(key),
            Owner::Others => 0..0,
        };
        for position in positions {
            if let Some(row) = self.row_at(position) {
                row.delivered.give_back(&mut totals);
            }
        }
        self.delivered_others = self.delivered_others.without(totals);
    }

    /// The bytes of memory that the rows take.
    pub fn memory(&self) -> usize {
        self.listing.memory()
    }

    fn row_at(&mut self, position: usize) -> Option<&mut Delivered<PAIRS>> {
        let (_, row) = self.listing.entry(position)?;
        self.listing.row_mut(row)
    }
}
