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
    files::{
        Files,
        ShownFiles, //
    },
    glue::{
        budget::Budget,
        compat::prelude::*,
        memcg::Memcg,
        net::net_info_ratelimited,
        procfs::Dir,
        reader_list::List,
        xt_match::NfProto, //
    },
    per_cpu_tables::PerCpuTables,
};
use kernel::{
    new_mutex,
    sync::{
        Arc,
        Mutex, //
    },
};

/// The tables of all CPUs for the same parameters, and their files.
///
/// Several can have the same name. The first of them in its list is the oldest. Its turn to have
/// the files in the folder has come, and the others wait.
pub(crate) struct NamedTable<A: Family> {
    params: Params<A>,
    tables: Arc<PerCpuTables<A>>,
    /// The time when this was made. No other table of the namespace has the same.
    generation: u64,
    /// The number of rules with these parameters.
    rules: usize,
    files: Arc<Files<A>>,
    place: Place<A>,
}

/// Where the files of a table are.
enum Place<A: Family> {
    /// Nowhere: an older table has the name.
    Waiting,
    /// Nowhere yet: it is the turn of this table.
    Due,
    /// In the folder.
    Folder { _files: ShownFiles<A> },
}

/// The files of a table whose turn it is.
pub(crate) struct DueFiles<A: Family> {
    pub(crate) name: Name,
    pub(crate) files: Arc<Files<A>>,
}

impl<A: Family> NamedTable<A> {
    /// Makes empty tables for one rule, whose size `budget` bounds. Their memory, and that of their
    /// files, is charged to the memory cgroup of the current task. The files are not in the folder
    /// yet.
    #[inline(never)]
    pub(crate) fn new(
        dir: &Arc<Dir>,
        params: &Params<A>,
        budget: &'static Budget,
        generation: u64,
    ) -> Result<Self> {
        let memcg = Arc::new(Memcg::of_current(), GFP_KERNEL_ACCOUNT)?;
        let tables = PerCpuTables::new(params, memcg.clone(), budget)?;
        let files = Arc::new(
            Files::new(dir, params, &tables, &memcg)?,
            GFP_KERNEL_ACCOUNT,
        )?;
        Ok(Self {
            params: *params,
            tables,
            generation,
            rules: 1,
            files,
            place: Place::Waiting,
        })
    }

    /// Puts the files into the folder. No other table must have the name.
    pub(crate) fn with_files(mut self) -> Result<Self> {
        self.place = Place::Folder {
            _files: self.files.show()?,
        };
        Ok(self)
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
            generation: self.generation,
            waiting: !matches!(self.place, Place::Folder { .. }),
            files: self.files.stats(),
            flows,
        }
    }

    /// Says that no older table has the name.
    fn take_turn(&mut self) {
        if let Place::Waiting = self.place {
            self.place = Place::Due;
        }
    }

    /// Logs that the other family has the name of `new`.
    fn log_refused<B: Family>(&self, new: &Params<B>) {
        net_info_ratelimited!(
            "table {} exists with {}, refused to a rule with {new}\n",
            new.name,
            self.params
        );
    }

    /// Logs that `new` waits for the files.
    fn log_waiting(&self, new: &Self) {
        net_info_ratelimited!(
            "table {} with {} counts, but has no files yet: an older table with {} has them until \
             its last rule is gone\n",
            new.params.name,
            new.params,
            self.params
        );
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

pub(crate) struct Lists {
    ipv4: KVVec<NamedTable<u32>>,
    ipv6: KVVec<NamedTable<u128>>,
}

/// What the lists have for the parameters of a rule.
pub(crate) enum Lookup<A: Family> {
    /// Tables with these parameters. They have one more rule now.
    Same(Arc<PerCpuTables<A>>),
    /// Only tables with the same name and other parameters.
    Other,
    /// No tables with this name.
    None,
}

/// A family with a list of tables.
pub(crate) trait ListedFamily: Family {
    /// The other family.
    type Other: ListedFamily;

    /// The family's number in netfilter.
    const NFPROTO: NfProto;

    /// Returns the list of its tables.
    fn list(lists: &mut Lists) -> &mut KVVec<NamedTable<Self>>;
}

impl ListedFamily for u32 {
    type Other = u128;

    const NFPROTO: NfProto = NfProto::Ipv4;

    fn list(lists: &mut Lists) -> &mut KVVec<NamedTable<Self>> {
        &mut lists.ipv4
    }
}

impl ListedFamily for u128 {
    type Other = u32;

    const NFPROTO: NfProto = NfProto::Ipv6;

    fn list(lists: &mut Lists) -> &mut KVVec<NamedTable<Self>> {
        &mut lists.ipv6
    }
}

/// Returns the oldest table of a name.
fn named<A: ListedFamily>(lists: &mut Lists, name: Name) -> Option<&mut NamedTable<A>> {
    let mut list = A::list(lists).iter_mut();
    list.find(|table| table.params.name == name)
}

impl TableLists {
    /// Makes empty lists.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let lists = Lists {
            ipv4: KVVec::new(),
            ipv6: KVVec::new(),
        };
        Arc::pin_init(
            pin_init!(Self {
                lists <- new_mutex!(lists, "xt_traffic::TableLists::lists"),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Looks for the tables with these parameters, for one more rule.
    ///
    /// Fails with [`EEXIST`] if the name belongs to a table of the other family, and logs the
    /// reason. If there are no tables with these parameters, there is room in the list for
    /// [`insert`](Self::insert).
    pub(crate) fn get<A: ListedFamily>(&self, params: &Params<A>) -> Result<Lookup<A>> {
        let mut lists = self.lists.lock();
        if let Some(other) = named::<A::Other>(&mut lists, params.name) {
            other.log_refused(params);
            return Err(EEXIST);
        }
        let list = A::list(&mut lists);
        if let Some(same) = list.iter_mut().find(|table| table.params == *params) {
            same.rules += 1;
            return Ok(Lookup::Same(same.tables.clone()));
        }
        list.reserve(1, GFP_KERNEL_ACCOUNT)?;
        Ok(match named::<A>(&mut lists, params.name) {
            Some(_) => Lookup::Other,
            None => Lookup::None,
        })
    }

    /// Adds a table. Logs if it has to wait for its files. Gives it back if there is no room in the
    /// list.
    pub(crate) fn insert<A: ListedFamily>(
        &self,
        table: NamedTable<A>,
    ) -> Result<(), NamedTable<A>> {
        let mut lists = self.lists.lock();
        if let Some(old) = named::<A>(&mut lists, table.params.name) {
            old.log_waiting(&table);
        }
        A::list(&mut lists)
            .push_within_capacity(table)
            .map_err(|error| error.0)
    }

    /// Takes one rule away from a table. Returns the table if that was the last rule. Its files are
    /// then due to the oldest other table of the name.
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
        if table.rules > 0 {
            return None;
        }
        let table = list.remove(index).ok()?;
        if let Some(next) = named::<A>(&mut lists, table.params.name) {
            next.take_turn();
        }
        Some(table)
    }

    /// Returns the files of a table whose turn it is, if there is one.
    pub(crate) fn due<A: ListedFamily>(&self) -> Option<DueFiles<A>> {
        let mut lists = self.lists.lock();
        let mut list = A::list(&mut lists).iter();
        let table = list.find(|table| matches!(table.place, Place::Due))?;
        Some(DueFiles {
            name: table.params.name,
            files: table.files.clone(),
        })
    }

    /// Says that the files that were due are in the folder now.
    pub(crate) fn shown<A: ListedFamily>(&self, due: &DueFiles<A>, files: ShownFiles<A>) {
        let mut lists = self.lists.lock();
        let mut list = A::list(&mut lists).iter_mut();
        if let Some(table) = list.find(|table| Arc::ptr_eq(&table.files, &due.files)) {
            table.place = Place::Folder { _files: files };
        }
    }

    /// Returns the sizes of each table.
    pub(crate) fn stats(&self) -> Result<List<TableStats>> {
        let lists = self.lists.lock();
        let count = lists.ipv4.len() + lists.ipv6.len();
        let mut all = List::with_capacity(count)?;
        for table in &lists.ipv4 {
            all.push(table.stats())?;
        }
        for table in &lists.ipv6 {
            all.push(table.stats())?;
        }
        Ok(all)
    }
}
