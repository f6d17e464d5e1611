// SPDX-License-Identifier: GPL-2.0

//! The lists of the tables of one network namespace.

use crate::{
    accounting::{
        packet::Family,
        params::{
            Name,
            Params, //
        },
        stats::{
            FlowStats,
            TableStats, //
        },
    },
    files::Files,
    glue::{
        memcg::Memcg,
        net::net_ratelimit,
        procfs::Dir,
        xt_match::NfProto, //
    },
    per_cpu_tables::PerCpuTables,
};
use core::fmt::Display;
use kernel::{
    alloc::KVVec,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

/// A name, with its tables and files.
pub(crate) struct NamedTable<A: Family> {
    params: Params<A>,
    tables: Arc<PerCpuTables<A>>,
    /// The number of rules with this name.
    rules: usize,
    files: Files<A>,
}

impl<A: Family> NamedTable<A> {
    /// Makes empty tables and their files, for one rule. Their memory is charged to the memory
    /// cgroup of the current task.
    #[inline(never)]
    pub(crate) fn new(dir: &Arc<Dir>, params: &Params<A>) -> Result<Self> {
        let memcg = Arc::new(Memcg::of_current(), GFP_KERNEL_ACCOUNT)?;
        let tables = PerCpuTables::new(params, memcg.clone())?;
        let files = Files::new(dir, params, &tables, &memcg)?;
        Ok(Self {
            params: *params,
            tables,
            rules: 1,
            files,
        })
    }

    /// Returns the tables.
    pub(crate) fn tables(&self) -> &Arc<PerCpuTables<A>> {
        &self.tables
    }

    fn stats(&self) -> TableStats {
        let mut flows = None;
        for recent in self.tables.cpus().iter().filter_map(|cpu| cpu.recent()) {
            flows.get_or_insert_with(FlowStats::default).add(recent);
        }
        TableStats {
            name: self.params.name,
            files: self.files.stats(),
            flows,
        }
    }

    /// Returns whether `name` is taken by this table, and logs it if so.
    fn has_name(&self, name: Name, params: &impl Display) -> bool {
        let taken = self.params.name == name;
        if taken && net_ratelimit() {
            pr_info!(
                "table {name} exists with {}, refused to a rule with {params}\n",
                self.params
            );
        }
        taken
    }
}

/// The lists of the tables of one network namespace.
#[pin_data]
pub(crate) struct TableLists {
    /// Files are neither made nor removed while this is held: a reader of `.stats` takes it, and
    /// removing a file waits for its readers.
    #[pin]
    lists: Mutex<Lists>,
}

#[derive(Default)]
pub(crate) struct Lists {
    ipv4: KVVec<NamedTable<u32>>,
    ipv6: KVVec<NamedTable<u128>>,
}

/// A family with a list of tables.
pub(crate) trait ListedFamily: Family {
    /// The family's number in netfilter.
    const NFPROTO: NfProto;

    /// Returns the list of its tables.
    fn list(lists: &mut Lists) -> &mut KVVec<NamedTable<Self>>;
}

impl ListedFamily for u32 {
    const NFPROTO: NfProto = NfProto::Ipv4;

    fn list(lists: &mut Lists) -> &mut KVVec<NamedTable<Self>> {
        &mut lists.ipv4
    }
}

impl ListedFamily for u128 {
    const NFPROTO: NfProto = NfProto::Ipv6;

    fn list(lists: &mut Lists) -> &mut KVVec<NamedTable<Self>> {
        &mut lists.ipv6
    }
}

impl TableLists {
    /// Makes empty lists.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                lists <- new_mutex!(Lists::default(), "xt_traffic::TableLists::lists"),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Returns the tables with these parameters for one more rule, if there are any.
    ///
    /// Fails with [`EEXIST`] if the name belongs to tables with other parameters, and logs the
    /// reason. If the result is `None`, there is room in the list for [`insert`](Self::insert).
    pub(crate) fn get<A: ListedFamily>(
        &self,
        params: &Params<A>,
    ) -> Result<Option<Arc<PerCpuTables<A>>>> {
        let mut lists = self.lists.lock();
        let own = A::list(&mut lists)
            .iter_mut()
            .find(|table| table.params == *params);
        if let Some(table) = own {
            table.rules += 1;
            return Ok(Some(table.tables.clone()));
        }
        let name = params.name;
        if lists.ipv4.iter().any(|table| table.has_name(name, params))
            || lists.ipv6.iter().any(|table| table.has_name(name, params))
        {
            return Err(EEXIST);
        }
        A::list(&mut lists).reserve(1, GFP_KERNEL_ACCOUNT)?;
        Ok(None)
    }

    /// Adds a table. Gives it back if there is no room in the list.
    pub(crate) fn insert<A: ListedFamily>(
        &self,
        table: NamedTable<A>,
    ) -> Result<(), NamedTable<A>> {
        A::list(&mut self.lists.lock())
            .push_within_capacity(table)
            .map_err(|error| error.0)
    }

    /// Takes one rule away from a table. Returns the table if that was the last rule.
    pub(crate) fn put<A: ListedFamily>(
        &self,
        tables: &Arc<PerCpuTables<A>>,
    ) -> Option<NamedTable<A>> {
        let mut lists = self.lists.lock();
        let list = A::list(&mut lists);
        let index = list
            .iter()
            .position(|table| Arc::ptr_eq(&table.tables, tables))?;
        let table = list.get_mut(index)?;
        table.rules -= 1;
        match table.rules {
            0 => list.remove(index).ok(),
            _ => None,
        }
    }

    /// Returns the sizes of each table.
    pub(crate) fn stats(&self) -> Result<KVVec<TableStats>> {
        let lists = self.lists.lock();
        let count = lists.ipv4.len() + lists.ipv6.len();
        let mut all = KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
        for table in &lists.ipv4 {
            all.push(table.stats(), GFP_KERNEL_ACCOUNT)?;
        }
        for table in &lists.ipv6 {
            all.push(table.stats(), GFP_KERNEL_ACCOUNT)?;
        }
        Ok(all)
    }
}
