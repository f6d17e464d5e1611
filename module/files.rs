// SPDX-License-Identifier: GPL-2.0

//! The files of one name.

use crate::{
    accounting::{
        counters::{
            BYTE_COLUMNS,
            CONNECTION_COLUMNS, //
        },
        cpu_tables::CpuTables,
        delivery::Reader,
        key::Key,
        ledger::Ledger,
        packet::Family,
        params::Params,
        report::{
            Form,
            IPCONN_HEADER,
            PORTCONN_HEADER,
            TRAFFIC_HEADER, //
        },
        stats::RowStats,
        table::Table,
        table_text::{
            TablePerCpu,
            TableText, //
        },
    },
    glue::{
        compat::cpu::nr_cpu_ids,
        memcg::Memcg,
        paged::KernelMemory,
        procfs::{
            Content,
            Dir,
            File,
            ShownFile, //
        },
    },
    per_cpu_tables::PerCpuTables,
    platform::Kernel,
};
use core::fmt::Arguments;
use kernel::{
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        Arc,
        Mutex, //
    },
};

/// The files of one name, at least one.
pub(crate) struct Files<A: Family> {
    traffic: Option<File<Text<A, A, BYTE_COLUMNS>>>,
    ipconn: Option<File<Text<A, A, CONNECTION_COLUMNS>>>,
    portconn: Option<File<Text<A, u16, CONNECTION_COLUMNS>>>,
}

/// The files of one name that are in the folder. Dropping this removes them.
pub(crate) struct ShownFiles<A: Family> {
    _traffic: Option<ShownFile<Text<A, A, BYTE_COLUMNS>>>,
    _ipconn: Option<ShownFile<Text<A, A, CONNECTION_COLUMNS>>>,
    _portconn: Option<ShownFile<Text<A, u16, CONNECTION_COLUMNS>>>,
}

impl<A: Family> Files<A> {
    /// Makes a file for each kind of table that `params` asks for. They are not in the folder yet.
    #[inline(never)]
    pub(crate) fn new(
        dir: &Arc<Dir>,
        params: &Params<A>,
        tables: &Arc<PerCpuTables<A>>,
        memcg: &Arc<Memcg>,
    ) -> Result<Self> {
        let Params { name, counts, .. } = params;
        let per_address = |header| Form {
            header,
            prefix: params.network.prefix(),
        };
        let mut files = Self {
            traffic: None,
            ipconn: None,
            portconn: None,
        };
        if counts.traffic {
            files.traffic = Some(new_file(
                dir,
                format_args!("{name}"),
                per_address(TRAFFIC_HEADER),
                Selected::new(tables, memcg, CpuTables::traffic),
                params.clear_on_read,
            )?);
        }
        if counts.ipconn {
            files.ipconn = Some(new_file(
                dir,
                format_args!("{name}.ipconn"),
                per_address(IPCONN_HEADER),
                Selected::new(tables, memcg, CpuTables::ipconn),
                params.clear_on_read,
            )?);
        }
        if counts.portconn {
            files.portconn = Some(new_file(
                dir,
                format_args!("{name}.portconn"),
                Form::new(PORTCONN_HEADER),
                Selected::new(tables, memcg, CpuTables::portconn),
                params.clear_on_read,
            )?);
        }
        Ok(files)
    }

    /// Puts the files into the folder: all of them, or none if this fails.
    ///
    /// Nothing but the entries of procfs is allocated.
    pub(crate) fn show(&self) -> Result<ShownFiles<A>> {
        Ok(ShownFiles {
            _traffic: self.traffic.as_ref().map(File::show).transpose()?,
            _ipconn: self.ipconn.as_ref().map(File::show).transpose()?,
            _portconn: self.portconn.as_ref().map(File::show).transpose()?,
        })
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

/// Makes a file. If `clear_on_read` is true, reading clears it.
#[inline(never)]
fn new_file<A: Family, K: Key, const PAIRS: usize>(
    dir: &Arc<Dir>,
    name: Arguments<'_>,
    form: Form,
    tables: Selected<A, K, PAIRS>,
    clear_on_read: bool,
) -> Result<File<Text<A, K, PAIRS>>> {
    let ledger = clear_on_read.then(|| {
        let ledger = Ledger::new()?;
        KBox::pin_init(new_mutex!(ledger, "xt_traffic::ledger"), GFP_KERNEL_ACCOUNT)
    });
    let text = TableText::new(tables, form, ledger.transpose()?);
    let name = CString::try_from_fmt(name)?;
    let text = Arc::new(text, GFP_KERNEL_ACCOUNT)?;
    Ok(File::new(dir.clone(), name, text))
}

/// The text of a file.
type Text<A, K, const PAIRS: usize> = TableText<Selected<A, K, PAIRS>, K, PAIRS, Kernel>;

impl<A: Family, K: Key, const PAIRS: usize> Content for Text<A, K, PAIRS> {
    fn mutex(reader: Reader<Self>) -> impl PinInit<Mutex<Reader<Self>>> {
        new_mutex!(reader, "xt_traffic::table_reader")
    }
}

type KernelTable<K, const PAIRS: usize> = Table<K, PAIRS, KernelMemory>;

/// One kind of table: traffic, ipconn or portconn, of all CPUs.
pub(crate) struct Selected<A: Family, K, const PAIRS: usize> {
    tables: Arc<PerCpuTables<A>>,
    memcg: Arc<Memcg>,
    /// Selects that kind from the tables of a CPU.
    select: fn(&CpuTables<A, KernelMemory>) -> Option<&KernelTable<K, PAIRS>>,
}

impl<A: Family, K, const PAIRS: usize> Selected<A, K, PAIRS> {
    fn new(
        tables: &Arc<PerCpuTables<A>>,
        memcg: &Arc<Memcg>,
        select: fn(&CpuTables<A, KernelMemory>) -> Option<&KernelTable<K, PAIRS>>,
    ) -> Self {
        Self {
            tables: tables.clone(),
            memcg: memcg.clone(),
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

    fn charge<R>(&self, f: impl FnOnce() -> R) -> R {
        self.memcg.charge(f)
    }
}
