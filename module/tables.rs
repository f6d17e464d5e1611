// SPDX-License-Identifier: GPL-2.0

//! Tables by name, and the files that show them.
//!
//! A table lives while a rule has it. Rules of one namespace with the same name and the same
//! parameters share it, so replacing a rule, or the whole ruleset, loses no count as long as the
//! new rule comes before the old one goes, which is the order in which x_tables and nf_tables work.

use crate::{
    accounting::{
        counters::{Direction, Totals},
        network::Network,
        packet::Header,
        params::Params,
        report::{self, Entry, Label, Run, OTHERS, TRAFFIC_HEADER},
        table::Table,
    },
    glue::{
        log,
        memcg::Memcg,
        netns::{HasPerNetSlot, Net, PerNet, PerNetSlot},
        paged::{KernelMemory, PagedSlots},
        percpu::PerCpu,
        procfs::{Dir, File, Lines},
        random::random_u64,
        sort::sort,
    },
};
use core::fmt;
use kernel::{
    alloc::KVVec,
    c_str, new_mutex,
    prelude::*,
    str::CString,
    sync::{Arc, Mutex},
};

/// How many addresses a CPU can have rows for. The others are counted together.
const MAX_ROWS: u32 = 1 << 20;

/// The tables of one network namespace.
#[pin_data]
pub(crate) struct Tables {
    #[pin]
    named: Mutex<Named>,
}

/// What is there under the lock.
struct Named {
    /// /proc/net/xt_traffic, until the namespace ends.
    dir: Option<Arc<Dir>>,
    list: KVec<Listed>,
}

/// A table in the list.
struct Listed {
    params: Params,
    table: Arc<TrafficTable>,
    rules: usize,
    /// Gone when the namespace ends before its rules do.
    file: Option<File<TrafficTable>>,
}

impl Listed {
    /// Tells the administrator why a rule gets `File exists`.
    fn refuse(&self, params: &Params) {
        if log::permitted() {
            let Params { name, .. } = params;
            pr_info!("table {name} exists with {}, refused to a rule with {params}\n", self.params);
        }
    }
}

static SLOT: PerNetSlot<Tables> = PerNetSlot::new();

impl HasPerNetSlot for Tables {
    fn slot() -> &'static PerNetSlot<Self> {
        &SLOT
    }
}

impl PerNet for Tables {
    fn new(net: &Net) -> Result<Arc<Self>> {
        let named = Named { dir: Some(Dir::new(net, c_str!("xt_traffic"))?), list: KVec::new() };
        Arc::pin_init(pin_init!(Self { named <- new_mutex!(named, "xt_traffic::Tables::named") }), GFP_KERNEL_ACCOUNT)
    }

    fn exit(&self) {
        let mut named = self.named.lock();
        named.list.iter_mut().for_each(|listed| listed.file = None);
        named.dir = None;
    }
}

impl Tables {
    /// The table that a rule asks for, made if there is none of that name.
    pub(crate) fn get(tables: Arc<Self>, params: &Params) -> Result<TableRef> {
        let table = tables.named.lock().get(params)?;
        Ok(TableRef { tables, table })
    }
}

impl Named {
    fn get(&mut self, params: &Params) -> Result<Arc<TrafficTable>> {
        let same_name = |listed: &&mut Listed| listed.params.name == params.name;
        if let Some(listed) = self.list.iter_mut().find(same_name) {
            if listed.params != *params {
                listed.refuse(params);
                return Err(EEXIST);
            }
            listed.rules += 1;
            return Ok(listed.table.clone());
        }
        let dir = self.dir.clone().ok_or(ENOENT)?;
        let table = TrafficTable::new(params.network)?;
        let name = CString::try_from_fmt(fmt!("{}", params.name))?;
        let file = File::new(dir, &name, table.clone())?;
        let listed = Listed { params: *params, table: table.clone(), rules: 1, file: Some(file) };
        self.list.push(listed, GFP_KERNEL_ACCOUNT)?;
        Ok(table)
    }

    /// Takes back what `get` gave. The file goes with the last rule.
    fn put(&mut self, table: &Arc<TrafficTable>) {
        self.list.retain(|listed| {
            if Arc::ptr_eq(&listed.table, table) {
                listed.rules -= 1;
            }
            listed.rules > 0
        });
    }
}

/// A rule's hold on its table.
pub(crate) struct TableRef {
    tables: Arc<Tables>,
    table: Arc<TrafficTable>,
}

impl TableRef {
    /// Counts a packet of `bytes()` bytes, unless it is none that the table is about: then nobody
    /// asks for its length.
    #[inline]
    pub(crate) fn count(&self, header: &Header<u32>, bytes: impl FnOnce() -> u64) -> bool {
        self.table.count(header, bytes)
    }
}

impl Drop for TableRef {
    fn drop(&mut self) {
        self.tables.named.lock().put(&self.table);
    }
}

/// Bytes per address of one network.
struct TrafficTable {
    network: Network<u32>,
    cpus: PerCpu<Table<KernelMemory>>,
}

impl TrafficTable {
    fn new(network: Network<u32>) -> Result<Arc<Self>> {
        let rows = network.size().min(u128::from(MAX_ROWS)) as u32;
        let payer = Arc::new(Memcg::of_current(), GFP_KERNEL_ACCOUNT)?;
        let links = || PagedSlots::new(rows, payer.clone());
        let cpus = PerCpu::new(|| {
            let rows = PagedSlots::new(rows, payer.clone())?;
            Ok(Table::new(random_u64(), rows, links()?, links()?))
        })?;
        Ok(Arc::new(Self { network, cpus }, GFP_KERNEL_ACCOUNT)?)
    }

    #[inline]
    fn count(&self, header: &Header<u32>, bytes: impl FnOnce() -> u64) -> bool {
        let Some(ends) = self.network.ends(header.source, header.destination) else {
            return false;
        };
        let (protocol, bytes) = (header.protocol, bytes());
        let counted = self.cpus.with_local(|table| {
            if ends.source {
                table.add(header.source, protocol, Direction::Out, bytes);
            }
            if ends.destination {
                table.add(header.destination, protocol, Direction::In, bytes);
            }
        });
        counted.is_some()
    }

    fn write_others(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let mut sum = Totals::default();
        self.cpus.iter().for_each(|(_, table)| sum.merge(table.others()));
        report::write_row(out, OTHERS, &sum)
    }
}

/// The header is at position 0, then come the entries, of which a run for one address is a line,
/// and the last position is that of the addresses without a row.
impl Lines for TrafficTable {
    type Snapshot = KVVec<Entry<u32>>;

    fn snapshot(&self) -> Result<Self::Snapshot> {
        let rows = |table: &Table<KernelMemory>| table.rows() as usize;
        let count = self.cpus.iter().map(|(_, table)| rows(table)).sum();
        let mut entries = KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
        for (cpu, table) in self.cpus.iter() {
            for entry in report::entries(cpu, table) {
                entries.push(entry, GFP_KERNEL_ACCOUNT)?;
            }
        }
        sort(&mut entries);
        Ok(entries)
    }

    fn positions(&self, entries: &Self::Snapshot) -> usize {
        entries.len() + 2
    }

    fn show(&self, entries: &Self::Snapshot, position: usize, out: &mut impl fmt::Write) -> Result<usize, fmt::Error> {
        let Some(first) = position.checked_sub(1) else {
            out.write_str(TRAFFIC_HEADER)?;
            return Ok(1);
        };
        let entries = entries.get(first..).unwrap_or_default();
        let Some((run, _)) = Run::split_first(entries) else {
            self.write_others(out)?;
            return Ok(1);
        };
        let totals = run.totals(|cpu| self.cpus.get(cpu));
        if let Some(address) = run.address() {
            report::write_row(out, address.label(), &totals)?;
        }
        Ok(run.span())
    }
}
