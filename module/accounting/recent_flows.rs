// SPDX-License-Identifier: GPL-2.0

//! The recent flows. They distinguish the first packet of a flow from those that follow.
//!
//! Every CPU has its own recent flows. It alone writes them, and it searches them first. If they do
//! not contain a flow, the CPU searches those of the other CPUs that have any, because the two
//! directions of a flow can arrive on two CPUs.
//!
//! [`flow`](super::flow) tells which flow a packet belongs to.

use super::{
    flow::{Flow, Flows, Ticks, KINDS},
    flow_array::Array,
    slots::{Memory, Slots},
};
use crate::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

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

#[cfg(all(test, loom))]
#[path = "../tests/interleavings/recent_flows.rs"]
mod interleavings;

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::{
        accounting::{
            flow::tests::{flows, header, syn, udp, CLOCK, NOW},
            transport::Opening,
        },
        host::Heap,
    };
    use std::vec::Vec;

    fn recent(flows: &Flows) -> RecentFlows<Heap> {
        let Ok(recent) = RecentFlows::new(0, flows, &Heap::ENDLESS);
        recent
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
