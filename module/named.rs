// SPDX-License-Identifier: GPL-2.0

//! Tables by name.
//!
//! A table lives while a rule has it. Rules of one namespace with the same name, family and
//! parameters share it, so replacing a rule, or the whole ruleset, loses no count as long as the
//! new rule comes before the old one goes, which is the order in which x_tables and nf_tables work.

use crate::{
    accounting::{
        packet::Family,
        params::{Name, Params},
        stats::{FlowStats, TableStats},
    },
    counted::Counted,
    files::Files,
    glue::{
        log,
        memcg::Memcg,
        netns::{HasPerNetSlot, Net, PerNet, PerNetSlot},
        packet::SkBuff,
        percpu::ThisCpu,
        procfs::{Dir, File},
        xt_match::NfProto,
    },
    stats::Stats,
};
use kernel::{
    alloc::KVVec,
    c_str, new_mutex,
    prelude::*,
    sync::{Arc, Mutex},
};

/// The tables of one network namespace.
#[pin_data]
pub(crate) struct Tables {
    /// Held by those who make tables and take them away, files included: so there are no files left of
    /// a table when another one of the same name is made. No reader takes it: who takes a file away
    /// waits for its readers.
    #[pin]
    changes: Mutex<()>,
    #[pin]
    named: Mutex<Named>,
}

/// What is there under the lock.
#[derive(Default)]
pub(crate) struct Named {
    /// /proc/net/xt_traffic, until the namespace ends.
    dir: Option<Arc<Dir>>,
    /// The file in it that is always there. It refers to the tables, which therefore live until it
    /// is taken away.
    stats: Option<File<Stats>>,
    ipv4: KVVec<Listed<u32>>,
    ipv6: KVVec<Listed<u128>>,
}

/// A table in a list.
pub(crate) struct Listed<A: Family> {
    params: Params<A>,
    counted: Arc<Counted<A>>,
    rules: usize,
    files: Files<A>,
}

/// A family that there are tables for.
pub(crate) trait HasTables: Family {
    /// Its name in netfilter.
    const NFPROTO: NfProto;

    /// The list of its tables.
    fn list(named: &mut Named) -> &mut KVVec<Listed<Self>>;
}

impl HasTables for u32 {
    const NFPROTO: NfProto = NfProto::Ipv4;

    fn list(named: &mut Named) -> &mut KVVec<Listed<Self>> {
        &mut named.ipv4
    }
}

impl HasTables for u128 {
    const NFPROTO: NfProto = NfProto::Ipv6;

    fn list(named: &mut Named) -> &mut KVVec<Listed<Self>> {
        &mut named.ipv6
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
        let dir = Dir::new(net, c_str!("xt_traffic"))?;
        let tables = pin_init!(Self {
            changes <- new_mutex!((), "xt_traffic::Tables::changes"),
            named <- new_mutex!(Named::default(), "xt_traffic::Tables::named"),
        });
        let tables = Arc::pin_init(tables, GFP_KERNEL_ACCOUNT)?;
        let stats = Arc::new(Stats(tables.clone()), GFP_KERNEL_ACCOUNT)?;
        let stats = File::new(dir.clone(), c_str!(".stats"), stats)?;
        let mut named = tables.named.lock();
        (named.dir, named.stats) = (Some(dir), Some(stats));
        drop(named);
        Ok(tables)
    }

    fn exit(&self) {
        let _changes = self.changes.lock();
        let mut named = self.named.lock();
        let (stats, dir) = (named.stats.take(), named.dir.take());
        let ipv4 = core::mem::take(&mut named.ipv4);
        let ipv6 = core::mem::take(&mut named.ipv6);
        // A reader of the statistics who is waited for may be waiting for the lock.
        drop(named);
        drop((stats, ipv4, ipv6, dir));
    }
}

impl Tables {
    /// The table that a rule asks for, made if there is none of that name.
    pub(crate) fn get<A: HasTables>(tables: Arc<Self>, params: &Params<A>) -> Result<TableRef<A>> {
        let changes = tables.changes.lock();
        let counted = tables.named.lock().get(params)?;
        drop(changes);
        Ok(TableRef { tables, counted })
    }

    /// What there is to say about each table.
    pub(crate) fn stats(&self) -> Result<KVVec<TableStats>> {
        let named = self.named.lock();
        let mut all =
            KVVec::with_capacity(named.ipv4.len() + named.ipv6.len(), GFP_KERNEL_ACCOUNT)?;
        for listed in &named.ipv4 {
            all.push(listed.stats(), GFP_KERNEL_ACCOUNT)?;
        }
        for listed in &named.ipv6 {
            all.push(listed.stats(), GFP_KERNEL_ACCOUNT)?;
        }
        Ok(all)
    }
}

impl Named {
    fn get<A: HasTables>(&mut self, params: &Params<A>) -> Result<Arc<Counted<A>>> {
        let own = A::list(self)
            .iter_mut()
            .find(|listed| listed.params == *params);
        if let Some(listed) = own {
            listed.rules += 1;
            return Ok(listed.counted.clone());
        }
        if self.refuses(params) {
            return Err(EEXIST);
        }
        let dir = self.dir.clone().ok_or(ENOENT)?;
        let listed = Listed::new(&dir, params)?;
        let counted = listed.counted.clone();
        A::list(self).push(listed, GFP_KERNEL_ACCOUNT)?;
        Ok(counted)
    }

    /// Is the name taken? Then the administrator is told why the rule gets `File exists`.
    fn refuses<A: HasTables>(&self, params: &Params<A>) -> bool {
        let name = params.name;
        refuse_if_taken(&self.ipv4, name, params) || refuse_if_taken(&self.ipv6, name, params)
    }

    /// Takes back what `get` gave. The table is returned to be dropped with its last rule, unless the
    /// namespace has ended before.
    fn put<A: HasTables>(&mut self, counted: &Arc<Counted<A>>) -> Option<Listed<A>> {
        let list = A::list(self);
        let index = list
            .iter()
            .position(|listed| Arc::ptr_eq(&listed.counted, counted))?;
        let listed = list.get_mut(index)?;
        listed.rules -= 1;
        match listed.rules {
            0 => list.remove(index).ok(),
            _ => None,
        }
    }
}

fn refuse_if_taken<A: Family>(
    list: &[Listed<A>],
    name: Name,
    params: &impl core::fmt::Display,
) -> bool {
    let Some(listed) = list.iter().find(|listed| listed.params.name == name) else {
        return false;
    };
    if log::permitted() {
        pr_info!(
            "table {name} exists with {}, refused to a rule with {params}\n",
            listed.params
        );
    }
    true
}

impl<A: Family> Listed<A> {
    #[inline(never)]
    fn new(dir: &Arc<Dir>, params: &Params<A>) -> Result<Self> {
        let payer = Arc::new(Memcg::of_current(), GFP_KERNEL_ACCOUNT)?;
        let counted = Counted::new(params, payer.clone())?;
        let files = Files::new(dir, params, &counted, &payer)?;
        Ok(Self {
            params: *params,
            counted,
            rules: 1,
            files,
        })
    }

    fn stats(&self) -> TableStats {
        let mut flows = None;
        for recent in self
            .counted
            .cpus()
            .iter()
            .filter_map(|(_, tables)| tables.recent())
        {
            flows.get_or_insert_with(FlowStats::default).add(recent);
        }
        TableStats {
            name: self.params.name,
            files: self.files.stats(),
            flows,
        }
    }
}

/// A rule's hold on its table.
pub(crate) struct TableRef<A: HasTables> {
    tables: Arc<Tables>,
    counted: Arc<Counted<A>>,
}

impl<A: HasTables> TableRef<A> {
    /// Counts a packet. Was there anything to count?
    #[inline]
    pub(crate) fn count(&self, packet: SkBuff<'_>, cpu: &ThisCpu) -> bool {
        self.counted.count(packet, cpu)
    }
}

impl<A: HasTables> Drop for TableRef<A> {
    fn drop(&mut self) {
        let _changes = self.tables.changes.lock();
        let last = self.tables.named.lock().put(&self.counted);
        // That waits for readers of its files, but no longer for those of the statistics.
        drop(last);
    }
}
