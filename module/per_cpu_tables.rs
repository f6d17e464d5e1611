// SPDX-License-Identifier: GPL-2.0

//! The tables of all CPUs for one name.

use crate::{
    accounting::{
        cpu_tables::{
            self,
            AllCpus,
            CpuTables, //
        },
        flow::{
            Clock,
            Flows,
            Ticks, //
        },
        hash::Seed,
        network::Network,
        packet::Family,
        params::Params,
        recent_flows::CpusWithFlows,
    },
    glue::{
        budget::{
            Budget,
            Reserved, //
        },
        jiffies::{
            hz,
            jiffies, //
        },
        memcg::Memcg,
        packet::SkBuff,
        paged::KernelMemory,
        params as module_params,
        percpu::{
            PerCpu,
            ThisCpu, //
        },
        random::get_random_u64,
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// The tables of all CPUs for one name. The rules with this name share them.
///
/// All CPUs read it for each packet, so it shares no cache line with data that is written.
#[repr(align(64))]
pub(crate) struct PerCpuTables<A: Family> {
    network: Network<A>,
    flows: Flows,
    with_flows: CpusWithFlows,
    cpus: PerCpu<CpuTables<A, KernelMemory>>,
    _reserved: Reserved,
}

impl<A: Family> PerCpuTables<A> {
    /// Makes empty tables. Their memory is charged to `memcg`, and `budget` bounds it.
    #[inline(never)]
    pub(crate) fn new(
        params: &Params<A>,
        memcg: Arc<Memcg>,
        budget: &'static Budget,
    ) -> Result<Arc<Self>> {
        let (reserved, fitted) = budget.reserve(|bytes| {
            let fitted = params.fit(module_params::flow_limit(), bytes);
            (fitted.bytes, fitted)
        });
        let seed = Seed::new(get_random_u64());
        let memory = KernelMemory::for_packets(memcg, budget);
        let clock = Clock {
            ticks_per_second: hz(),
        };
        let flows = Flows::new(seed, clock, fitted.flows);
        let cpus = PerCpu::new(|cpu, tables: &mut CpuTables<A, _>| {
            tables.open(cpu, &fitted.params, seed, &flows, &memory)
        })?;
        let tables = Arc::new(
            Self {
                network: params.network,
                flows,
                with_flows: CpusWithFlows::default(),
                cpus,
                _reserved: reserved,
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        // No packet is counted yet. The packets of a CPU that comes online later make its pages.
        tables.cpus.online().for_each(CpuTables::prepare);
        Ok(tables)
    }

    /// Counts a packet. Returns whether anything was counted.
    #[inline]
    pub(crate) fn count(&self, packet: SkBuff<'_>, cpu: &ThisCpu) -> bool {
        self.cpus
            .local(cpu)
            .is_some_and(|own| cpu_tables::count(self, own, packet))
    }

    /// Returns the tables of each CPU.
    pub(crate) fn cpus(&self) -> &PerCpu<CpuTables<A, KernelMemory>> {
        &self.cpus
    }
}

impl<A: Family> AllCpus<A, KernelMemory> for PerCpuTables<A> {
    #[inline]
    fn get(&self, cpu: u32) -> Option<&CpuTables<A, KernelMemory>> {
        self.cpus.get(cpu)
    }

    fn with_flows(&self) -> &CpusWithFlows {
        &self.with_flows
    }

    fn network(&self) -> &Network<A> {
        &self.network
    }

    fn flows(&self) -> &Flows {
        &self.flows
    }

    fn now(&self) -> Ticks {
        jiffies()
    }
}
