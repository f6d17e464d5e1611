// SPDX-License-Identifier: GPL-2.0

//! CPUs that are added to the list of those with flows, while another one reads it.

extern crate std;

use super::*;
use crate::{
    accounting::{
        flow::Clock,
        hash::Seed, //
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
use std::vec::Vec;

const CLOCK: Clock = Clock {
    ticks_per_second: 250,
};

#[test]
fn every_cpu_with_flows_is_listed_when_two_are_added_at_the_same_time() {
    let outcomes = explore(|outcomes| {
        let flows = Flows::new(Seed::new(42), CLOCK, 1);
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
