// SPDX-License-Identifier: GPL-2.0

//! What the rules of one name count together.

use crate::{
    accounting::{
        flows::Flows,
        hash::Seed,
        ledger::{Clerk, Ledger},
        network::Network,
        packet::{Family, Header},
        params::Params,
    },
    glue::{clock, memcg::Memcg, packet::SkBuff, paged::KernelMemory, percpu::PerCpu, random::random_u64},
};
use kernel::{prelude::*, sync::Arc};

/// The ledgers of all CPUs for one network.
pub(crate) struct Counted<A: Family> {
    network: Network<A>,
    flows: Flows,
    cpus: PerCpu<Ledger<A, KernelMemory>>,
}

impl<A: Family> Counted<A> {
    /// Empty ledgers, the memory of which `payer` pays.
    #[inline(never)]
    pub(crate) fn new(params: &Params<A>, payer: Arc<Memcg>) -> Result<Arc<Self>> {
        let Params { counts, network, sizes, .. } = *params;
        let (seed, memory) = (Seed::new(random_u64()), KernelMemory::for_packets(payer));
        let flows = Flows::new(seed, clock::clock(), sizes.flow_sets);
        let cpus = PerCpu::new(|ledger: &mut Ledger<A, _>| ledger.open(counts, sizes, seed, &flows, &memory))?;
        Ok(Arc::new(Self { network, flows, cpus }, GFP_KERNEL_ACCOUNT)?)
    }

    /// Counts a packet. Was there anything to count?
    #[inline]
    pub(crate) fn count(&self, packet: &SkBuff<'_>, header: &Header<A>) -> bool {
        let Some(ends) = self.network.ends(header.source, header.destination) else {
            return false;
        };
        let now = clock::now();
        let counted = self.cpus.with_local(|cpu, ledger| {
            let others = || self.cpus.iter().filter(|(other, _)| *other != cpu);
            let elsewhere = |flow| others().any(|(_, ledger)| ledger.knows(flow, now));
            Clerk { ledger, flows: &self.flows, now, elsewhere }.count(packet, header, ends)
        });
        counted.unwrap_or(false)
    }

    /// The ledgers.
    pub(crate) fn cpus(&self) -> &PerCpu<Ledger<A, KernelMemory>> {
        &self.cpus
    }
}
