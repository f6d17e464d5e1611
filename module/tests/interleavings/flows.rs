// SPDX-License-Identifier: GPL-2.0

//! A CPU that searches the flows of another one, while this one stores and moves flows.

extern crate std;

use super::*;
use crate::explore::{
    explore,
    Fixed, //
};
use loom::{
    sync::Arc,
    thread, //
};
use std::vec::Vec;

const NOW: Ticks = 1_000_000;
const LIFETIME: Ticks = 100;
const SEED: Seed = Seed::new(42);
const CLOCK: Clock = Clock {
    ticks_per_second: 250,
};

fn flow_with_tag(tag: u64) -> Flow {
    Flow {
        kind: Kind::Datagrams,
        tag,
        first: SEED.resume(tag).choices()[0],
        lifetime: LIFETIME,
    }
}

/// Flow `n` of those that are in one of these sets when an array has two sets.
fn flow(sets: [u32; 2], n: usize) -> Flow {
    let choices = |tag: &u64| SEED.resume(*tag).choices().map(|c| Shape::new(2).set(c)) == sets;
    flow_with_tag((1..).filter(choices).nth(n).unwrap())
}

/// An array with one set. It can get a second one.
fn array() -> Array<Fixed> {
    let Ok(array) = Array::new(&Flows::new(SEED, CLOCK, 5), &Fixed);
    assert_eq!((array.shape().used, array.limit, WAYS), (1, 2, 2));
    array
}

/// The number of the set that contains a flow.
fn set_with(array: &Array<Fixed>, flow: Flow) -> Option<u32> {
    (0..2).find(|set| {
        let set = array.sets.get(*set).unwrap();
        set.find(flow.tag, NOW).is_some()
    })
}

/// Lets the owner of an array with `used` sets store the flow `new`, while another CPU searches for
/// `searched`. Both places of the first set are in use: the owner moves the flow `moved` to the
/// second set, and stores the new flow in its old place.
fn search_during_move(used: u32, moved: Flow, searched: Flow) {
    let (other, new) = (flow([0, 0], 0), flow([0, 0], 1));
    let outcomes = explore(move |outcomes| {
        let array = Arc::new(array());
        assert!(used == 1 || array.grow());
        let set = array.sets.get(0).unwrap();
        for (way, flow) in set.0.iter().zip([moved, other]) {
            way.put(flow.tag, flow.end(NOW));
        }
        let searcher = thread::spawn({
            let array = array.clone();
            move || array.contains(searched, NOW)
        });
        assert!(array.insert(new, NOW));
        let sets = [moved, other, new].map(|flow| set_with(&array, flow));
        assert_eq!(sets, [Some(1), Some(0), Some(0)]);
        assert!(set.0[0].has(new.tag, NOW));
        outcomes.add(searcher.join().unwrap());
    });
    assert!(outcomes.into_keys().eq([true]));
}

#[test]
fn flows_are_found_while_sets_are_added() {
    let moved = flow([1, 1], 0);
    search_during_move(1, moved, moved);
    search_during_move(1, moved, flow([0, 0], 0));
}

#[test]
fn flows_are_found_while_they_are_moved_from_the_second_set_to_the_first() {
    let moved = flow([1, 0], 0);
    search_during_move(2, moved, moved);
}

#[test]
fn flows_are_found_while_they_are_moved_from_the_first_set_to_the_second() {
    let moved = flow([0, 1], 0);
    search_during_move(2, moved, moved);
    search_during_move(2, moved, flow([0, 0], 0));
}

/// A place has an expired flow. Its owner changes it with `change`, which stores `new`, while
/// another CPU looks for the expired flow and for the new one.
fn look_during_change(new: Flow, change: impl Fn(&Way) + Copy + Send + Sync + 'static) {
    let old = flow([0, 0], 0);
    let outcomes = explore(move |outcomes| {
        let way = Arc::new(Way::default());
        way.put(old.tag, old.end(NOW - LIFETIME));
        let searcher = thread::spawn({
            let way = way.clone();
            move || {
                assert!(!way.has(old.tag, NOW), "an expired flow is alive");
                way.has(new.tag, NOW)
            }
        });
        change(&way);
        assert!(way.has(new.tag, NOW));
        outcomes.add(searcher.join().unwrap());
    });
    assert!(outcomes.into_keys().eq([false, true]));
}

#[test]
fn an_expired_flow_is_not_found_while_another_one_takes_its_place() {
    let new = flow([0, 0], 1);
    look_during_change(new, move |way| {
        way.put(new.tag, new.end(NOW));
        way.renew(new, NOW + 1);
    });
}

#[test]
fn an_expired_flow_is_not_found_while_another_one_is_moved_to_its_place() {
    let new = flow([0, 0], 1);
    look_during_change(new, move |way| {
        let from = Way::default();
        from.put(new.tag, new.end(NOW));
        way.copy(&from);
        from.clear();
    });
}

#[test]
fn every_cpu_with_flows_is_listed_when_two_are_added_at_the_same_time() {
    let outcomes = explore(|outcomes| {
        let flows = Flows::new(SEED, CLOCK, 1);
        let cpus = [0, 1].map(|cpu| {
            let Ok(recent) = RecentFlows::new(cpu, &flows, &Fixed);
            recent
        });
        let shared = Arc::new((CpusWithFlows::default(), cpus));
        let threads = [0, 1].map(|cpu| {
            let shared = shared.clone();
            thread::spawn(move || shared.0.add(&shared.1[cpu]))
        });
        let listed = |(list, cpus): &(CpusWithFlows, [RecentFlows<Fixed>; 2])| -> Vec<u32> {
            let flows = list.iter(|cpu| cpus.get(cpu as usize));
            flows.map(|flows| flows.cpu).collect()
        };
        let searcher = thread::spawn({
            let shared = shared.clone();
            move || listed(&shared)
        });
        for thread in threads {
            thread.join().unwrap();
        }
        let (before, after) = (searcher.join().unwrap(), listed(&shared));
        assert!(after == [0, 1] || after == [1, 0], "{after:?}");
        assert!(after.ends_with(&before), "{before:?} {after:?}");
        outcomes.add(before);
    });
    let all = [
        Vec::new(),
        Vec::from([0]),
        Vec::from([0, 1]),
        Vec::from([1]),
        Vec::from([1, 0]),
    ];
    assert!(outcomes.into_keys().eq(all));
}
