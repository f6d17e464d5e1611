// SPDX-License-Identifier: GPL-2.0

//! The recent flows. They distinguish the first packet of a flow from those that follow.
//!
//! Every CPU has its own recent flows. It alone writes them, and it searches them first. If they do
//! not contain a flow, the CPU searches those of the other CPUs that have any, because the two
//! directions of a flow can arrive on two CPUs.
//!
//! Each kind of flow has an array of its own, so flows of one kind never replace those of another.
//! An array consists of sets of four flows, like the lines of a set-associative cache. The hash of
//! a flow selects two sets, and the flow is in one of them. With two choices hardly any set is full
//! while there is room in others (<https://doi.org/10.1109/71.963420>).
//!
//! An array starts with one page of sets. When two sets have no room for a new flow, more sets are
//! added by linear hashing (<https://en.wikipedia.org/wiki/Linear_hashing>), up to a limit. At the
//! limit, or without memory, the new flow replaces a living one, and that is counted.

use super::{
    age::Periods,
    counters::add_to,
    hash::{Hash, Seed},
    key::Key,
    packet::Header,
    slots::{Backoff, Memory, Slots},
    transport::{Opening, Ports},
};
use crate::atomic::{
    fence, size, AtomicBool, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use core::ptr;

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

/// What a flow consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A TCP SYN and its retransmissions.
    Syn,
    /// The UDP datagrams between two endpoints.
    Datagrams,
    /// The packets of another protocol between two addresses.
    Packets,
}

/// The number of kinds.
const KINDS: usize = 3;

/// The identity of a flow: a hash of its addresses, its ports, and its sequence or protocol number.
///
/// Two flows with the same hash count as one. A sender who does not know the seed cannot
/// provoke that. The probability is about 2^-62 for each new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    kind: Kind,
    tag: u64,
    /// What selects its first set.
    first: u32,
    lifetime: Ticks,
}

impl Flow {
    /// What is stored in [`Way::end`] if the last packet of the flow comes at `now`. Ticks do not
    /// reach 2^63 in practice, so this does not wrap around.
    #[inline]
    fn end(self, now: Ticks) -> u64 {
        now.wrapping_add(self.lifetime) << 1
    }
}

/// Makes [`Flow`]s from packets. All CPUs of a table must use the same one.
#[derive(Clone, Copy)]
pub struct Flows {
    seed: Seed,
    /// For each [`Kind`], the state with which its hashes start.
    starts: [Hash; KINDS],
    /// For each [`Kind`], the lifetime of its flows.
    lifetimes: [Ticks; KINDS],
    /// The largest number of sets of each [`Kind`].
    limit: u32,
    clock: Clock,
}

impl Flows {
    /// Flows for [`RecentFlows`] with room for `limit` flows of each kind.
    pub fn new(seed: Seed, clock: Clock, limit: u32) -> Self {
        let kinds = [Kind::Syn, Kind::Datagrams, Kind::Packets];
        Self {
            seed,
            starts: kinds.map(|kind| seed.hash().word(kind as u64)),
            lifetimes: kinds.map(|kind| clock.lifetime(kind)),
            limit: limit
                .saturating_mul(SETS_PER_EIGHT_FLOWS)
                .div_ceil(8)
                .max(1),
            clock,
        }
    }

    /// The periods of the clock, for the ages of rows.
    pub fn periods(&self) -> Periods {
        Periods::new(self.clock.ticks_per_second)
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
            kind,
            tag: hash.finish(),
            first: hash.index(),
            lifetime: self.lifetimes[kind as usize],
        }
    }
}

/// The number of flows in a set: as many as fit in a cache line.
const WAYS: usize = size(4, 2) as usize;
/// Eight flows have this number of sets when an array is at its limit. With two choices, sets that
/// are filled to two thirds rarely replace a living flow.
const SETS_PER_EIGHT_FLOWS: u32 = 3;
/// The largest number of bytes that a flow takes, if the array is at its limit.
pub const BYTES_PER_FLOW: u64 = (size_of::<Set>() as u64 * SETS_PER_EIGHT_FLOWS as u64) / 8;
/// The number of sets that an array starts with: one page.
const INITIAL_SETS: u32 = size(64, 1);
/// If the first set of a new flow is full, and the second has no more than this number of places
/// left, sets are added. So most flows are in their first set, where they are found faster.
const SCARCE: usize = 1;
/// The number of sets that are added at once.
const GROWTH: u32 = 8;

/// A place for one flow.
#[derive(Debug, Default)]
struct Way {
    tag: AtomicU64,
    /// The time at which the flow expires, times two, plus one if it had a second packet. 0 if
    /// there is no flow here.
    end: AtomicU64,
}

impl Way {
    /// Returns whether the flow with this tag is here and alive. Any CPU may call this.
    #[inline]
    fn has(&self, tag: u64, now: Ticks) -> bool {
        // `put` stores the tag, then the end with Release. This loads the end with Acquire, then
        // the tag again: a reader that sees the end of a new flow also sees its tag.
        self.tag.load(Relaxed) == tag && self.is_alive(now) && self.tag.load(Relaxed) == tag
    }

    #[inline]
    fn is_alive(&self, now: Ticks) -> bool {
        self.end.load(Acquire) > (now << 1 | 1)
    }

    fn put(&self, tag: u64, end: u64) {
        // Release, so that a search that sees this tag also sees the move of the flow that was here
        // (see `Array::contains`).
        self.tag.store(tag, Release);
        self.end.store(end, Release);
    }

    /// Stores that another packet of `flow`, which is here, arrives at `now`.
    #[inline]
    fn renew(&self, flow: Flow, now: Ticks) {
        // Release, or other CPUs may see this end with an older tag (see `has`).
        self.end.store(flow.end(now) | 1, Release);
    }

    fn copy(&self, from: &Self) {
        self.put(from.tag.load(Relaxed), from.end.load(Relaxed));
    }

    /// Release, so that a CPU that sees this also sees all stores before.
    fn clear(&self) {
        self.end.store(0, Release);
    }

    /// The order in which flows are replaced: expired ones, then those with one packet, then the
    /// others, of which that one is first which expires first.
    fn rank(&self, now: Ticks) -> (bool, u64) {
        let end = self.end.load(Relaxed);
        (self.is_alive(now) && end & 1 != 0, end)
    }
}

/// The flows of one set, in one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Set([Way; WAYS]);

impl Set {
    #[inline]
    fn find(&self, tag: u64, now: Ticks) -> Option<&Way> {
        self.0.iter().find(|way| way.has(tag, now))
    }

    /// The number of places without a living flow.
    fn room(&self, now: Ticks) -> usize {
        self.0.iter().filter(|way| !way.is_alive(now)).count()
    }
}

/// The recent flows of one CPU.
pub struct RecentFlows<M: Memory> {
    kinds: [Array<M>; KINDS],
    /// The number of this CPU.
    cpu: u32,
    /// The number of the next CPU in [`CpusWithFlows`] plus one, or 0 at the end.
    next: AtomicU32,
    /// Whether this CPU is in [`CpusWithFlows`]. Only this CPU reads it.
    is_listed: AtomicBool,
}

/// A list of the CPUs that have recent flows. A CPU that has seen no traffic is not in it, so
/// nobody searches its flows.
#[derive(Debug, Default)]
pub struct CpusWithFlows {
    /// The number of the first CPU plus one, or 0 if there is none.
    first: AtomicU32,
}

impl CpusWithFlows {
    /// Adds the CPU of `flows`, unless it is listed already. CPUs may call this at the same time.
    #[inline]
    pub fn add<M: Memory>(&self, flows: &RecentFlows<M>) {
        if !flows.is_listed.load(Relaxed) {
            self.insert(flows);
        }
    }

    #[cold]
    #[inline(never)]
    fn insert<M: Memory>(&self, flows: &RecentFlows<M>) {
        let new = flows.cpu.wrapping_add(1);
        flows.is_listed.store(true, Relaxed);
        let mut first = self.first.load(Relaxed);
        loop {
            flows.next.store(first, Relaxed);
            // Release: whoever finds this CPU also sees its `next`.
            match self.first.compare_exchange(first, new, Release, Relaxed) {
                Ok(_) => return,
                Err(other) => first = other,
            }
        }
    }

    /// The flows of all CPUs in the list. `flows` must return those of a CPU.
    pub fn iter<'a, M: Memory + 'a>(
        &self,
        flows: impl Fn(u32) -> Option<&'a RecentFlows<M>>,
    ) -> impl Iterator<Item = &'a RecentFlows<M>> {
        let mut link = self.first.load(Acquire);
        core::iter::from_fn(move || {
            let found = flows(link.checked_sub(1)?)?;
            link = found.next.load(Relaxed);
            Some(found)
        })
    }
}

impl<M: Memory> RecentFlows<M> {
    /// The flows of `cpu`: none yet. `flows` must be those that make the flows of the packets.
    ///
    /// # Errors
    ///
    /// Returns the error of `memory` if it cannot provide the arrays of sets.
    pub fn new(cpu: u32, flows: &Flows, memory: &M) -> Result<Self, M::Error> {
        let array = || Array::new(flows, memory);
        Ok(Self {
            kinds: [array()?, array()?, array()?],
            cpu,
            next: AtomicU32::new(0),
            is_listed: AtomicBool::new(false),
        })
    }

    /// Allocates what the first flows of each kind need, as far as there is memory.
    ///
    /// Must not be called while another context stores flows.
    pub fn prepare(&self) {
        for array in &self.kinds {
            // A failure must not delay the attempts of packets, so this does not use the back-off.
            array.sets.make(0);
        }
    }

    /// Returns whether `flow` is here and alive. Any CPU may call this.
    #[inline]
    pub fn contains(&self, flow: Flow, now: Ticks) -> bool {
        self.kinds[flow.kind as usize].contains(flow, now)
    }

    /// Stores that a packet of `flow` arrives at `now`, and returns whether it is the first one.
    /// `elsewhere` must return whether another CPU contains the flow. It is called only if this one
    /// does not. Without memory for the flow, its packet is not the first one.
    ///
    /// Must not be called by two contexts at the same time.
    // `elsewhere` gets the flow, so that it does not refer to it: the flow stays in registers.
    #[inline(always)]
    pub fn is_first(
        &self,
        flow: Flow,
        now: Ticks,
        elsewhere: impl FnOnce(Flow, Ticks) -> bool,
    ) -> bool {
        let array = &self.kinds[flow.kind as usize];
        let Some(way) = array.find_in_set(flow.first, flow.tag, now) else {
            return self.is_first_of_unknown(flow, now, elsewhere);
        };
        way.renew(flow, now);
        false
    }

    /// As [`is_first`](Self::is_first), for a flow that is not in its first set.
    #[cold]
    #[inline(never)]
    fn is_first_of_unknown(
        &self,
        flow: Flow,
        now: Ticks,
        elsewhere: impl FnOnce(Flow, Ticks) -> bool,
    ) -> bool {
        let array = &self.kinds[flow.kind as usize];
        if let Some(way) = array.find_in_set(array.second(flow), flow.tag, now) {
            way.renew(flow, now);
            return false;
        }
        let first = !elsewhere(flow, now);
        array.insert(flow, now) && first
    }

    /// How often a flow was replaced while it was alive.
    pub fn forgotten(&self) -> u64 {
        self.sum(|array| array.cold.forgotten.load(Relaxed))
    }

    /// How often a flow was not stored for lack of memory.
    pub fn unremembered(&self) -> u64 {
        self.sum(|array| array.cold.unremembered.load(Relaxed))
    }

    /// The bytes of memory that the sets take.
    pub fn memory(&self) -> usize {
        self.kinds.iter().map(|array| array.sets.memory()).sum()
    }

    fn sum(&self, number: impl Fn(&Array<M>) -> u64) -> u64 {
        self.kinds.iter().map(number).sum()
    }
}

/// The recent flows of one kind.
struct Array<M: Memory> {
    seed: Seed,
    /// Other CPUs read these too.
    sets: M::Slots<Set>,
    /// The [`Shape`], packed.
    shape: AtomicU64,
    /// The largest number of sets.
    limit: u32,
    /// It changes after flows were copied to other sets, and before they are removed from the old
    /// ones. So another CPU can tell that it may have missed a flow.
    moves: AtomicU32,
    cold: Cold,
}

/// Fields that change when a flow is replaced. They have a cache line that other CPUs do not read
/// in the packet path.
#[repr(align(64))]
struct Cold {
    backoff: Backoff,
    forgotten: AtomicU64,
    unremembered: AtomicU64,
}

impl<M: Memory> Array<M> {
    fn new(flows: &Flows, memory: &M) -> Result<Self, M::Error> {
        Ok(Self {
            seed: flows.seed,
            sets: memory.slots(flows.limit)?,
            shape: AtomicU64::new(Shape::new(flows.limit.min(INITIAL_SETS)).pack()),
            limit: flows.limit,
            moves: AtomicU32::new(0),
            cold: Cold {
                backoff: Backoff::new(memory.backoff()),
                forgotten: AtomicU64::new(0),
                unremembered: AtomicU64::new(0),
            },
        })
    }

    #[inline]
    fn shape(&self) -> Shape {
        Shape::unpack(self.shape.load(Acquire))
    }

    /// The place of a living flow in the set that `choice` selects.
    #[inline]
    fn find_in_set(&self, choice: u32, tag: u64, now: Ticks) -> Option<&Way> {
        self.sets.get(self.shape().set(choice))?.find(tag, now)
    }

    /// As [`RecentFlows::contains`].
    fn contains(&self, flow: Flow, now: Ticks) -> bool {
        /// A search misses a flow only if the owner moves just that flow meanwhile.
        const ATTEMPTS: u32 = 4;
        for _ in 0..ATTEMPTS {
            let before = self.moves.load(Acquire);
            let mut choices = [flow.first, self.second(flow)].into_iter();
            if choices.any(|choice| self.find_in_set(choice, flow.tag, now).is_some()) {
                return true;
            }
            // If the search has seen that a flow was removed from a set, or that another flow is in
            // its place, this sees that `moves` has changed. The fence pairs with the Release
            // stores in `Way::clear` and `Way::put`. Without it, the load below can be reordered
            // before those of tags that differ, which are Relaxed.
            fence(Acquire);
            if self.moves.load(Relaxed) == before {
                return false;
            }
        }
        false
    }

    /// Stores a new flow. Returns false if there is no memory for it.
    #[cold]
    #[inline(never)]
    fn insert(&self, flow: Flow, now: Ticks) -> bool {
        let Some(first) = self.make(self.shape().set(flow.first)) else {
            add_to(&self.cold.unremembered, 1);
            return false;
        };
        match first.0.iter().find(|way| !way.is_alive(now)) {
            Some(way) => way.put(flow.tag, flow.end(now)),
            None => self.insert_where_room_is_scarce(flow, now),
        }
        true
    }

    #[cold]
    #[inline(never)]
    fn insert_where_room_is_scarce(&self, flow: Flow, now: Ticks) {
        let mut sets = self.choices(flow);
        let room = |sets: [Option<&Set>; 2]| {
            let sets = sets.into_iter().flatten();
            sets.map(|set| set.room(now)).fold(0, usize::saturating_add)
        };
        let is_dense = || self.is_dense(self.shape().set(flow.first), now);
        if room(sets) <= SCARCE && is_dense() && self.grow() {
            sets = self.choices(flow);
        }
        if room(sets) == 0 && !self.make_room(sets, now) && self.grow() {
            sets = self.choices(flow);
        }
        // The set with more room, or both if they are full.
        let most = sets.into_iter().flatten().map(|set| set.room(now)).max();
        let candidates = sets
            .into_iter()
            .flatten()
            .filter(|set| Some(set.room(now)) == most);
        let ways = candidates.flat_map(|set| &set.0);
        let Some(way) = ways.min_by_key(|way| way.rank(now)) else {
            return;
        };
        if way.is_alive(now) {
            add_to(&self.cold.forgotten, 1);
        }
        way.put(flow.tag, flow.end(now));
    }

    /// Estimates whether at least three eighths of all places have living flows, by the sets after
    /// set `number`. Without it, an array would grow for ever, because at any load two sets are
    /// full once in a while.
    fn is_dense(&self, number: u32, now: Ticks) -> bool {
        const SAMPLE: u32 = 8;
        let used = self.shape().used;
        let sample = (1..=SAMPLE).filter_map(|n| {
            let other = number.wrapping_add(n);
            self.sets.get(other.checked_sub(used).unwrap_or(other))
        });
        let room = sample.map(|set| set.room(now));
        room.fold(0, usize::saturating_add) <= SAMPLE as usize * WAYS / 8 * 5
    }

    /// Moves a flow from one of two full sets to the other set in which it can be. Returns `false`
    /// if there is none with room.
    fn make_room(&self, sets: [Option<&Set>; 2], now: Ticks) -> bool {
        let shape = self.shape();
        for (set, way) in sets
            .into_iter()
            .flatten()
            .flat_map(|set| set.0.iter().map(move |way| (set, way)))
        {
            let others = self.seed.resume(way.tag.load(Relaxed)).choices();
            let others = others.map(|choice| self.sets.get(shape.set(choice)));
            let mut others = others
                .into_iter()
                .flatten()
                .filter(|other| !ptr::eq(*other, set));
            let place = others.find_map(|other| other.0.iter().find(|way| !way.is_alive(now)));
            if let Some(place) = place {
                place.copy(way);
                self.publish_moves();
                way.clear();
                return true;
            }
        }
        false
    }

    /// Must be called after flows were copied, and before they are removed from their old places.
    fn publish_moves(&self) {
        let moves = self.moves.load(Relaxed);
        self.moves.store(moves.wrapping_add(1), Release);
    }

    /// The two sets for a flow. `None` for a set that has no memory.
    fn choices(&self, flow: Flow) -> [Option<&Set>; 2] {
        let shape = self.shape();
        [flow.first, self.second(flow)].map(|choice| self.make(shape.set(choice)))
    }

    /// What selects the second set of a flow.
    fn second(&self, flow: Flow) -> u32 {
        self.seed.resume(flow.tag).second_index()
    }

    /// Set `number`, allocated now if need be. `None` if there is no memory.
    fn make(&self, number: u32) -> Option<&Set> {
        let make = || self.cold.backoff.attempt(|| self.sets.make(number));
        self.sets.get(number).or_else(make)
    }

    /// Adds sets. Returns whether there are more than before.
    fn grow(&self) -> bool {
        let before = self.shape().used;
        for _ in 0..GROWTH {
            let new = self.shape().used;
            if new >= self.limit || self.make(new).is_none() {
                break;
            }
            self.split(new);
        }
        self.shape().used > before
    }

    /// Uses set `new`, which follows those that are used, and moves to it the flows that belong
    /// there.
    fn split(&self, new: u32) {
        let old = self.shape().set(new);
        let (Some(from), Some(to)) = (self.sets.get(old), self.sets.get(new)) else {
            return;
        };
        let shape = Shape::new(new.wrapping_add(1));
        let moves = |way: &Way| {
            let choices = self.seed.resume(way.tag.load(Relaxed)).choices();
            choices.into_iter().all(|choice| shape.set(choice) != old)
        };
        let both = || from.0.iter().zip(&to.0).filter(|(way, _)| moves(way));
        both().for_each(|(way, place)| place.copy(way));
        self.shape.store(shape.pack(), Release);
        self.publish_moves();
        both().for_each(|(way, _)| way.clear());
    }
}

/// The number of sets that an array uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// At least one.
    used: u32,
    /// The bits of a choice that distinguish this number of sets.
    mask: u32,
}

impl Shape {
    fn new(used: u32) -> Self {
        let mask = u32::MAX
            .checked_shr(used.saturating_sub(1).leading_zeros())
            .unwrap_or(0);
        Self { used, mask }
    }

    fn pack(self) -> u64 {
        u64::from(self.mask) << 32 | u64::from(self.used)
    }

    #[inline]
    fn unpack(packed: u64) -> Self {
        Self {
            used: packed as u32,
            mask: (packed >> 32) as u32,
        }
    }

    /// The number of the set that `choice` selects.
    ///
    /// Let 2^n < `used` <= 2^(n+1). Sets that are split already, and the sets that they were split
    /// into, are selected by n+1 bits. The others are selected by n bits.
    #[inline]
    fn set(self, choice: u32) -> u32 {
        let wide = choice & self.mask;
        if wide < self.used {
            wide
        } else {
            wide & (self.mask >> 1)
        }
    }
}

#[cfg(all(test, loom))]
#[path = "../tests/interleavings/flows.rs"]
mod interleavings;

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::{accounting::packet::Part, host::Heap};
    use std::vec::Vec;

    const CLOCK: Clock = Clock {
        ticks_per_second: 250,
    };
    const NOW: Ticks = 1_000_000;

    fn flows(limit: u32) -> Flows {
        Flows::new(Seed::new(42), CLOCK, limit)
    }

    fn recent(flows: &Flows) -> RecentFlows<Heap> {
        let Ok(recent) = RecentFlows::new(0, flows, &Heap::ENDLESS);
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
        assert!(recent.is_first(flow, NOW, |_, _| false));
        recent.is_first(flow, NOW + ticks, |_, _| false)
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
            assert_eq!(recent.is_first(flow, NOW + n * step, |_, _| false), n == 0);
        }
    }

    #[test]
    fn other_cpus_are_searched_for_unknown_flows_only() {
        let flows = flows(16);
        let (here, there) = (recent(&flows), recent(&flows));
        let flow = flows.flow(&header(1, 2), &udp(1, 2)).unwrap();
        assert!(here.is_first(flow, NOW, |_, _| there.contains(flow, NOW)));
        assert!(!there.is_first(flow, NOW + 1, |_, _| here.contains(flow, NOW + 1)));
        assert!(!there.is_first(flow, NOW + 2, |_, _| unreachable!()));
        // A packet there restarts the lifetime for this CPU too.
        let late = NOW + 1 + 29 * CLOCK.ticks_per_second;
        assert!(!there.is_first(flow, late, |_, _| unreachable!()));
        let later = NOW + 31 * CLOCK.ticks_per_second;
        assert!(!here.is_first(flow, later, |_, _| there.contains(flow, later)));
    }

    /// The state of a linear congruential generator: addresses in no order.
    fn addresses(count: u32) -> impl Iterator<Item = u32> {
        (0..count).map(|n| n.wrapping_mul(2_654_435_761))
    }

    #[test]
    fn an_array_that_grows_forgets_no_living_flow() {
        const FLOWS: u32 = 300_000;
        let flows = flows(1_000_000);
        let recent = recent(&flows);
        let flow = |address| flows.flow(&header(address, 0), &udp(1, 2)).unwrap();
        for (n, address) in (0..).zip(addresses(FLOWS)) {
            assert!(recent.is_first(flow(address), NOW + n / 1000, |_, _| false));
        }
        assert_eq!(recent.forgotten(), 0);
        assert!(addresses(FLOWS).all(|address| recent.contains(flow(address), NOW + 300)));
        // A flow takes 16 bytes.
        assert!(recent.memory() < 36 * FLOWS as usize, "{}", recent.memory());
    }

    #[test]
    fn an_array_starts_with_one_page_and_holds_as_many_flows_as_its_limit() {
        let flows = flows(10_000);
        let recent = recent(&flows);
        let flow = |address| flows.flow(&header(address, 0), &udp(1, 2)).unwrap();
        assert_eq!(recent.memory(), 0);
        recent.is_first(flow(1), NOW, |_, _| false);
        assert_eq!(recent.memory(), 4096);
        addresses(10_000).for_each(|address| {
            recent.is_first(flow(address), NOW, |_, _| false);
        });
        assert!(recent.forgotten() < 10, "{}", recent.forgotten());
    }

    #[test]
    fn the_first_flows_of_each_kind_can_be_prepared() {
        let flows = flows(10_000);
        let recent = recent(&flows);
        recent.prepare();
        assert_eq!(recent.memory(), 3 * 4096);
        for opening in [syn(1, 2, 3), udp(1, 2), Opening::Packet { protocol: 47 }] {
            let flow = flows.flow(&header(1, 2), &opening).unwrap();
            assert!(recent.is_first(flow, NOW, |_, _| false));
        }
        assert_eq!(recent.memory(), 3 * 4096);
    }

    #[test]
    fn expired_flows_are_replaced_before_the_array_grows() {
        let flows = flows(1_000_000);
        let recent = recent(&flows);
        // 100 flows a second for an hour: 3000 are alive at a time.
        for (n, address) in (0..).zip(addresses(360_000)) {
            let flow = flows.flow(&header(address, 0), &udp(1, 2)).unwrap();
            recent.is_first(flow, NOW + n * CLOCK.ticks_per_second / 100, |_, _| false);
        }
        assert_eq!(recent.forgotten(), 0);
        assert!(recent.memory() < 256 << 10, "{}", recent.memory());
    }

    #[test]
    fn kinds_do_not_replace_each_other() {
        let flows = flows(100);
        let recent = recent(&flows);
        let first = |address, opening| {
            recent.is_first(
                flows.flow(&header(address, 0), &opening).unwrap(),
                NOW,
                |_, _| false,
            )
        };
        assert!((0..50).all(|address| first(address, udp(1, 2))));
        assert_eq!(recent.forgotten(), 0);
        assert!((0..10_000).all(|address| first(address, syn(1, 2, 3))));
        assert!(recent.forgotten() > 9_000);
        assert!((0..50).all(|address| !first(address, udp(1, 2))));
    }

    /// Flows of an array with one set.
    fn one_set(order: &[(u32, Ticks)]) -> (Flows, RecentFlows<Heap>) {
        let flows = flows(1);
        let recent = recent(&flows);
        for (address, time) in order {
            let flow = flows.flow(&header(*address, 0), &udp(1, 2)).unwrap();
            recent.is_first(flow, *time, |_, _| false);
        }
        (flows, recent)
    }

    fn contains(flows: &Flows, recent: &RecentFlows<Heap>, address: u32, now: Ticks) -> bool {
        recent.contains(flows.flow(&header(address, 0), &udp(1, 2)).unwrap(), now)
    }

    #[test]
    fn flows_with_one_packet_are_replaced_before_those_with_more() {
        // The flows 0 and 2 have a second packet.
        let packets = [(0, 0), (0, 1), (1, 2), (2, 3), (2, 4), (3, 5)];
        let mut order = packets
            .map(|(address, tick)| (address, NOW + tick))
            .to_vec();
        order.extend([(4, NOW + 6), (5, NOW + 7)]);
        let (flows, recent) = one_set(&order);
        let left: Vec<u32> = (0..6)
            .filter(|n| contains(&flows, &recent, *n, NOW + 8))
            .collect();
        assert_eq!((left, recent.forgotten()), (Vec::from([0, 2, 4, 5]), 2));
    }

    #[test]
    fn the_flow_that_expires_first_is_replaced() {
        let order = [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)].map(|(n, tick)| (n, NOW + tick));
        let (flows, recent) = one_set(&order);
        let left: Vec<u32> = (0..5)
            .filter(|n| contains(&flows, &recent, *n, NOW + 5))
            .collect();
        assert_eq!((left, recent.forgotten()), (Vec::from([1, 2, 3, 4]), 1));
        // Replacing an expired flow is not counted.
        let later = NOW + 60 * CLOCK.ticks_per_second;
        for address in 10..14 {
            let flow = flows.flow(&header(address, 0), &udp(1, 2)).unwrap();
            assert!(recent.is_first(flow, later, |_, _| false));
        }
        assert_eq!(recent.forgotten(), 1);
    }

    #[test]
    fn a_flow_that_cannot_be_remembered_starts_no_connection() {
        let flows = flows(64);
        let Ok(recent) = RecentFlows::new(0, &flows, &Heap { most: 0 });
        let flow = flows.flow(&header(1, 2), &udp(1, 2)).unwrap();
        assert!(!recent.is_first(flow, NOW, |_, _| false));
        assert!(!recent.is_first(flow, NOW, |_, _| false));
        assert_eq!((recent.forgotten(), recent.unremembered()), (0, 2));
        assert_eq!(recent.memory(), 0);
    }

    #[test]
    fn every_choice_selects_a_set_that_is_used() {
        for used in [1, 2, 3, 4, 5, 63, 64, 65, u32::MAX] {
            let shape = Shape::new(used);
            assert_eq!(Shape::unpack(shape.pack()), shape);
            for choice in (0..1000).chain([u32::MAX, u32::MAX / 2, used - 1]) {
                assert!(shape.set(choice) < used);
            }
        }
    }

    #[test]
    fn only_cpus_with_flows_are_searched() {
        let flows = flows(64);
        let cpus: Vec<_> = (0..4)
            .map(|cpu| {
                let Ok(recent) = RecentFlows::new(cpu, &flows, &Heap::ENDLESS);
                recent
            })
            .collect();
        let list = CpusWithFlows::default();
        let listed = || {
            list.iter(|cpu| cpus.get(cpu as usize))
                .map(|flows| flows.cpu)
                .collect::<Vec<_>>()
        };
        assert_eq!(listed(), [0; 0]);
        for cpu in [2, 0, 2] {
            list.add(&cpus[cpu]);
        }
        assert_eq!(listed(), [0, 2]);
    }

    /// While the owner moves flows between sets, another CPU finds all of them.
    #[test]
    fn another_cpu_finds_every_flow_while_the_array_grows() {
        let flows = flows(1_000_000);
        let recent = recent(&flows);
        let flow = |address| flows.flow(&header(address, 0), &udp(1, 2)).unwrap();
        let inserted = AtomicU32::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..100_000 {
                    recent.is_first(flow(n), NOW, |_, _| false);
                    inserted.store(n + 1, Release);
                }
            });
            let mut n = 0u32;
            loop {
                let count = inserted.load(Acquire);
                if count == 100_000 {
                    break;
                }
                if count > 0 {
                    n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    assert!(recent.contains(flow(n % count), NOW));
                }
            }
        });
    }
}
