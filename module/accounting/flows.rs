// SPDX-License-Identifier: GPL-2.0

//! The recent flows. They distinguish the first packet of a flow from those that follow.
//!
//! Every CPU has its own recent flows. It alone writes them, and it searches them first. If they do
//! not contain a flow, the CPU searches those of the other CPUs, because the two directions of a
//! flow can arrive on two CPUs.
//!
//! The flows are kept in a fixed number of sets of four, like the lines of a set-associative cache.
//! The hash of a flow selects its set. If all flows of the set are alive, the one that expires
//! first is replaced, and that is counted.

use super::{
    counters::add_to,
    hash::{Hash, Seed},
    key::Key,
    packet::Header,
    slots::{Backoff, Memory, Slots},
    transport::{Opening, Ports},
};
use crate::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// A point in time, or a duration, in ticks of a monotonic clock that starts above 0.
pub type Ticks = u64;

/// The rate of a clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The number of ticks per second.
    pub ticks_per_second: Ticks,
}

impl Clock {
    /// The lifetime of a flow, in ticks: a packet that comes earlier than this after the last one
    /// belongs to the same flow.
    ///
    /// A TCP SYN within 120 s, inclusive, is a retransmission. A UDP flow expires after 30 s
    /// without a packet and other flows after 600 s: a packet at that moment starts a new flow.
    fn lifetime(self, kind: Kind) -> Ticks {
        match kind {
            Kind::Syn => 120 * self.ticks_per_second + 1,
            Kind::Datagrams => 30 * self.ticks_per_second,
            Kind::Packets => 600 * self.ticks_per_second,
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Syn,
    Datagrams,
    Packets,
}

/// The identity of a flow: a hash of its addresses, its ports, and its sequence or protocol number.
///
/// Two flows with the same hash count as one. A sender who does not know the seed cannot
/// provoke that. The probability is about 2^-62 for each new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    tag: u64,
    set: u32,
    lifetime: Ticks,
}

impl Flow {
    /// The time at which the flow expires if its last packet comes at `now`. Ticks do not reach
    /// 2^64 in practice, so this does not wrap around.
    #[inline]
    fn end(self, now: Ticks) -> Ticks {
        now.wrapping_add(self.lifetime)
    }
}

/// Makes [`Flow`]s from packets. All CPUs of a table must use the same one.
#[derive(Clone, Copy)]
pub struct Flows {
    /// For each [`Kind`], the state with which its hashes start.
    starts: [Hash; 3],
    /// For each [`Kind`], the lifetime of its flows.
    lifetimes: [Ticks; 3],
    /// The number of sets, a power of two, minus one.
    mask: u32,
}

impl Flows {
    /// Flows for [`RecentFlows`] with `sets` sets, rounded up to a power of two, at least 1.
    pub fn new(seed: Seed, clock: Clock, sets: u32) -> Self {
        let kinds = [Kind::Syn, Kind::Datagrams, Kind::Packets];
        Self {
            starts: kinds.map(|kind| seed.hash().word(kind as u64)),
            lifetimes: kinds.map(|kind| clock.lifetime(kind)),
            mask: sets.max(1).next_power_of_two() - 1,
        }
    }

    /// The flow that a packet belongs to. `None` for an ICMP request, each of which is a
    /// connection.
    #[inline]
    pub fn flow<A: Key>(&self, header: &Header<A>, opening: &Opening) -> Option<Flow> {
        let ends = (header.source, header.destination);
        match *opening {
            Opening::Syn { ports, sequence } => Some(self.make(Kind::Syn, ends, ports, sequence)),
            Opening::Datagram { ports } => {
                let swapped = (ends.0, ports.source) > (ends.1, ports.destination);
                let (ends, ports) = if swapped {
                    ((ends.1, ends.0), ports.swapped())
                } else {
                    (ends, ports)
                };
                Some(self.make(Kind::Datagrams, ends, ports, 0))
            }
            Opening::Packet { protocol } => {
                let ends = (ends.0.min(ends.1), ends.0.max(ends.1));
                Some(self.make(
                    Kind::Packets,
                    ends,
                    Ports {
                        source: 0,
                        destination: 0,
                    },
                    protocol.into(),
                ))
            }
            Opening::Request => None,
        }
    }

    #[inline]
    fn make<A: Key>(&self, kind: Kind, ends: (A, A), ports: Ports, number: u32) -> Flow {
        let rest =
            u64::from(number) << 32 | u64::from(ports.source) << 16 | u64::from(ports.destination);
        let hash = A::hash_both(ends, self.starts[kind as usize]).word(rest);
        Flow {
            tag: hash.finish(),
            set: hash.index() & self.mask,
            lifetime: self.lifetimes[kind as usize],
        }
    }

    /// The number of sets in [`RecentFlows`].
    pub fn sets(&self) -> u32 {
        self.mask + 1
    }
}

/// The number of flows in a set: as many as fit in a cache line.
const WAYS: usize = 4;

/// A place for one flow.
#[derive(Debug, Default)]
struct Way {
    tag: AtomicU64,
    /// The time at which the flow expires. 0 if there has been no flow here.
    end: AtomicU64,
}

impl Way {
    /// Returns whether `flow` is here and alive. Any CPU may call this.
    #[inline]
    fn has(&self, flow: Flow, now: Ticks) -> bool {
        // `insert` stores the tag, then the end with Release. This loads the end with Acquire, then
        // the tag: a reader that sees the end of a new flow also sees its tag.
        self.end.load(Acquire) > now && self.tag.load(Relaxed) == flow.tag
    }
}

/// The flows with the same set number, in one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Set([Way; WAYS]);

/// The recent flows of one CPU.
pub struct RecentFlows<M: Memory> {
    /// Other CPUs read these too.
    sets: M::Slots<Set>,
    cold: Cold,
}

/// Fields that change when a flow is replaced. They have a cache line that other CPUs do not read
/// in the packet path.
#[repr(align(64))]
struct Cold {
    backoff: Backoff,
    forgotten: AtomicU64,
}

impl<M: Memory> RecentFlows<M> {
    /// Contains no flow yet. `flows` must be those that make the flows of the packets.
    ///
    /// # Errors
    ///
    /// Returns the error of `memory` if it cannot provide the array of sets.
    pub fn new(flows: &Flows, memory: &M) -> Result<Self, M::Error> {
        let sets = memory.slots(flows.sets())?;
        Ok(Self {
            sets,
            cold: Cold {
                backoff: Backoff::new(memory.backoff()),
                forgotten: AtomicU64::new(0),
            },
        })
    }

    /// Returns whether `flow` is here and alive. Any CPU may call this.
    #[inline]
    pub fn contains(&self, flow: Flow, now: Ticks) -> bool {
        self.sets
            .get(flow.set)
            .is_some_and(|set| set.0.iter().any(|way| way.has(flow, now)))
    }

    /// Stores that a packet of `flow` arrives at `now`, and returns whether it is the first one.
    /// `elsewhere` must return whether another CPU contains the flow. It is called only if this one
    /// does not.
    ///
    /// Must not be called by two contexts at the same time.
    #[inline]
    pub fn is_first(&self, flow: Flow, now: Ticks, elsewhere: impl FnOnce() -> bool) -> bool {
        let known = self
            .sets
            .get(flow.set)
            .and_then(|set| set.0.iter().find(|way| way.has(flow, now)));
        if let Some(way) = known {
            // Release, or other CPUs may see this end with an older tag (see `Way::has`).
            way.end.store(flow.end(now), Release);
            return false;
        }
        let first = !elsewhere();
        self.insert(flow, now);
        first
    }

    #[cold]
    fn insert(&self, flow: Flow, now: Ticks) {
        let make = || self.cold.backoff.attempt(|| self.sets.make(flow.set));
        let Some(set) = self.sets.get(flow.set).or_else(make) else {
            return self.count_forgotten();
        };
        let end = |way: &&Way| way.end.load(Relaxed);
        let Some(way) = set.0.iter().min_by_key(end) else {
            return;
        };
        if end(&way) > now {
            self.count_forgotten();
        }
        way.tag.store(flow.tag, Relaxed);
        way.end.store(flow.end(now), Release);
    }

    fn count_forgotten(&self) {
        add_to(&self.cold.forgotten, 1);
    }

    /// How often a flow was replaced while it was alive, or not stored for lack of memory.
    pub fn forgotten(&self) -> u64 {
        self.cold.forgotten.load(Relaxed)
    }

    /// The bytes of memory that the sets take.
    pub fn memory(&self) -> usize {
        self.sets.memory()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{accounting::packet::Part, host::Heap};

    const CLOCK: Clock = Clock {
        ticks_per_second: 250,
    };
    const NOW: Ticks = 1_000_000;

    fn flows(sets: u32) -> Flows {
        Flows::new(Seed::new(42), CLOCK, sets)
    }

    fn recent(flows: &Flows) -> RecentFlows<Heap> {
        let Ok(recent) = RecentFlows::new(flows, &Heap::ENDLESS);
        recent
    }

    fn header(source: u32, destination: u32) -> Header<u32> {
        Header {
            source,
            destination,
            protocol: 0,
            part: Part::First,
            payload: 20,
        }
    }

    fn syn(source: u16, destination: u16, sequence: u32) -> Opening {
        Opening::Syn {
            ports: Ports {
                source,
                destination,
            },
            sequence,
        }
    }

    fn udp(source: u16, destination: u16) -> Opening {
        Opening::Datagram {
            ports: Ports {
                source,
                destination,
            },
        }
    }

    fn flow(header: Header<u32>, opening: Opening) -> Flow {
        flows(1 << 16).flow(&header, &opening).unwrap()
    }

    #[test]
    fn both_directions_of_udp_and_other_protocols_are_one_flow() {
        assert_eq!(flow(header(1, 2), udp(5, 6)), flow(header(2, 1), udp(6, 5)));
        assert_eq!(flow(header(1, 1), udp(5, 6)), flow(header(1, 1), udp(6, 5)));
        let packet = |protocol| Opening::Packet { protocol };
        assert_eq!(
            flow(header(1, 2), packet(47)),
            flow(header(2, 1), packet(47))
        );
        assert_ne!(flow(header(1, 2), udp(5, 6)), flow(header(1, 2), udp(6, 5)));
        assert_ne!(
            flow(header(1, 2), packet(47)),
            flow(header(1, 2), packet(50))
        );
    }

    #[test]
    fn each_direction_and_sequence_number_of_tcp_is_a_flow() {
        assert_ne!(
            flow(header(1, 2), syn(5, 6, 7)),
            flow(header(2, 1), syn(6, 5, 7))
        );
        assert_ne!(
            flow(header(1, 2), syn(5, 6, 7)),
            flow(header(1, 2), syn(5, 6, 8))
        );
    }

    #[test]
    fn flows_of_different_protocols_differ() {
        let zero = [syn(0, 0, 0), udp(0, 0), Opening::Packet { protocol: 0 }]
            .map(|opening| flow(header(1, 1), opening));
        assert!(
            zero[0].tag != zero[1].tag && zero[1].tag != zero[2].tag && zero[0].tag != zero[2].tag
        );
        assert_eq!(flows(1).flow(&header(1, 2), &Opening::Request), None);
    }

    /// Returns whether a packet that comes `ticks` after the first one starts a new flow.
    fn is_new_after(opening: Opening, ticks: Ticks) -> bool {
        let flows = flows(16);
        let (recent, flow) = (recent(&flows), flows.flow(&header(1, 2), &opening).unwrap());
        assert!(recent.is_first(flow, NOW, || false));
        recent.is_first(flow, NOW + ticks, || false)
    }

    #[test]
    fn flows_expire_at_the_end_of_their_lifetime() {
        let packet = Opening::Packet { protocol: 47 };
        for (opening, seconds) in [(udp(1, 2), 30), (packet, 600)] {
            let end = seconds * CLOCK.ticks_per_second;
            assert!(!is_new_after(opening, 0));
            assert!(!is_new_after(opening, end - 1));
            assert!(is_new_after(opening, end));
        }
        let end = 120 * CLOCK.ticks_per_second;
        assert!(!is_new_after(syn(1, 2, 3), end));
        assert!(is_new_after(syn(1, 2, 3), end + 1));
    }

    #[test]
    fn every_packet_restarts_the_lifetime() {
        let flows = flows(16);
        let recent = recent(&flows);
        let flow = flows.flow(&header(1, 2), &udp(1, 2)).unwrap();
        let step = 29 * CLOCK.ticks_per_second;
        for n in 0..10 {
            assert_eq!(recent.is_first(flow, NOW + n * step, || false), n == 0);
        }
    }

    #[test]
    fn other_cpus_are_searched_for_unknown_flows_only() {
        let flows = flows(16);
        let (here, there) = (recent(&flows), recent(&flows));
        let flow = flows.flow(&header(1, 2), &udp(1, 2)).unwrap();
        assert!(here.is_first(flow, NOW, || there.contains(flow, NOW)));
        assert!(!there.is_first(flow, NOW + 1, || here.contains(flow, NOW + 1)));
        assert!(!there.is_first(flow, NOW + 2, || unreachable!()));
        // A packet there restarts the lifetime for this CPU too.
        let late = NOW + 1 + 29 * CLOCK.ticks_per_second;
        assert!(!there.is_first(flow, late, || unreachable!()));
        let later = NOW + 31 * CLOCK.ticks_per_second;
        assert!(!here.is_first(flow, later, || there.contains(flow, later)));
    }

    #[test]
    fn a_full_set_replaces_the_flow_that_expires_first() {
        let flows = flows(1);
        let recent = recent(&flows);
        let flow = |n| flows.flow(&header(n, 0), &udp(1, 2)).unwrap();
        for n in 0..4 {
            assert!(recent.is_first(flow(n), NOW + u64::from(n), || false));
        }
        assert!(!recent.is_first(flow(0), NOW + 4, || false));
        assert_eq!(recent.forgotten(), 0);
        assert!(recent.is_first(flow(4), NOW + 5, || false));
        assert_eq!(recent.forgotten(), 1);
        assert!(recent.contains(flow(0), NOW + 6) && !recent.contains(flow(1), NOW + 6));
        // Replacing an expired flow is not counted.
        let later = NOW + 60 * CLOCK.ticks_per_second;
        for n in 10..14 {
            assert!(recent.is_first(flow(n), later, || false));
        }
        assert_eq!(recent.forgotten(), 1);
    }

    #[test]
    fn without_memory_every_packet_is_the_first_of_its_flow() {
        let flows = flows(16);
        let Ok(recent) = RecentFlows::new(&flows, &Heap { most: 0 });
        let flow = flows.flow(&header(1, 2), &udp(1, 2)).unwrap();
        assert!(recent.is_first(flow, NOW, || false));
        assert!(recent.is_first(flow, NOW, || false));
        assert_eq!((recent.forgotten(), recent.memory()), (2, 0));
    }
}
