// SPDX-License-Identifier: GPL-2.0

//! The tables of one network namespace.
//!
//! A table lives as long as a rule has it. Rules of one namespace with the same name, family and
//! parameters share it. So replacing a rule, or the whole ruleset, loses no count, provided that
//! the new rule is inserted before the old one is removed. x_tables and nf_tables do it in this
//! order.
//!
//! If the parameters differ, the new rule has a table of its own, a successor. Its files appear
//! when those of the old table are removed, with the last rule of the old table.

use crate::{
    accounting::params::Params,
    glue::{
        boottime::nanoseconds_since_boot,
        budget::Budget,
        net::{
            net_err_ratelimited,
            Net, //
        },
        packet::SkBuff,
        percpu::ThisCpu,
        pernet::{
            pernet_slot,
            PerNet, //
        },
        procfs::{
            Dir,
            File,
            ShownFile, //
        },
    },
    per_cpu_tables::PerCpuTables,
    stats::Stats,
    table_lists::{
        ListedFamily,
        Lookup,
        NamedTable,
        TableLists, //
    },
};
use core::ffi::CStr;
use kernel::{
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        Arc,
        Mutex, //
    },
};

/// The tables of one network namespace, and its folder `/proc/net/xt_traffic`.
#[pin_data]
pub(crate) struct Tables {
    /// Held while a table is added or removed, with its files. So the files of a table are gone
    /// before those of another one of the same name are made. Readers do not take it, because
    /// removing a file waits for its readers.
    #[pin]
    changes: Mutex<Changes>,
    lists: Arc<TableLists>,
    dir: Arc<Dir>,
    budget: &'static Budget,
    _stats: ShownFile<Stats>,
}

/// What is needed to change the tables.
#[derive(Default)]
struct Changes {
    /// The generation of the newest table.
    generation: u64,
}

impl Changes {
    /// Returns the generation of a table that is made now: the nanoseconds since boot. Each is
    /// larger than the one before, also if the clock is coarse.
    fn next_generation(&mut self) -> u64 {
        self.generation = nanoseconds_since_boot().max(self.generation + 1);
        self.generation
    }
}

pernet_slot!(Tables);

impl PerNet for Tables {
    const DIR: &'static CStr = c"xt_traffic";

    fn new(net: &Net, dir: Arc<Dir>) -> Result<Arc<Self>> {
        let lists = TableLists::new()?;
        let budget = Budget::of(net);
        let stats = Stats {
            lists: lists.clone(),
            budget,
        };
        let stats = Arc::new(stats, GFP_KERNEL_ACCOUNT)?;
        let name = CString::try_from_fmt(format_args!(".stats"))?;
        let stats = File::new(dir.clone(), name, stats).show()?;
        Arc::pin_init(
            pin_init!(Self {
                changes <- new_mutex!(Changes::default(), "xt_traffic::Tables::changes"),
                lists,
                dir,
                budget,
                _stats: stats,
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }
}

impl Tables {
    /// Returns the table for a rule. It is made if there is none with these parameters.
    pub(crate) fn get<A: ListedFamily>(
        tables: Arc<Self>,
        params: &Params<A>,
    ) -> Result<TableRef<A>> {
        let mut changes = tables.changes.lock();
        tables.show_all_due(&changes);
        let generation = changes.next_generation();
        let new = || NamedTable::new(&tables.dir, params, tables.budget, generation);
        let named = match tables.lists.get(params)? {
            Lookup::Same(table) => {
                drop(changes);
                return Ok(TableRef { tables, table });
            }
            Lookup::Other => new()?,
            Lookup::None => new()?.with_files()?,
        };
        let table = named.tables().clone();
        tables.lists.insert(named).map_err(|_| ENOMEM)?;
        drop(changes);
        Ok(TableRef { tables, table })
    }

    fn show_all_due(&self, changes: &Changes) {
        self.show_due::<u32>(changes);
        self.show_due::<u128>(changes);
    }

    /// Puts the files of each table whose turn it is into the folder.
    ///
    /// Only the entries of procfs are allocated here. If there is no memory for them, the next
    /// change tries again.
    fn show_due<A: ListedFamily>(&self, _changes: &Changes) {
        while let Some(due) = self.lists.due::<A>() {
            match due.files.show() {
                Ok(shown) => self.lists.shown(&due, shown),
                Err(error) => {
                    // The folder of a namespace that ends has been removed.
                    if error != ENOENT {
                        net_err_ratelimited!(
                            "table {}: its files cannot be made (error {}); the next change of a rule \
                             with -m traffic tries again\n",
                            due.name,
                            error.to_errno()
                        );
                    }
                    return;
                }
            }
        }
    }
}

/// The reference of a rule to its table.
pub(crate) struct TableRef<A: ListedFamily> {
    tables: Arc<Tables>,
    table: Arc<PerCpuTables<A>>,
}

impl<A: ListedFamily> TableRef<A> {
    /// Counts a packet. Returns whether anything was counted.
    #[inline]
    pub(crate) fn count(&self, packet: SkBuff<'_>, cpu: &ThisCpu) -> bool {
        self.table.count(packet, cpu)
    }
}

impl<A: ListedFamily> Drop for TableRef<A> {
    fn drop(&mut self) {
        let changes = self.tables.changes.lock();
        let last = self.tables.lists.put(&self.table);
        // This removes the files, which waits for their readers. The lock of the lists is not held.
        drop(last);
        self.tables.show_all_due(&changes);
    }
}
