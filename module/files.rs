// SPDX-License-Identifier: GPL-2.0

//! The files of one name.

use crate::{
    accounting::{
        counters::{
            BYTE_COLUMNS,
            CONNECTION_COLUMNS, //
        },
        cpu_tables::{
            CpuTables,
            PORTS, //
        },
        hash::Seed,
        key::Key,
        packet::Family,
        params::Params,
        report::{
            IPCONN_HEADER,
            PORTCONN_HEADER,
            TRAFFIC_HEADER, //
        },
        stats::RowStats,
        table::{
            Size,
            Table, //
        },
        table_text::{
            TablePerCpu,
            TableText, //
        },
    },
    glue::{
        memcg::Memcg,
        paged::KernelMemory,
        procfs::{
            Content,
            Dir,
            File, //
        },
        random::get_random_u64,
    },
    per_cpu_tables::PerCpuTables,
    platform::Kernel,
};
use kernel::{
    cpu::nr_cpu_ids,
    fmt::Arguments,
    new_mutex,
    prelude::*,
    static_lock_class,
    str::CString,
    sync::{
        Arc,
        LockClassKey, //
    },
};

/// The files of one name, at least one.
pub(crate) struct Files<A: Family> {
    traffic: Option<File<Text<A, A, BYTE_COLUMNS>>>,
    ipconn: Option<File<Text<A, A, CONNECTION_COLUMNS>>>,
    portconn: Option<File<Text<A, u16, CONNECTION_COLUMNS>>>,
}

impl<A: Family> Files<A> {
    /// Makes a file for each kind of table that `params` asks for.
    #[inline(never)]
    pub(crate) fn new(
        dir: &Arc<Dir>,
        params: &Params<A>,
        tables: &Arc<PerCpuTables<A>>,
        memcg: &Arc<Memcg>,
    ) -> Result<Self> {
        let Params { name, counts, .. } = params;
        let addresses = params.delivered(nr_cpu_ids());
        let delivered = |size| params.clear_on_read.then(|| (size, memcg.clone()));
        let mut files = Self {
            traffic: None,
            ipconn: None,
            portconn: None,
        };
        if counts.traffic {
            files.traffic = Some(new_file(
                dir,
                fmt!("{name}"),
                TRAFFIC_HEADER,
                Selected::new(tables, CpuTables::traffic),
                delivered(addresses),
            )?);
        }
        if counts.ipconn {
            files.ipconn = Some(new_file(
                dir,
                fmt!("{name}.ipconn"),
                IPCONN_HEADER,
                Selected::new(tables, CpuTables::ipconn),
                delivered(addresses),
            )?);
        }
        if counts.portconn {
            files.portconn = Some(new_file(
                dir,
                fmt!("{name}.portconn"),
                PORTCONN_HEADER,
                Selected::new(tables, CpuTables::portconn),
                delivered(PORTS),
            )?);
        }
        Ok(files)
    }

    /// Returns the sizes of the tables: traffic, ipconn, portconn.
    pub(crate) fn stats(&self) -> [Option<RowStats>; 3] {
        [
            self.traffic.as_ref().map(|file| file.content().stats()),
            self.ipconn.as_ref().map(|file| file.content().stats()),
            self.portconn.as_ref().map(|file| file.content().stats()),
        ]
    }
}

/// Makes a file. If `delivered` is a size and a memory cgroup, reading clears it.
#[inline(never)]
fn new_file<A: Family, K: Key, const PAIRS: usize>(
    dir: &Arc<Dir>,
    name: Arguments<'_>,
    header: &'static str,
    tables: Selected<A, K, PAIRS>,
    delivered: Option<(Size, Arc<Memcg>)>,
) -> Result<File<Text<A, K, PAIRS>>> {
    let delivered = delivered.map(|(size, memcg)| {
        let seed = Seed::new(get_random_u64());
        let table = Table::new(seed, size, &KernelMemory::for_readers(memcg))?;
        KBox::pin_init(
            new_mutex!(table, "xt_traffic::delivered"),
            GFP_KERNEL_ACCOUNT,
        )
    });
    let text = TableText::new(tables, header, delivered.transpose()?);
    let name = CString::try_from_fmt(name)?;
    File::new(dir.clone(), &name, Arc::new(text, GFP_KERNEL_ACCOUNT)?)
}

/// The text of a file.
type Text<A, K, const PAIRS: usize> = TableText<Selected<A, K, PAIRS>, K, PAIRS, Kernel>;

impl<A: Family, K: Key, const PAIRS: usize> Content for Text<A, K, PAIRS> {
    fn lock_class() -> Pin<&'static LockClassKey> {
        static_lock_class!()
    }
}

type KernelTable<K, const PAIRS: usize> = Table<K, PAIRS, KernelMemory>;

/// One kind of table: traffic, ipconn or portconn, of all CPUs.
pub(crate) struct Selected<A: Family, K, const PAIRS: usize> {
    tables: Arc<PerCpuTables<A>>,
    /// Selects that kind from the tables of a CPU.
    select: fn(&CpuTables<A, KernelMemory>) -> Option<&KernelTable<K, PAIRS>>,
}

impl<A: Family, K, const PAIRS: usize> Selected<A, K, PAIRS> {
    fn new(
        tables: &Arc<PerCpuTables<A>>,
        select: fn(&CpuTables<A, KernelMemory>) -> Option<&KernelTable<K, PAIRS>>,
    ) -> Self {
        Self {
            tables: tables.clone(),
            select,
        }
    }
}

impl<A: Family, K, const PAIRS: usize> TablePerCpu<K, PAIRS> for Selected<A, K, PAIRS> {
    type Memory = KernelMemory;

    fn cpus(&self) -> u32 {
        nr_cpu_ids()
    }

    fn table(&self, cpu: u32) -> Option<&KernelTable<K, PAIRS>> {
        self.tables.cpus().get(cpu).and_then(self.select)
    }
}
