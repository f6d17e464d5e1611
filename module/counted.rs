// SPDX-License-Identifier: GPL-2.0

//! What the rules of one name count together.

use crate::{
    accounting::{
        cpu_tables::{self, AllCpus, CpuTables},
        flows::{Flows, Ticks},
        hash::Seed,
        network::Network,
        packet::Family,
        params::Params,
    },
    glue::{
        clock,
        memcg::Memcg,
        packet::SkBuff,
        paged::KernelMemory,
        percpu::{PerCpu, ThisCpu},
        random::random_u64,
    },
};
use kernel::{prelude::*, sync::Arc};

/// The tables of all CPUs for one network.
///
/// Every packet reads it, on every CPU: so no neighbour in memory may write to its cache lines.
#[repr(align(64))]
pub(crate) struct Counted<A: Family> {
    network: Network<A>,
    flows: Flows,
    cpus: PerCpu<CpuTables<A, KernelMemory>>,
}

impl<A: Family> Counted<A> {
    /// Empty tables, the memory of which `payer` pays.
    #[inline(never)]
    pub(crate) fn new(params: &Params<A>, payer: Arc<Memcg>) -> Result<Arc<Self>> {
        let Params {
            counts,
            network,
            sizes,
            ..
        } = *params;
        let (seed, memory) = (Seed::new(random_u64()), KernelMemory::for_packets(payer));
        let flows = Flows::new(seed, clock::clock(), sizes.flow_sets);
        let cpus = PerCpu::new(|tables: &mut CpuTables<A, _>| {
            tables.open(counts, sizes, seed, &flows, &memory)
        })?;
        Ok(Arc::new(
            Self {
                network,
                flows,
                cpus,
            },
            GFP_KERNEL_ACCOUNT,
        )?)
    }

    /// Counts a packet. Was there anything to count?
    #[inline]
    pub(crate) fn count(&self, packet: SkBuff<'_>, cpu: &ThisCpu) -> bool {
        self.cpus
            .local(cpu)
            .is_some_and(|own| cpu_tables::count(self, own, packet))
    }

    /// The tables of each CPU.
    pub(crate) fn cpus(&self) -> &PerCpu<CpuTables<A, KernelMemory>> {
        &self.cpus
    }
}

impl<A: Family> AllCpus<A, KernelMemory> for Counted<A> {
    fn all<'a>(&'a self) -> impl Iterator<Item = &'a CpuTables<A, KernelMemory>>
    where
        A: 'a,
    {
        self.cpus.iter().map(|(_, tables)| tables)
    }

    fn network(&self) -> &Network<A> {
        &self.network
    }

    fn flows(&self) -> &Flows {
        &self.flows
    }

    fn now(&self) -> Ticks {
        clock::now()
    }
}
