// SPDX-License-Identifier: GPL-2.0

//! The files of a table.

use crate::{
    accounting::{
        counters::{Totals, BYTE_COLUMNS, CONNECTION_COLUMNS},
        cpu_tables::{CpuTables, PORTS},
        delivery::{Line, Lines, Step},
        hash::Seed,
        key::{Key, Owner},
        packet::Family,
        params::Params,
        report::{self, IPCONN_HEADER, PORTCONN_HEADER, TRAFFIC_HEADER},
        rows::{self, Entry, Place, RowEntries},
        stats::RowStats,
        table::{Size, Table},
    },
    counted::Counted,
    glue::{
        memcg::Memcg,
        paged::KernelMemory,
        percpu::possible_cpus,
        procfs::{Dir, File},
        random::random_u64,
        task,
    },
    sort::sort,
};
use core::fmt::Write;
use kernel::{
    alloc::KVVec,
    fmt::Arguments,
    new_mutex,
    prelude::*,
    str::CString,
    sync::{Arc, Mutex},
};

/// After so many rows that are looked at, others may run.
const PAUSE: usize = 1024;

/// The files of one table, of which at least one is there.
pub(crate) struct Files<A: Family> {
    traffic: Option<File<Rows<A, A, BYTE_COLUMNS>>>,
    ipconn: Option<File<Rows<A, A, CONNECTION_COLUMNS>>>,
    portconn: Option<File<Rows<A, u16, CONNECTION_COLUMNS>>>,
}

impl<A: Family> Files<A> {
    /// Makes the files for what is counted.
    #[inline(never)]
    pub(crate) fn new(
        dir: &Arc<Dir>,
        params: &Params<A>,
        counted: &Arc<Counted<A>>,
        payer: &Arc<Memcg>,
    ) -> Result<Self> {
        let Params {
            name,
            counts,
            clear_on_read,
            ..
        } = params;
        let addresses = params.delivered(possible_cpus());
        let delivered = |size| clear_on_read.then(|| (size, payer.clone()));
        let mut files = Self {
            traffic: None,
            ipconn: None,
            portconn: None,
        };
        if counts.traffic {
            let rows = Rows::new(
                counted,
                TRAFFIC_HEADER,
                CpuTables::traffic,
                delivered(addresses),
            )?;
            files.traffic = Some(new_file(dir, fmt!("{name}"), rows)?);
        }
        if counts.ipconn {
            let rows = Rows::new(
                counted,
                IPCONN_HEADER,
                CpuTables::ipconn,
                delivered(addresses),
            )?;
            files.ipconn = Some(new_file(dir, fmt!("{name}.ipconn"), rows)?);
        }
        if counts.portconn {
            let rows = Rows::new(
                counted,
                PORTCONN_HEADER,
                CpuTables::portconn,
                delivered(PORTS),
            )?;
            files.portconn = Some(new_file(dir, fmt!("{name}.portconn"), rows)?);
        }
        Ok(files)
    }

    /// What there is to say about each of them: traffic, ipconn, portconn.
    pub(crate) fn stats(&self) -> [Option<RowStats>; 3] {
        [
            self.traffic.as_ref().map(|file| file.content().stats()),
            self.ipconn.as_ref().map(|file| file.content().stats()),
            self.portconn.as_ref().map(|file| file.content().stats()),
        ]
    }
}

fn new_file<A: Family, K: Key, const PAIRS: usize>(
    dir: &Arc<Dir>,
    name: Arguments<'_>,
    rows: Rows<A, K, PAIRS>,
) -> Result<File<Rows<A, K, PAIRS>>> {
    let name = CString::try_from_fmt(name)?;
    File::new(dir.clone(), &name, Arc::new(rows, GFP_KERNEL_ACCOUNT)?)
}

type KernelTable<K, const PAIRS: usize> = Table<K, PAIRS, KernelMemory>;

/// The rows of one file, summed up over all CPUs when they are read.
pub(crate) struct Rows<A: Family, K, const PAIRS: usize> {
    counted: Arc<Counted<A>>,
    header: &'static str,
    /// Which of a CPU's tables has them.
    table: fn(&CpuTables<A, KernelMemory>) -> Option<&KernelTable<K, PAIRS>>,
    /// What readers have been given, if that is to be cleared. The counters of the CPUs are never
    /// set back: only their CPU may write them.
    delivered: Option<Pin<KBox<Mutex<KernelTable<K, PAIRS>>>>>,
}

impl<A: Family, K: Key, const PAIRS: usize> Rows<A, K, PAIRS> {
    /// The rows of `table`, which are cleared by reading if `delivered` has a size and a payer.
    #[inline(never)]
    fn new(
        counted: &Arc<Counted<A>>,
        header: &'static str,
        table: fn(&CpuTables<A, KernelMemory>) -> Option<&KernelTable<K, PAIRS>>,
        delivered: Option<(Size, Arc<Memcg>)>,
    ) -> Result<Self> {
        let delivered = delivered.map(|(size, payer)| {
            let table = Table::new(
                Seed::new(random_u64()),
                size,
                &KernelMemory::for_readers(payer),
            )?;
            KBox::pin_init(
                new_mutex!(table, "xt_traffic::Rows::delivered"),
                GFP_KERNEL_ACCOUNT,
            )
        });
        Ok(Self {
            counted: counted.clone(),
            header,
            table,
            delivered: delivered.transpose()?,
        })
    }

    /// The tables of all CPUs, with the CPU's number.
    fn tables(&self) -> impl Iterator<Item = (u32, &KernelTable<K, PAIRS>)> {
        self.counted
            .cpus()
            .iter()
            .filter_map(|(cpu, tables)| Some((cpu, (self.table)(tables)?)))
    }

    fn totals(&self, run: Option<RowEntries<'_, K>>) -> Totals<PAIRS> {
        match run {
            Some(run) => run.totals(|cpu| self.counted.cpus().get(cpu).and_then(self.table)),
            None => {
                let mut sum = Totals::default();
                self.tables()
                    .for_each(|(_, table)| sum.merge(table.others()));
                sum
            }
        }
    }

    /// What there is for a reader. If reading clears, it is the reader's from now on.
    fn take(&self, owner: Owner<K>, run: Option<RowEntries<'_, K>>) -> Result<Totals<PAIRS>> {
        match &self.delivered {
            Some(delivered) => {
                let given = delivered.lock();
                rows::take(&given, owner, self.totals(run)).ok_or(ENOMEM)
            }
            None => Ok(self.totals(run)),
        }
    }

    fn stats(&self) -> RowStats {
        let mut stats = RowStats::default();
        self.tables().for_each(|(_, table)| stats.add(table));
        if let Some(delivered) = &self.delivered {
            stats.memory += delivered.lock().memory();
        }
        stats
    }
}

impl<A: Family, K: Key, const PAIRS: usize> Lines for Rows<A, K, PAIRS> {
    type Snapshot = KVVec<Entry<K>>;
    type Claim = (Owner<K>, Totals<PAIRS>);
    type Error = Error;

    fn snapshot(&self) -> Result<Self::Snapshot> {
        let count: usize = self.tables().map(|(_, table)| table.rows() as usize).sum();
        // A few more may come before they are listed. The list can grow, but moves then.
        let mut entries = KVVec::with_capacity(count + count / 64, GFP_KERNEL_ACCOUNT)?;
        for (cpu, table) in self.tables() {
            // Direct rows are looked for everywhere, even when there is none.
            task::go_on()?;
            for (n, entry) in (1..).zip(rows::entries(cpu, table)) {
                if n % PAUSE == 0 {
                    task::go_on()?;
                }
                entries.push(entry, GFP_KERNEL_ACCOUNT)?;
            }
        }
        sort(&mut entries)?;
        Ok(entries)
    }

    fn line(
        &self,
        entries: &Self::Snapshot,
        position: usize,
        out: &mut Line,
    ) -> Result<Option<Step<Self::Claim>>> {
        task::go_on()?;
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
        let (owner, span) = rows::owner_and_count(run);
        let totals = self.take(owner, run)?;
        if let Err(error) = report::write_row(out, owner, &totals) {
            self.give_back((owner, totals));
            return Err(error.into());
        }
        let claim = (self.delivered.is_some() && !totals.is_zero()).then_some((owner, totals));
        Ok(Some(Step {
            next: position + span,
            claim,
        }))
    }

    fn give_back(&self, (owner, totals): Self::Claim) {
        if let Some(delivered) = &self.delivered {
            if let Some(counters) = delivered.lock().counters(owner) {
                counters.subtract_all(&totals);
            }
        }
    }
}
