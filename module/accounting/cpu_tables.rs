// SPDX-License-Identifier: GPL-2.0

//! What one CPU counts for a table.

use super::{
    counters::{byte_column, Direction, BYTE_COLUMNS, CONNECTION_COLUMNS},
    flows::{Flow, Flows, RecentFlows, Ticks},
    hash::Seed,
    key::Key,
    network::{Ends, Network},
    packet::{Family, Header, Packet},
    params::{Counts, Sizes},
    slots::Memory,
    table::{Size, Table},
    transport::Opening,
};
use core::ptr;

/// Bytes per address.
pub type Traffic<A, M> = Table<A, BYTE_COLUMNS, M>;
/// Connections per address or per port.
pub type Connections<K, M> = Table<K, CONNECTION_COLUMNS, M>;

/// Rows of ports: there are no more ports than that.
pub const PORTS: Size = Size::hashed(1 << 16, 1 << 8);

/// What one CPU counts for a table.
pub struct CpuTables<A, M: Memory> {
    traffic: Option<Traffic<A, M>>,
    ipconn: Option<Connections<A, M>>,
    portconn: Option<Connections<u16, M>>,
    recent: Option<RecentFlows<M>>,
}

/// A tables of nothing.
impl<A, M: Memory> Default for CpuTables<A, M> {
    fn default() -> Self {
        Self {
            traffic: None,
            ipconn: None,
            portconn: None,
            recent: None,
        }
    }
}

impl<A: Family, M: Memory> CpuTables<A, M> {
    /// An empty one for what is to be counted. `flows` are those of the table.
    pub fn new(
        counts: Counts,
        sizes: Sizes,
        seed: Seed,
        flows: &Flows,
        memory: &M,
    ) -> Result<Self, M::Error> {
        let mut tables = Self::default();
        tables.open(counts, sizes, seed, flows, memory)?;
        Ok(tables)
    }

    /// Opens a tables of nothing for what is to be counted. The parts are made one after the other where they
    /// are to be: all of them at once on the stack would be much for a kernel.
    pub fn open(
        &mut self,
        counts: Counts,
        sizes: Sizes,
        seed: Seed,
        flows: &Flows,
        memory: &M,
    ) -> Result<(), M::Error> {
        if counts.traffic {
            open_table(&mut self.traffic, seed, sizes.addresses, memory)?;
        }
        if counts.ipconn {
            open_table(&mut self.ipconn, seed, sizes.addresses, memory)?;
        }
        if counts.portconn {
            open_table(&mut self.portconn, seed, PORTS, memory)?;
        }
        if counts.connections() {
            self.recent = Some(RecentFlows::new(flows, memory)?);
        }
        Ok(())
    }

    /// The rows of bytes, if they are counted.
    pub fn traffic(&self) -> Option<&Traffic<A, M>> {
        self.traffic.as_ref()
    }

    /// The rows of connections per address, if they are counted.
    pub fn ipconn(&self) -> Option<&Connections<A, M>> {
        self.ipconn.as_ref()
    }

    /// The rows of connections per port, if they are counted.
    pub fn portconn(&self) -> Option<&Connections<u16, M>> {
        self.portconn.as_ref()
    }

    /// The memory of recent flows, if connections are counted.
    pub fn recent(&self) -> Option<&RecentFlows<M>> {
        self.recent.as_ref()
    }

    /// Does this CPU know the flow? Any CPU may ask.
    pub fn contains(&self, flow: Flow, now: Ticks) -> bool {
        self.recent
            .as_ref()
            .is_some_and(|recent| recent.contains(flow, now))
    }
}

#[inline(never)]
fn open_table<K: Key, const PAIRS: usize, M: Memory>(
    place: &mut Option<Table<K, PAIRS, M>>,
    seed: Seed,
    size: Size,
    memory: &M,
) -> Result<(), M::Error> {
    *place = Some(Table::new(seed, size, memory)?);
    Ok(())
}

/// The cpus of all CPUs for one table, and what they agree about.
pub trait AllCpus<A, M: Memory> {
    /// All of them.
    fn all<'a>(&'a self) -> impl Iterator<Item = &'a CpuTables<A, M>>
    where
        A: 'a,
        M: 'a;

    /// The network that the table is for.
    fn network(&self) -> &Network<A>;

    /// The flows of the table.
    fn flows(&self) -> &Flows;

    /// What time it is.
    fn now(&self) -> Ticks;
}

/// Counts a packet in `own`, this CPU's one of `cpus`, at those of its ends that are to be counted. Was there
/// anything to count?
///
/// One context at a time calls this for one tables.
#[inline]
pub fn count<A: Family, M: Memory>(
    cpus: &impl AllCpus<A, M>,
    own: &CpuTables<A, M>,
    packet: impl Packet,
) -> bool {
    if own.recent.is_some() || packet.is_aggregate() {
        return count_all(cpus, own, packet);
    }
    header_and_ends(cpus, packet)
        .is_some_and(|(header, ends)| own.count_bytes(&header, ends, packet.length() as u64))
}

/// The header of a packet and which of its ends are counted, if any.
#[inline(always)]
fn header_and_ends<A: Family, M: Memory>(
    cpus: &impl AllCpus<A, M>,
    packet: impl Packet,
) -> Option<(Header<A>, Ends)> {
    let header = A::header(packet)?;
    let ends = cpus.network().ends(header.source, header.destination)?;
    Some((header, ends))
}

/// Counts whatever there is to count.
///
/// Not inlined: a packet on its own, of which bytes alone are counted, need not pay for the registers that this takes.
#[inline(never)]
fn count_all<A: Family, M: Memory>(
    cpus: &impl AllCpus<A, M>,
    own: &CpuTables<A, M>,
    packet: impl Packet,
) -> bool {
    let Some((header, ends)) = header_and_ends(cpus, packet) else {
        return false;
    };
    let bytes = own.count_bytes(&header, ends, packet.wire_len(header.payload));
    let Some(recent) = &own.recent else {
        return bytes;
    };
    let Some(opening) = Opening::of(packet, &header) else {
        return bytes;
    };
    let is_first = match cpus.flows().flow(&header, &opening) {
        Some(flow) => {
            let now = cpus.now();
            let mut others = cpus.all().filter(|other| !ptr::eq(*other, own));
            recent.is_first(flow, now, || others.any(|other| other.contains(flow, now)))
        }
        None => true,
    };
    if is_first {
        own.add_connection(&header, &opening, ends);
    }
    bytes | is_first
}

impl<A: Family, M: Memory> CpuTables<A, M> {
    #[inline(always)]
    fn count_bytes(&self, header: &Header<A>, ends: Ends, bytes: u64) -> bool {
        let Some(traffic) = &self.traffic else {
            return false;
        };
        traffic.add_at(
            ends,
            header.source,
            header.destination,
            byte_column(header.protocol),
            bytes,
        );
        true
    }

    #[cold]
    fn add_connection(&self, header: &Header<A>, opening: &Opening, ends: Ends) {
        let (column, port) = (opening.protocol().connection_column(), opening.port());
        let initiator = ends.source().then_some((header.source, Direction::Out));
        let target = ends
            .destination()
            .then_some((header.destination, Direction::In));
        for (address, direction) in [initiator, target].into_iter().flatten() {
            if let Some(ipconn) = &self.ipconn {
                ipconn.add(address, column, direction, 1);
            }
            if let Some(portconn) = &self.portconn {
                portconn.add(port, column, direction, 1);
            }
        }
    }
}
