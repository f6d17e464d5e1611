// SPDX-License-Identifier: GPL-2.0

//! The tables of one CPU, and how a packet is counted in them.

use super::{
    age::Periods,
    counters::{byte_column, Direction, BYTE_COLUMNS, CONNECTION_COLUMNS},
    flow::{Flows, Ticks},
    hash::Seed,
    key::{Address, Key},
    network::{Ends, Network},
    packet::{Family, Header, Packet},
    params::Params,
    recent_flows::{CpusWithFlows, RecentFlows},
    slots::Memory,
    table::{Size, Table},
    transport::Opening,
};
use core::ptr;

/// The rows of bytes per address.
pub type Traffic<A, M> = Table<A, BYTE_COLUMNS, M>;
/// The rows of connections per address or per port.
pub type Connections<K, M> = Table<K, CONNECTION_COLUMNS, M>;

/// The part of a named table that one CPU keeps: its rows and its recent flows. What is not counted
/// is `None`.
pub struct CpuTables<A, M: Memory> {
    traffic: Option<Traffic<A, M>>,
    ipconn: Option<Connections<A, M>>,
    portconn: Option<Connections<u16, M>>,
    recent: Option<RecentFlows<M>>,
    path: Path,
}

/// The code that a single packet takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    /// Counts nothing but bytes. Each address has its own row.
    Bytes,
    /// Counts connections, too. Each address has its own row.
    Connections,
    /// Counts bytes, connections or both. Addresses can share a row.
    SharedRows,
}

impl Path {
    fn of<A: Address>(params: &Params<A>) -> Self {
        if params.network.prefix().is_some() {
            Self::SharedRows
        } else if params.counts.connections() {
            Self::Connections
        } else {
            Self::Bytes
        }
    }
}

/// Counts nothing.
impl<A, M: Memory> Default for CpuTables<A, M> {
    fn default() -> Self {
        Self {
            traffic: None,
            ipconn: None,
            portconn: None,
            recent: None,
            path: Path::Bytes,
        }
    }
}

impl<A: Family, M: Memory> CpuTables<A, M> {
    /// Empty tables of `cpu` for what `params` asks for. `flows` must be the same on all CPUs.
    ///
    /// # Errors
    ///
    /// Returns the error of `memory` if it cannot provide the arrays.
    pub fn new(
        cpu: u32,
        params: &Params<A>,
        seed: Seed,
        flows: &Flows,
        memory: &M,
    ) -> Result<Self, M::Error> {
        let mut tables = Self::default();
        tables.open(cpu, params, seed, flows, memory)?;
        Ok(tables)
    }

    /// Adds empty tables for what `params` asks for. Each table is built in its final place in
    /// turn, because all of them together take too much of a kernel stack.
    ///
    /// # Errors
    ///
    /// Returns the error of `memory` if it cannot provide the arrays. Some of the tables may have
    /// been added then.
    pub fn open(
        &mut self,
        cpu: u32,
        params: &Params<A>,
        seed: Seed,
        flows: &Flows,
        memory: &M,
    ) -> Result<(), M::Error> {
        let Params { counts, sizes, .. } = params;
        let periods = flows.periods();
        self.path = Path::of(params);
        if counts.traffic {
            open_table(&mut self.traffic, seed, sizes.addresses, periods, memory)?;
        }
        if counts.ipconn {
            open_table(&mut self.ipconn, seed, sizes.addresses, periods, memory)?;
        }
        if counts.portconn {
            open_table(&mut self.portconn, seed, sizes.ports, periods, memory)?;
        }
        if counts.connections() {
            self.recent = Some(RecentFlows::new(cpu, flows, memory)?);
        }
        Ok(())
    }

    /// Allocates what the first rows and flows need, as far as there is memory. Otherwise another
    /// CPU, which gets a flood of packets, can take all memory before this one gets its first
    /// packet. Then this CPU would count everything in the rows `*`, and no connections.
    ///
    /// Must not be called while a packet is counted in these tables.
    pub fn prepare(&self) {
        if let Some(recent) = &self.recent {
            recent.prepare();
        }
        if let Some(traffic) = &self.traffic {
            traffic.prepare();
        }
        if let Some(ipconn) = &self.ipconn {
            ipconn.prepare();
        }
        if let Some(portconn) = &self.portconn {
            portconn.prepare();
        }
    }

    /// The rows of bytes. `None` if they are not counted.
    pub fn traffic(&self) -> Option<&Traffic<A, M>> {
        self.traffic.as_ref()
    }

    /// The rows of connections per address. `None` if they are not counted.
    pub fn ipconn(&self) -> Option<&Connections<A, M>> {
        self.ipconn.as_ref()
    }

    /// The rows of connections per port. `None` if they are not counted.
    pub fn portconn(&self) -> Option<&Connections<u16, M>> {
        self.portconn.as_ref()
    }

    /// The recent flows. `None` if no connections are counted.
    pub fn recent(&self) -> Option<&RecentFlows<M>> {
        self.recent.as_ref()
    }
}

#[inline(never)]
fn open_table<K: Key, const PAIRS: usize, M: Memory>(
    place: &mut Option<Table<K, PAIRS, M>>,
    seed: Seed,
    size: Size,
    periods: Periods,
    memory: &M,
) -> Result<(), M::Error> {
    *place = Some(Table::new(seed, size, periods, memory)?);
    Ok(())
}

/// The parts of a named table that all CPUs keep, and what they share.
pub trait AllCpus<A, M: Memory> {
    /// The part of a CPU.
    fn get(&self, cpu: u32) -> Option<&CpuTables<A, M>>;

    /// The CPUs whose recent flows are searched.
    fn with_flows(&self) -> &CpusWithFlows;

    /// The network whose addresses are counted.
    fn network(&self) -> &Network<A>;

    /// Makes the flows of packets.
    fn flows(&self) -> &Flows;

    /// The current time.
    fn now(&self) -> Ticks;
}

/// Counts a packet for those of its ends that are counted. `own` is the part of this CPU among
/// `cpus`. Returns whether anything was counted.
///
/// Must not be called by two contexts at the same time for the same `own`.
#[inline]
pub fn count<A: Family, M: Memory>(
    cpus: &impl AllCpus<A, M>,
    own: &CpuTables<A, M>,
    packet: impl Packet,
) -> bool {
    if own.path != Path::Bytes || packet.is_aggregate() {
        return count_all(cpus, own, packet);
    }
    let now = || cpus.now();
    header_and_ends(cpus, packet)
        .is_some_and(|(header, ends)| own.count_bytes(&header, ends, packet.length() as u64, now))
}

/// The header of a packet and the ends that are counted. `None` if there are none.
#[inline(always)]
fn header_and_ends<A: Family, M: Memory>(
    cpus: &impl AllCpus<A, M>,
    packet: impl Packet,
) -> Option<(Header<A>, Ends)> {
    let header = A::header(packet)?;
    let ends = cpus.network().ends(header.source, header.destination)?;
    Some((header, ends))
}

/// Counts bytes and connections, also of aggregates, and also if addresses can share a row.
///
/// Not inlined, so that the path of a single packet whose bytes alone are counted need not save the
/// registers used here.
#[inline(never)]
fn count_all<A: Family, M: Memory>(
    cpus: &impl AllCpus<A, M>,
    own: &CpuTables<A, M>,
    packet: impl Packet,
) -> bool {
    let Some((header, ends)) = header_and_ends(cpus, packet) else {
        return false;
    };
    let length = packet.wire_len(header.payload);
    let bytes = if own.path == Path::SharedRows {
        own.count_shared(cpus.network(), &header, ends, length, cpus.now())
    } else {
        own.count_bytes(&header, ends, length, || cpus.now())
    };
    let Some(recent) = &own.recent else {
        return bytes;
    };
    let Some(opening) = Opening::parse(packet, &header) else {
        return bytes;
    };
    let is_first = match cpus.flows().flow(&header, &opening) {
        Some(flow) => {
            let now = cpus.now();
            recent.is_first(flow, now, |flow, now| {
                // Before it is stored, or another CPU could miss it.
                cpus.with_flows().add(recent);
                let all = |cpu| cpus.get(cpu)?.recent.as_ref();
                let mut others = cpus
                    .with_flows()
                    .iter(all)
                    .filter(|other| !ptr::eq(*other, recent));
                others.any(|other| other.contains(flow, now))
            })
        }
        None => true,
    };
    if is_first {
        let now = cpus.now();
        if own.path == Path::SharedRows {
            own.add_shared_connection(cpus.network(), &header, &opening, ends, now);
        } else {
            own.add_connection(&header, &opening, ends, now);
        }
    }
    bytes | is_first
}

/// A header with the keys of the ends' rows in place of the addresses.
#[inline]
fn rows<A: Address>(network: &Network<A>, header: &Header<A>) -> Header<A> {
    Header {
        source: network.key(header.source),
        destination: network.key(header.destination),
        ..*header
    }
}

impl<A: Family, M: Memory> CpuTables<A, M> {
    #[inline(always)]
    fn count_bytes(
        &self,
        header: &Header<A>,
        ends: Ends,
        bytes: u64,
        now: impl Fn() -> Ticks,
    ) -> bool {
        let Some(traffic) = &self.traffic else {
            return false;
        };
        traffic.add_at(
            ends,
            header.source,
            header.destination,
            byte_column(header.protocol),
            bytes,
            now,
        );
        true
    }

    /// Counts bytes in the rows of networks. Not inlined, so that tables without `--prefix` pay for
    /// no more than the check that selects it.
    #[cold]
    #[inline(never)]
    fn count_shared(
        &self,
        network: &Network<A>,
        header: &Header<A>,
        ends: Ends,
        bytes: u64,
        now: Ticks,
    ) -> bool {
        self.count_bytes(&rows(network, header), ends, bytes, || now)
    }

    /// Counts a connection in the rows of networks.
    #[cold]
    #[inline(never)]
    fn add_shared_connection(
        &self,
        network: &Network<A>,
        header: &Header<A>,
        opening: &Opening,
        ends: Ends,
        now: Ticks,
    ) {
        self.add_connection(&rows(network, header), opening, ends, now);
    }

    #[cold]
    fn add_connection(&self, header: &Header<A>, opening: &Opening, ends: Ends, now: Ticks) {
        let (column, port) = (opening.protocol().connection_column(), opening.port());
        let initiator = ends.source().then_some((header.source, Direction::Out));
        let target = ends
            .destination()
            .then_some((header.destination, Direction::In));
        for (address, direction) in [initiator, target].into_iter().flatten() {
            if let Some(ipconn) = &self.ipconn {
                ipconn.add(address, column, direction, 1, now);
            }
            if let Some(portconn) = &self.portconn {
                portconn.add(port, column, direction, 1, now);
            }
        }
    }
}
