// SPDX-License-Identifier: GPL-2.0

//! The rows of one file, summed up over all CPUs when they are read, and cleared if that is wanted. The same as
//! `files.rs` of the module, without the kernel.

use core::{cell::RefCell, convert::Infallible, fmt::Write};
use xt_traffic_accounting::{
    accounting::{
        counters::Totals,
        delivery::{Line, Lines, Reader, Sink, Step, Trouble},
        hash::Seed,
        key::{Key, Owner},
        report::write_row,
        rows::{entries, owner_and_span, take, Entry, Place, Run},
        slots::Memory,
        sort::merge_sort,
        table::{Size, Table},
    },
    host::Heap,
};

/// The rows of one file.
pub struct Rows<'a, K, const PAIRS: usize, M: Memory> {
    tables: Vec<&'a Table<K, PAIRS, M>>,
    header: &'static str,
    /// What readers have been given, if that is to be cleared.
    delivered: Option<RefCell<Table<K, PAIRS, Heap>>>,
}

impl<'a, K: Key, const PAIRS: usize, M: Memory> Rows<'a, K, PAIRS, M> {
    /// Those of the tables of all CPUs.
    pub fn new(tables: Vec<&'a Table<K, PAIRS, M>>, header: &'static str) -> Self {
        Self {
            tables,
            header,
            delivered: None,
        }
    }

    /// The same rows, cleared by reading.
    pub fn cleared(self) -> Self {
        let Ok(table) = Table::new(Seed::new(0xc1ea), Size::hashed(1 << 10, 1), &Heap::ENDLESS);
        Self {
            delivered: Some(RefCell::new(table)),
            ..self
        }
    }

    /// The text, as one reads it who takes all there is.
    pub fn text(&self) -> String {
        let mut taker = Taker {
            text: vec![],
            space: usize::MAX,
        };
        let mut reader = Reader::default();
        while reader
            .read(self, taker.text.len() as u64, &mut taker)
            .unwrap()
            > 0
        {}
        reader.close(self);
        String::from_utf8(taker.text).unwrap()
    }

    fn totals(&self, run: Option<Run<'_, K>>) -> Totals<PAIRS> {
        match run {
            Some(run) => run.totals(|cpu| self.tables.get(cpu as usize).copied()),
            None => self
                .tables
                .iter()
                .fold(Totals::default(), |mut sum, table| {
                    sum.merge(table.others());
                    sum
                }),
        }
    }

    fn take(&self, owner: Owner<K>, run: Option<Run<'_, K>>) -> Totals<PAIRS> {
        let totals = self.totals(run);
        match &self.delivered {
            Some(delivered) => {
                take(&delivered.borrow_mut(), owner, totals).expect("there is memory")
            }
            None => totals,
        }
    }
}

impl<K: Key, const PAIRS: usize, M: Memory> Lines for Rows<'_, K, PAIRS, M> {
    type Snapshot = Vec<Entry<K>>;
    type Claim = (Owner<K>, Totals<PAIRS>);
    type Error = Trouble;

    fn snapshot(&self) -> Result<Self::Snapshot, Trouble> {
        let tables = self.tables.iter().enumerate();
        let mut all: Vec<_> = tables
            .flat_map(|(cpu, table)| entries(cpu as u32, table))
            .collect();
        let mut scratch = all.clone();
        let Ok(()) = merge_sort(&mut all, &mut scratch, || Ok::<_, Infallible>(()));
        Ok(all)
    }

    fn line(
        &self,
        entries: &Self::Snapshot,
        position: usize,
        out: &mut Line,
    ) -> Result<Option<Step<Self::Claim>>, Trouble> {
        let run = match Place::at(position, entries) {
            Place::Header => {
                out.write_str(self.header)?;
                return Ok(Some(Step {
                    next: position + 1,
                    claim: None,
                }));
            }
            Place::Row(run) => run,
            Place::End => return Ok(None),
        };
        let (owner, span) = owner_and_span(run);
        let totals = self.take(owner, run);
        write_row(out, owner, &totals)?;
        let claim = (self.delivered.is_some() && !totals.is_zero()).then_some((owner, totals));
        Ok(Some(Step {
            next: position + span,
            claim,
        }))
    }

    fn give_back(&self, (owner, totals): Self::Claim) {
        if let Some(delivered) = &self.delivered {
            delivered
                .borrow_mut()
                .counters(owner)
                .expect("it was there")
                .subtract_all(&totals);
        }
    }
}

/// Takes up to `space` bytes.
pub struct Taker {
    pub text: Vec<u8>,
    pub space: usize,
}

impl Sink for Taker {
    fn space(&self) -> usize {
        self.space
    }

    fn put(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.space);
        self.text.extend(&bytes[..taken]);
        self.space -= taken;
        taken
    }
}
