// SPDX-License-Identifier: GPL-2.0

//! The text of one file: a header, and the rows of all CPUs summed up by key.

use super::{
    counters::Totals,
    delivery::{
        Line,
        Lines,
        ReadError,
        Step, //
    },
    key::{
        Key,
        Owner, //
    },
    platform::Platform,
    report,
    rows::{
        self,
        Entry,
        Place,
        RowEntries, //
    },
    slots::Memory,
    sort::{
        self,
        PAUSE, //
    },
    stats::RowStats,
    table::Table,
};
use core::fmt::Write;

/// The tables that the CPUs keep for one file.
pub trait TablePerCpu<K, const PAIRS: usize> {
    /// The memory of the tables.
    type Memory: Memory;

    /// The number of CPUs. CPU numbers are below it.
    fn cpus(&self) -> u32;

    /// The table of a CPU. `None` if it has none.
    fn table(&self, cpu: u32) -> Option<&Table<K, PAIRS, Self::Memory>>;
}

/// The text of one file. It is made line by line while it is read.
pub struct TableText<T, K, const PAIRS: usize, P: Platform> {
    tables: T,
    header: &'static str,
    /// The delivered counts. `None` if reading does not clear the file.
    ///
    /// The counters of the CPUs are never reset, because only their own CPU may write them.
    delivered: Option<P::Lock<Table<K, PAIRS, P::Memory>>>,
}

impl<T, K, const PAIRS: usize, P> TableText<T, K, PAIRS, P>
where
    T: TablePerCpu<K, PAIRS>,
    K: Key,
    P: Platform,
{
    /// The text of `tables`. If there is an empty table `delivered`, reading clears the text.
    pub fn new(
        tables: T,
        header: &'static str,
        delivered: Option<P::Lock<Table<K, PAIRS, P::Memory>>>,
    ) -> Self {
        Self {
            tables,
            header,
            delivered,
        }
    }

    /// The statistics of the tables of all CPUs. The memory includes that of the delivered counts.
    pub fn stats(&self) -> RowStats {
        let mut stats = RowStats::default();
        self.tables().for_each(|(_, table)| stats.add(table));
        if let Some(delivered) = &self.delivered {
            stats.memory += P::with(delivered, Table::memory);
        }
        stats
    }

    /// The tables with the numbers of their CPUs.
    fn tables(&self) -> impl Iterator<Item = (u32, &Table<K, PAIRS, T::Memory>)> {
        (0..self.tables.cpus()).filter_map(|cpu| Some((cpu, self.tables.table(cpu)?)))
    }

    fn totals(&self, row: Option<RowEntries<'_, K>>) -> Totals<PAIRS> {
        match row {
            Some(row) => row.totals(|cpu| self.tables.table(cpu)),
            None => {
                let mut sum = Totals::default();
                self.tables()
                    .for_each(|(_, table)| sum.merge(table.others()));
                sum
            }
        }
    }

    /// Sums up a row. If reading clears the file, the result is the part that was not delivered
    /// yet, and it is delivered from now on.
    fn take(
        &self,
        owner: Owner<K>,
        row: Option<RowEntries<'_, K>>,
    ) -> Result<Totals<PAIRS>, P::Error> {
        match &self.delivered {
            Some(delivered) => P::with(delivered, |given| {
                rows::take(given, owner, self.totals(row))
            })
            .ok_or(ReadError::NoMemory.into()),
            None => Ok(self.totals(row)),
        }
    }
}

impl<T, K, const PAIRS: usize, P> Lines for TableText<T, K, PAIRS, P>
where
    T: TablePerCpu<K, PAIRS>,
    K: Key,
    P: Platform,
{
    type Snapshot = P::List<Entry<K>>;
    type Claim = (Owner<K>, Totals<PAIRS>);
    type Error = P::Error;

    fn snapshot(&self) -> Result<Self::Snapshot, P::Error> {
        let count: usize = self.tables().map(|(_, table)| table.rows() as usize).sum();
        // CPUs can add rows before they are listed. With some room to spare the list rarely has to
        // move.
        let mut entries = P::list(count + count / 64)?;
        for (cpu, table) in self.tables() {
            // A table of direct rows is searched as a whole, even if it has no row.
            P::pause()?;
            for (n, entry) in (1..).zip(rows::entries(cpu, table)) {
                if n % PAUSE == 0 {
                    P::pause()?;
                }
                P::push(&mut entries, entry)?;
            }
        }
        sort::sort::<P, _>(&mut entries)?;
        Ok(entries)
    }

    fn line(
        &self,
        entries: &Self::Snapshot,
        position: usize,
        out: &mut Line,
    ) -> Result<Option<Step<Self::Claim>>, P::Error> {
        P::pause()?;
        let row = match Place::at(position, entries) {
            Place::Header => {
                out.write_str(self.header).map_err(ReadError::from)?;
                return Ok(Some(Step {
                    next: position + 1,
                    claim: None,
                }));
            }
            Place::Row(row) => row,
            Place::End => return Ok(None),
        };
        let (owner, count) = rows::owner_and_count(row);
        let totals = self.take(owner, row)?;
        if let Err(error) = report::write_row(out, owner, &totals) {
            self.give_back((owner, totals));
            return Err(ReadError::from(error).into());
        }
        let claim = (self.delivered.is_some() && !totals.is_zero()).then_some((owner, totals));
        Ok(Some(Step {
            next: position + count,
            claim,
        }))
    }

    fn give_back(&self, (owner, totals): Self::Claim) {
        if let Some(delivered) = &self.delivered {
            P::with(delivered, |given| {
                if let Some(counters) = given.counters(owner) {
                    counters.subtract_all(&totals);
                }
            });
        }
    }
}
