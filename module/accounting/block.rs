// SPDX-License-Identifier: GPL-2.0

//! A block of rows that readers see as they were at one moment.
//!
//! When a row is recycled, its counts stay in its block, in a counter of their own. So a block has
//! all that was ever counted in its rows.

use super::{
    counters::{Counters, Totals},
    version::Version,
};
use crate::atomic::size;

/// The number of rows in a block.
pub const ROWS: u32 = size(64, 2);

/// What a block has besides its rows.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Block<const PAIRS: usize> {
    version: Version,
    recycled: Counters<PAIRS>,
}

impl<const PAIRS: usize> Block<PAIRS> {
    /// Adds the counts of a row to those of recycled rows, and calls `reuse`, which gives the row
    /// to another key. Readers see both or none of it.
    ///
    /// Must not be called by two contexts at the same time.
    pub fn recycle(&self, old: &Counters<PAIRS>, reuse: impl FnOnce()) {
        self.version.change(|| {
            self.recycled.add_all(&old.read());
            reuse();
        });
    }

    /// Calls `read`, which reads rows of the block, and returns the counts of recycled rows at the
    /// same moment. `None` if a row was recycled meanwhile. Any context may call this.
    ///
    /// # Errors
    ///
    /// Returns the error of `read`.
    pub fn read<E>(
        &self,
        read: impl FnOnce() -> Result<(), E>,
    ) -> Result<Option<Totals<PAIRS>>, E> {
        let Some(reading) = self.version.begin() else {
            return Ok(None);
        };
        read()?;
        let recycled = self.recycled.read();
        Ok(self.version.is_current(reading).then_some(recycled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_whole_cache_lines() {
        assert_eq!([size_of::<Block<3>>(), size_of::<Block<4>>()], [64, 128]);
    }
}
