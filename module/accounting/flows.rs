// SPDX-License-Identifier: GPL-2.0

//! The memory of recent flows, by which a first packet is told from those that follow.
//!
//! Every CPU has its own, which it alone writes, and where it looks first. Only when it doesn't know
//! a flow it looks into those of the others: the two directions of a flow can arrive on two CPUs.
//!
//! A memory has a fixed number of sets of four flows. A flow can only be in one set; when that is
//! full of flows that live, the one that would die first is forgotten, and counted.

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

/// A point in time, in ticks of a clock that starts above 0 and goes on evenly.
pub type Ticks = u64;

/// Ticks in a second.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// How many there are.
    pub ticks_per_second: Ticks,
}

impl Clock {
    /// How long after a packet another one still belongs to the same flow.
    ///
    /// A SYN segment is a repetition if it comes within 120 s, the last moment included. A UDP flow
    /// is over after 30 s of silence, others after 600 s: the last moment begins a new one.
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

/// What identifies a flow: a hash over all of its addresses, ports and numbers.
///
/// Two flows with the same hash would be taken for one. With a secret seed that is
/// a matter of chance, at odds of about 2^-62 for each new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    tag: u64,
    set: u32,
    lifetime: Ticks,
}

impl Flow {
    /// When it is over if nothing comes after `now`. Time is too short to wrap around.
    #[inline]
    fn end(self, now: Ticks) -> Ticks {
        now.wrapping_add(self.lifetime)
    }
}

/// Makes [`Flow`]s: all CPUs of a table have to agree about them.
#[derive(Clone, Copy)]
pub struct Flows {
    /// What the hashes of each [`Kind`] begin with.
    starts: [Hash; 3],
    lifetimes: [Ticks; 3],
    /// How many sets there are, less one; their number is a power of two.
    mask: u32,
}

impl Flows {
    /// Flows for memories with `sets` sets, rounded up to a power of two.
    pub fn new(seed: Seed, clock: Clock, sets: u32) -> Self {
        let kinds = [Kind::Syn, Kind::Datagrams, Kind::Packets];
        Self {
            starts: kinds.map(|kind| seed.hash().word(kind as u64)),
            lifetimes: kinds.map(|kind| clock.lifetime(kind)),
            mask: sets.max(1).next_power_of_two() - 1,
        }
    }

    /// The flow that a packet belongs to; none for ICMP requests, which are connections of their own.
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

    /// How many sets a memory of these flows needs.
    pub fn sets(&self) -> u32 {
        self.mask + 1
    }
}

/// Flows in a set: as many as fit in a cache line.
const WAYS: usize = 4;

#[derive(Debug, Default)]
struct Way {
    tag: AtomicU64,
    /// The moment from which on the flow is over.
    end: AtomicU64,
}

impl Way {
    /// Is this flow here, and alive? Any CPU may ask.
    #[inline]
    fn has(&self, flow: Flow, now: Ticks) -> bool {
        // In this order, the opposite of `remember`'s: who sees the end of the flow that has replaced
        // ours sees its tag, too.
        self.end.load(Acquire) > now && self.tag.load(Relaxed) == flow.tag
    }
}

/// The flows that can be found in one place.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Set([Way; WAYS]);

/// The memory of one CPU.
pub struct RecentFlows<M: Memory> {
    /// What other CPUs read.
    sets: M::Slots<Set>,
    cold: Cold,
}

/// What changes when a flow is forgotten, in a cache line that others have no use for.
#[repr(align(64))]
struct Cold {
    backoff: Backoff,
    forgotten: AtomicU64,
}

impl<M: Memory> RecentFlows<M> {
    /// A memory of nothing.
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

    /// Is the flow alive here? Any CPU may ask.
    #[inline]
    pub fn contains(&self, flow: Flow, now: Ticks) -> bool {
        self.sets
            .get(flow.set)
            .is_some_and(|set| set.0.iter().any(|way| way.has(flow, now)))
    }

    /// A packet of this flow is here: is it the first? `elsewhere` says whether another CPU knows
    /// the flow, and is only asked when this one doesn't.
    ///
    /// One context at a time calls this.
    #[inline]
    pub fn is_first(&self, flow: Flow, now: Ticks, elsewhere: impl FnOnce() -> bool) -> bool {
        let known = self
            .sets
            .get(flow.set)
            .and_then(|set| set.0.iter().find(|way| way.has(flow, now)));
        if let Some(way) = known {
            // Not Relaxed, or others might see this end together with an older tag (see `Way::has`).
            way.end.store(flow.end(now), Release);
            return false;
        }
        let first = !elsewhere();
        self.remember(flow, now);
        first
    }

    #[cold]
    fn remember(&self, flow: Flow, now: Ticks) {
        let make = || self.cold.backoff.attempt(|| self.sets.make(flow.set));
        let Some(set) = self.sets.get(flow.set).or_else(make) else {
            return self.forget();
        };
        let end = |way: &&Way| way.end.load(Relaxed);
        let Some(way) = set.0.iter().min_by_key(end) else {
            return;
        };
        if end(&way) > now {
            self.forget();
        }
        way.tag.store(flow.tag, Relaxed);
        way.end.store(flow.end(now), Release);
    }

    fn forget(&self) {
        add_to(&self.cold.forgotten, 1);
    }

    /// How often a flow was forgotten while it was alive, or not remembered for want of memory.
    pub fn forgotten(&self) -> u64 {
        self.cold.forgotten.load(Relaxed)
    }

    /// Bytes of memory that it takes.
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
    fn both_directions_of_datagrams_and_packets_are_one_flow() {
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
    fn each_direction_of_segments_is_a_flow() {
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
    fn kinds_are_told_apart() {
        let zero = [syn(0, 0, 0), udp(0, 0), Opening::Packet { protocol: 0 }]
            .map(|opening| flow(header(1, 1), opening));
        assert!(
            zero[0].tag != zero[1].tag && zero[1].tag != zero[2].tag && zero[0].tag != zero[2].tag
        );
        assert_eq!(flows(1).flow(&header(1, 2), &Opening::Request), None);
    }

    /// Is a packet that comes so many ticks after the first one a first one again?
    fn again_after(opening: Opening, ticks: Ticks) -> bool {
        let flows = flows(16);
        let (recent, flow) = (recent(&flows), flows.flow(&header(1, 2), &opening).unwrap());
        assert!(recent.is_first(flow, NOW, || false));
        recent.is_first(flow, NOW + ticks, || false)
    }

    #[test]
    fn lifetimes() {
        let packet = Opening::Packet { protocol: 47 };
        for (opening, seconds) in [(udp(1, 2), 30), (packet, 600)] {
            let end = seconds * CLOCK.ticks_per_second;
            assert!(!again_after(opening, 0));
            assert!(!again_after(opening, end - 1));
            assert!(again_after(opening, end));
        }
        let end = 120 * CLOCK.ticks_per_second;
        assert!(!again_after(syn(1, 2, 3), end));
        assert!(again_after(syn(1, 2, 3), end + 1));
    }

    #[test]
    fn every_packet_prolongs_the_flow() {
        let flows = flows(16);
        let recent = recent(&flows);
        let flow = flows.flow(&header(1, 2), &udp(1, 2)).unwrap();
        let step = 29 * CLOCK.ticks_per_second;
        for n in 0..10 {
            assert_eq!(recent.is_first(flow, NOW + n * step, || false), n == 0);
        }
    }

    #[test]
    fn other_cpus_are_asked_about_unknown_flows_only() {
        let flows = flows(16);
        let (here, there) = (recent(&flows), recent(&flows));
        let flow = flows.flow(&header(1, 2), &udp(1, 2)).unwrap();
        assert!(here.is_first(flow, NOW, || there.contains(flow, NOW)));
        assert!(!there.is_first(flow, NOW + 1, || here.contains(flow, NOW + 1)));
        assert!(!there.is_first(flow, NOW + 2, || unreachable!()));
        // What keeps it alive there counts here, too.
        let late = NOW + 1 + 29 * CLOCK.ticks_per_second;
        assert!(!there.is_first(flow, late, || unreachable!()));
        let later = NOW + 31 * CLOCK.ticks_per_second;
        assert!(!here.is_first(flow, later, || there.contains(flow, later)));
    }

    #[test]
    fn a_full_set_forgets_the_flow_that_would_die_first() {
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
        // Dead flows make place without being missed.
        let later = NOW + 60 * CLOCK.ticks_per_second;
        for n in 10..14 {
            assert!(recent.is_first(flow(n), later, || false));
        }
        assert_eq!(recent.forgotten(), 1);
    }

    #[test]
    fn without_memory_every_packet_is_a_first_one() {
        let flows = flows(16);
        let Ok(recent) = RecentFlows::new(&flows, &Heap { most: 0 });
        let flow = flows.flow(&header(1, 2), &udp(1, 2)).unwrap();
        assert!(recent.is_first(flow, NOW, || false));
        assert!(recent.is_first(flow, NOW, || false));
        assert_eq!((recent.forgotten(), recent.memory()), (2, 0));
    }
}
