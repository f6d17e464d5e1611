// SPDX-License-Identifier: GPL-2.0

//! The accounting of several CPUs for one table, set up as the module does it in the kernel.

use core::cell::Cell;
use xt_traffic_accounting::{
    accounting::{
        cpu_tables::{self, AllCpus, CpuTables},
        flow::{Clock, Flows, Ticks},
        hash::Seed,
        key::Key,
        network::Network,
        packet::{Family, Packet},
        params::{Counts, Name, Params, Sizes},
        recent_flows::{CpusWithFlows, RecentFlows},
        report::{Form, IPCONN_HEADER, PORTCONN_HEADER, TRAFFIC_HEADER},
        table::{Size, Table},
    },
    host::{Heap, HostText},
};

/// The clock of all tests.
pub const CLOCK: Clock = Clock {
    ticks_per_second: 250,
};

/// The time at which all tests start.
pub const START: Ticks = 1;

/// Everything is counted.
pub const ALL: Counts = Counts {
    traffic: true,
    ipconn: true,
    portconn: true,
};

/// Sizes with room for all rows and flows of a test.
pub const ROOMY: Sizes = Sizes {
    addresses: Size::hashed(1 << 12),
    ports: Sizes::PORTS,
    hash_size: 16,
};

/// Room for all flows of a test.
const FLOWS: u32 = 1 << 15;

/// The parameters of a table.
pub fn params<A>(network: Network<A>, counts: Counts, sizes: Sizes) -> Params<A> {
    let mut name = [0; 32];
    name[0] = b't';
    Params {
        name: Name::from_padded(name).unwrap(),
        counts,
        network,
        sizes,
        clear_on_read: false,
    }
}

/// One named table: its rows and recent flows on all CPUs, at the time of the last packet.
pub struct Accounting<A> {
    now: Cell<Ticks>,
    network: Network<A>,
    flows: Flows,
    with_flows: CpusWithFlows,
    cpus: Vec<CpuTables<A, Heap>>,
}

impl<A: Family> Accounting<A> {
    /// Empty tables on `cpus` CPUs.
    pub fn new(network: Network<A>, counts: Counts, sizes: Sizes, cpus: usize) -> Self {
        Self::with_flows(network, counts, sizes, cpus, FLOWS)
    }

    /// Empty tables that remember at most `limit` flows of each kind.
    pub fn with_flows(
        network: Network<A>,
        counts: Counts,
        sizes: Sizes,
        cpus: usize,
        limit: u32,
    ) -> Self {
        let params = params(network, counts, sizes);
        let seed = Seed::new(0x5eed);
        let flows = Flows::new(seed, CLOCK, limit);
        let tables = |cpu| {
            let tables = CpuTables::new(cpu as u32, &params, seed, &flows, &Heap::ENDLESS).unwrap();
            // The others are as those of CPUs that come online later.
            if cpu % 2 == 1 {
                tables.prepare();
            }
            tables
        };
        Self {
            now: Cell::new(START),
            network,
            flows,
            with_flows: CpusWithFlows::default(),
            cpus: (0..cpus).map(tables).collect(),
        }
    }

    /// Counts a packet that arrives at a CPU. Returns whether anything was counted.
    pub fn count(&self, cpu: usize, now: Ticks, packet: impl Packet) -> bool {
        self.now.set(now);
        cpu_tables::count(self, &self.cpus[cpu], packet)
    }

    /// How often a flow was forgotten before it expired, on all CPUs.
    pub fn forgotten(&self) -> u64 {
        self.recent().map(RecentFlows::forgotten).sum()
    }

    /// The bytes of memory for recent flows, on all CPUs.
    pub fn flow_memory(&self) -> usize {
        self.recent().map(RecentFlows::memory).sum()
    }

    fn recent(&self) -> impl Iterator<Item = &RecentFlows<Heap>> {
        self.cpus.iter().filter_map(CpuTables::recent)
    }

    /// The texts of the files: traffic, ipconn, portconn.
    pub fn texts(&self) -> [Option<String>; 3] {
        let per_address = |header| Form {
            header,
            prefix: self.network.prefix(),
        };
        [
            self.text(per_address(TRAFFIC_HEADER), CpuTables::traffic),
            self.text(per_address(IPCONN_HEADER), CpuTables::ipconn),
            self.text(Form::new(PORTCONN_HEADER), CpuTables::portconn),
        ]
    }

    fn text<K: Key, const PAIRS: usize>(
        &self,
        form: Form,
        table: impl Fn(&CpuTables<A, Heap>) -> Option<&Table<K, PAIRS, Heap>>,
    ) -> Option<String> {
        let tables = self.cpus.iter().map(table).collect::<Option<Vec<_>>>()?;
        Some(HostText::new(tables, form, None).read_all())
    }
}

impl<A> AllCpus<A, Heap> for Accounting<A> {
    fn get(&self, cpu: u32) -> Option<&CpuTables<A, Heap>> {
        self.cpus.get(cpu as usize)
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
        self.now.get()
    }
}

/// A packet of which only the first bytes are in the linear area.
#[derive(Clone, Copy, Debug)]
pub struct Nonlinear<'a> {
    /// The whole packet.
    pub bytes: &'a [u8],
    /// The bytes in the linear area: at least the IP header without options and extension headers.
    pub linear: usize,
}

impl Packet for Nonlinear<'_> {
    fn linear(&self) -> &[u8] {
        &self.bytes[..self.linear.min(self.bytes.len())]
    }

    fn length(&self) -> usize {
        self.bytes.len()
    }

    fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.get(offset..)?.first_chunk().copied()
    }

    /// Claims to be an aggregate if the linear area has an odd length, so that the tests also cover
    /// the function for aggregates. The result must be the same.
    fn is_aggregate(&self) -> bool {
        self.linear % 2 == 1
    }

    fn wire_len(&self, _payload: u16) -> u64 {
        self.bytes.len() as u64
    }
}
