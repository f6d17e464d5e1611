// SPDX-License-Identifier: GPL-2.0

//! Runs a test once for each order of accesses to atomic variables.
//!
//! `loom` chooses which thread goes on before each access, and which of the values that the C11
//! memory model allows each load returns. It does not let a load return a value that is stored
//! later (<https://docs.rs/loom/latest/loom/#limitations-and-caveats>).

extern crate std;

use crate::accounting::slots::{
    Memory,
    Slot,
    Slots, //
};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt::Debug,
    sync::{
        Arc,
        Mutex, //
    },
    vec::Vec,
};

/// Arrays whose slots exist from the beginning. So a reader never depends on the allocation of a
/// slot for the order of its accesses.
#[derive(Debug)]
pub(crate) struct Fixed;

/// An array.
pub(crate) struct FixedSlots<T>(Vec<T>);

impl Memory for Fixed {
    type Slots<T: Slot> = FixedSlots<T>;
    type Error = Infallible;

    fn backoff(&self) -> u32 {
        1024
    }

    fn slots<T: Slot>(&self, limit: u32) -> Result<FixedSlots<T>, Infallible> {
        Ok(FixedSlots((0..limit).map(|_| T::default()).collect()))
    }
}

impl<T> Slots<T> for FixedSlots<T> {
    fn get(&self, index: u32) -> Option<&T> {
        self.0.get(index as usize)
    }

    fn make(&self, index: u32) -> Option<&T> {
        self.get(index)
    }

    fn memory(&self) -> usize {
        size_of_val(self.0.as_slice())
    }
}

/// What happened in the runs of a test, and how often.
#[derive(Clone, Debug)]
pub(crate) struct Outcomes<T>(Arc<Mutex<BTreeMap<T, u64>>>);

impl<T: Ord + Debug> Outcomes<T> {
    /// Adds what happened in a run.
    pub(crate) fn add(&self, outcome: T) {
        *self.0.lock().unwrap().entry(outcome).or_default() += 1;
    }
}

/// Runs `test` in each order with at most three changes of the running thread that no thread asked
/// for. The environment variable `LOOM_MAX_PREEMPTIONS` sets another number. Returns the outcomes.
pub(crate) fn explore<T: Ord + Debug + Clone + Send + 'static>(
    test: impl Fn(&Outcomes<T>) + Send + Sync + 'static,
) -> BTreeMap<T, u64> {
    let outcomes = Outcomes(Arc::default());
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.max_branches = 10_000;
    let added = outcomes.clone();
    builder.check(move || test(&added));
    let all = outcomes.0.lock().unwrap();
    std::eprintln!("{} runs: {all:?}", all.values().sum::<u64>());
    all.clone()
}
