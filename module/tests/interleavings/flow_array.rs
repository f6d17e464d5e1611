// SPDX-License-Identifier: GPL-2.0

//! A CPU that searches the flows of another one, while this one stores and moves flows.

extern crate std;

use super::*;
use crate::{
    accounting::flow::{
        Clock,
        Kind, //
    },
    explore::{
        explore,
        Fixed, //
    },
};
use loom::{
    sync::Arc,
    thread, //
};

const NOW: Ticks = 1_000_000;
const LIFETIME: Ticks = 100;
const SEED: Seed = Seed::new(42);
const CLOCK: Clock = Clock {
    ticks_per_second: 250,
};

/// Flow `n` of those that are in one of these `sets` when an array has `used` sets.
fn flow(used: u32, sets: [u32; 2], n: usize) -> Flow {
    let choices = |tag: u64| SEED.resume(tag).choices();
    let fits = |tag: &u64| choices(*tag).map(|choice| Shape::new(used).set(choice)) == sets;
    let tag = (1..).filter(fits).nth(n).unwrap();
    Flow {
        kind: Kind::Datagrams,
        tag,
        first: choices(tag)[0],
        lifetime: LIFETIME,
    }
}

/// An array that uses `used` sets. It can have `limit`.
fn array(used: u32, limit: u32) -> Array<Fixed> {
    let flows = Flows::new(SEED, CLOCK, limit * 8 / SETS_PER_EIGHT_FLOWS);
    let Ok(array) = Array::new(&flows, &Fixed);
    array.shape.store(Shape::new(used).pack(), Relaxed);
    assert_eq!((array.shape().used, array.limit), (used, limit));
    array
}

/// The number of the set that contains a flow.
fn set_with(array: &Array<Fixed>, flow: Flow) -> Option<u32> {
    (0..array.limit).find(|set| {
        let set = array.sets.get(*set).unwrap();
        set.find(flow.tag, NOW).is_some()
    })
}

/// The flow for which another CPU searches.
#[derive(Clone, Copy)]
enum Searched {
    /// The one that is moved.
    Moved,
    /// The one beside it, which stays.
    Other,
}

/// Lets the owner of an array with `used` sets store a new flow, while another CPU searches for one
/// that it has. The first set is full. So the owner moves a flow from there to the last one of
/// `limit` sets, and stores the new flow in its old place. `choices` are the sets in which the flow
/// can be when all are used.
fn search_during_move(used: u32, limit: u32, choices: [u32; 2], searched: Searched) {
    let moved = flow(limit, choices, 0);
    let (other, new) = (flow(limit, [0, 0], 0), flow(limit, [0, 0], 1));
    let outcomes = explore(move |outcomes| {
        let array = Arc::new(array(used, limit));
        let set = array.sets.get(0).unwrap();
        for (way, flow) in set.0.iter().zip([moved, other]) {
            way.put(flow.tag, flow.end(NOW));
        }
        let searcher = thread::spawn({
            let array = array.clone();
            move || match searched {
                Searched::Moved => array.contains(moved, NOW),
                Searched::Other => array.contains(other, NOW),
            }
        });
        assert!(array.insert(new, NOW));
        assert!(set.0[0].has(new.tag, NOW));
        let sets = [moved, other].map(|flow| set_with(&array, flow));
        assert_eq!(sets, [Some(limit - 1), Some(0)]);
        outcomes.add(searcher.join().unwrap());
    });
    assert!(outcomes.into_keys().eq([true]));
}

#[test]
fn flows_are_found_while_a_set_is_added_that_both_choices_select() {
    search_during_move(1, 2, [1, 1], Searched::Moved);
    search_during_move(1, 2, [1, 1], Searched::Other);
}

#[test]
fn flows_are_found_while_a_set_is_added_that_the_first_choice_selects() {
    search_during_move(2, 3, [2, 1], Searched::Moved);
    search_during_move(2, 3, [2, 1], Searched::Other);
}

#[test]
fn flows_are_found_while_a_set_is_added_that_the_second_choice_selects() {
    search_during_move(2, 3, [1, 2], Searched::Moved);
    search_during_move(2, 3, [1, 2], Searched::Other);
}

#[test]
fn flows_are_found_while_they_are_moved_to_the_set_of_their_first_choice() {
    search_during_move(2, 2, [1, 0], Searched::Moved);
    search_during_move(2, 2, [1, 0], Searched::Other);
}

#[test]
fn flows_are_found_while_they_are_moved_to_the_set_of_their_second_choice() {
    search_during_move(2, 2, [0, 1], Searched::Moved);
    search_during_move(2, 2, [0, 1], Searched::Other);
}

/// A place has an expired flow. Its owner changes it with `change`, which stores `new`, while
/// another CPU looks for the expired flow and for the new one.
fn look_during_change(new: Flow, change: impl Fn(&Way) + Copy + Send + Sync + 'static) {
    let old = flow(1, [0, 0], 0);
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
    let new = flow(1, [0, 0], 1);
    look_during_change(new, move |way| {
        way.put(new.tag, new.end(NOW));
        way.renew(new, NOW + 1);
    });
}

#[test]
fn an_expired_flow_is_not_found_while_another_one_is_moved_to_its_place() {
    let new = flow(1, [0, 0], 1);
    look_during_change(new, move |way| {
        let from = Way::default();
        from.put(new.tag, new.end(NOW));
        way.copy(&from);
        from.clear();
    });
}
