// SPDX-License-Identifier: GPL-2.0

//! The tables of one network namespace.
//!
//! A table lives as long as a rule has it. Rules of one namespace with the same name, family and
//! parameters share it. So replacing a rule, or the whole ruleset, loses no count, provided that
//! the new rule is inserted before the old one is removed. x_tables and nf_tables do it in this
//! order.

use crate::{
    accounting::params::Params,
    glue::{
        packet::SkBuff,
        percpu::ThisCpu,
        pernet::{
            pernet_slot,
            PerNet, //
        },
        procfs::{
            Dir,
            File, //
        },
    },
    per_cpu_tables::PerCpuTables,
    stats::Stats,
    table_lists::{
        ListedFamily,
        NamedTable,
        TableLists, //
    },
};
use kernel::{
    c_str, new_mutex,
    prelude::*,
    str::CStr,
    sync::{
        Arc,
        Mutex, //
    },
};

/// The tables of one network namespace, and its folder `/proc/net/xt_traffic`.
#[pin_data]
pub(crate) struct Tables {
    /// Held while a table is added or removed, with its files. So the files of a table are gone
    /// before another one of the same name is made. Readers do not take it, because removing a file
    /// waits for its readers.
    #[pin]
    changes: Mutex<()>,
    lists: Arc<TableLists>,
    dir: Arc<Dir>,
    _stats: File<Stats>,
}

pernet_slot!(Tables);

impl PerNet for Tables {
    const DIR: &'static CStr = c_str!("xt_traffic");

    fn new(dir: Arc<Dir>) -> Result<Arc<Self>> {
        let lists = TableLists::new()?;
        let stats = Arc::new(Stats(lists.clone()), GFP_KERNEL_ACCOUNT)?;
        let stats = File::new(dir.clone(), c_str!(".stats"), stats)?;
        Arc::pin_init(
            pin_init!(Self {
                changes <- new_mutex!((), "xt_traffic::Tables::changes"),
                lists,
                dir,
                _stats: stats,
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }
}

impl Tables {
    /// Returns the table for a rule. It is made if there is none of that name.
    pub(crate) fn get<A: ListedFamily>(
        tables: Arc<Self>,
        params: &Params<A>,
    ) -> Result<TableRef<A>> {
        let changes = tables.changes.lock();
        let table = match tables.lists.get(params)? {
            Some(table) => table,
            None => {
                let named = NamedTable::new(&tables.dir, params)?;
                let table = named.tables().clone();
                tables.lists.insert(named).map_err(|_| ENOMEM)?;
                table
            }
        };
        drop(changes);
        Ok(TableRef { tables, table })
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
        let _changes = self.tables.changes.lock();
        let last = self.tables.lists.put(&self.table);
        // This removes the files, which waits for their readers. The lock of the lists is not held.
        drop(last);
    }
}
