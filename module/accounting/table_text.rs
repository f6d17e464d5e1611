// SPDX-License-Identifier: GPL-2.0

//! The text of one file: a header, and the rows of all CPUs summed up by key.

use super::{
    counters::Totals,
    delivery::{
        Line,
        Lines,
        NextLine,
        ReadError,
        Step, //
    },
    key::{
        Key,
        Owner, //
    },
    ledger::Ledger,
    listing::{
        ListedRow,
        Listing, //
    },
    platform::Platform,
    report::Form,
    slots::Memory,
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

    /// Calls `f`. What it allocates is paid by the owner of the tables.
    fn charge<R>(&self, f: impl FnOnce() -> R) -> R;
}

/// The text of one file. It is made line by line while it is read.
pub struct TableText<T, K, const PAIRS: usize, P: Platform> {
    tables: T,
    form: Form,
    /// `None` if reading does not clear the file.
    ledger: Option<P::Lock<Ledger<P, K, PAIRS>>>,
}

/// A listing, and the counts of the row `*` at the same time.
type Rows<P, K, R, const PAIRS: usize> = (Listing<P, K, R>, Totals<PAIRS>);

/// The rows of a file that reading does not clear, as they were when a reader began.
pub struct Snapshot<P: Platform, K, const PAIRS: usize> {
    rows: Listing<P, K, Totals<PAIRS>>,
    others: Totals<PAIRS>,
}

/// The position of a line.
#[derive(Clone, Copy, Debug, Default)]
pub enum Position<K> {
    /// The header.
    #[default]
    Header,
    /// The first row.
    First,
    /// The first row after that of a key, or the row `*` if there is none.
    After(K),
    /// After the row `*`.
    End,
}

impl<T, K, const PAIRS: usize, P> TableText<T, K, PAIRS, P>
where
    T: TablePerCpu<K, PAIRS>,
    K: Key,
    P: Platform,
{
    /// The text of `tables`. If there is an empty ledger, reading clears the text.
    pub fn new(tables: T, form: Form, ledger: Option<P::Lock<Ledger<P, K, PAIRS>>>) -> Self {
        Self {
            tables,
            form,
            ledger,
        }
    }

    /// The statistics of the tables of all CPUs. The memory includes that of the ledger.
    pub fn stats(&self) -> RowStats {
        let mut stats = RowStats::default();
        self.tables().for_each(|(_, table)| stats.add(table));
        if let Some(ledger) = &self.ledger {
            stats.memory += P::with(ledger, |ledger| ledger.memory());
        }
        stats
    }

    /// The tables with the numbers of their CPUs.
    fn tables(&self) -> impl Iterator<Item = (u32, &Table<K, PAIRS, T::Memory>)> {
        (0..self.tables.cpus()).filter_map(|cpu| Some((cpu, self.tables.table(cpu)?)))
    }

    /// All rows, and the counts of the row `*`.
    fn list<R: ListedRow<PAIRS>>(&self) -> Result<Rows<P, K, R, PAIRS>, P::Error> {
        let count: usize = self.tables().map(|(_, table)| table.rows() as usize).sum();
        // CPUs can add rows before they are listed. With some room to spare the list rarely has to
        // move.
        let mut rows = Listing::<P, K, R>::new(count + count / 64)?;
        let mut others = Totals::default();
        for (cpu, table) in self.tables() {
            P::pause()?;
            others.merge(table.read(&mut rows.of_cpu(cpu))?);
        }
        rows.sort()?;
        Ok((rows, others))
    }

    /// The row at a position. If reading clears the file, the result is the part that was not
    /// delivered yet, and it is delivered from now on.
    fn take(
        &self,
        snapshot: &Option<Snapshot<P, K, PAIRS>>,
        last: Option<K>,
    ) -> (Owner<K>, Totals<PAIRS>) {
        if let Some(ledger) = &self.ledger {
            return P::with(ledger, |ledger| ledger.take_after(last));
        }
        let Some(Snapshot { rows, others }) = snapshot else {
            return (Owner::Others, Totals::default());
        };
        match rows.sum_after(last) {
            Some((key, sum)) => (Owner::One(key), sum),
            None => (Owner::Others, *others),
        }
    }
}

impl<T, K, const PAIRS: usize, P> Lines for TableText<T, K, PAIRS, P>
where
    T: TablePerCpu<K, PAIRS>,
    K: Key,
    P: Platform,
{
    /// `None` if reading clears the file: all readers use the ledger.
    type Snapshot = Option<Snapshot<P, K, PAIRS>>;
    type Position = Position<K>;
    type Claim = (Owner<K>, Totals<PAIRS>);
    type Error = P::Error;

    fn snapshot(&self) -> Result<Self::Snapshot, P::Error> {
        let Some(ledger) = &self.ledger else {
            let (rows, others) = self.list()?;
            return Ok(Some(Snapshot { rows, others }));
        };
        // The list is made while the ledger is locked. So a list is newer than the one before.
        P::with(ledger, |ledger| {
            let (rows, others) = self.tables.charge(|| self.list())?;
            ledger.replace(rows, others);
            Ok(None)
        })
    }

    fn line(
        &self,
        snapshot: &Self::Snapshot,
        position: Position<K>,
        out: &mut Line,
    ) -> Result<NextLine<Self>, P::Error> {
        P::pause()?;
        let last = match position {
            Position::Header => {
                out.write_str(self.form.header).map_err(ReadError::from)?;
                return Ok(Some(Step {
                    next: Position::First,
                    claim: None,
                }));
            }
            Position::First => None,
            Position::After(last) => Some(last),
            Position::End => return Ok(None),
        };
        let (owner, totals) = self.take(snapshot, last);
        if let Err(error) = self.form.write_row(out, owner, &totals) {
            self.give_back((owner, totals));
            return Err(ReadError::from(error).into());
        }
        let next = match owner {
            Owner::One(key) => Position::After(key),
            Owner::Others => Position::End,
        };
        let claim = (self.ledger.is_some() && !totals.is_zero()).then_some((owner, totals));
        Ok(Some(Step { next, claim }))
    }

    fn give_back(&self, (owner, totals): Self::Claim) {
        if let Some(ledger) = &self.ledger {
            P::with(ledger, |ledger| ledger.give_back(owner, totals));
        }
    }
}
