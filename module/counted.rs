// SPDX-License-Identifier: GPL-2.0

//! What the rules of one name count together.

use crate::{
    accounting::{
        flows::{Flows, Ticks},
        hash::Seed,
        ledger::{self, Ledger, Ledgers},
        network::Network,
        packet::Family,
        params::Params,
    },
    glue::{
        clock,
        memcg::Memcg,
        packet::SkBuff,
        paged::KernelMemory,
        percpu::{BottomHalves, PerCpu},
        random::random_u64,
    },
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
    pub(crate) fn count(&self, packet: &SkBuff<'_>, bottom_halves: BottomHalves) -> bool {
        // The ledger first: what is known of the packet need not be kept during a call then.
        let count = |own: &_| {
            let header = A::header(packet)?;
            let ends = self.network.ends(header.source, header.destination)?;
            Some(ledger::count(self, own, packet, header, ends))
        };
        self.cpus.with_local(bottom_halves, count).flatten().unwrap_or(false)
    }

    /// The ledgers.
    pub(crate) fn cpus(&self) -> &PerCpu<Ledger<A, KernelMemory>> {
        &self.cpus
    }
}

impl<A: Family> Ledgers<A, KernelMemory> for Counted<A> {
    fn all<'a>(&'a self) -> impl Iterator<Item = &'a Ledger<A, KernelMemory>>
    where
        A: 'a,
    {
        self.cpus.iter().map(|(_, ledger)| ledger)
    }

    fn flows(&self) -> &Flows {
        &self.flows
    }

    fn now(&self) -> Ticks {
        clock::now()
    }
}
