// SPDX-License-Identifier: GPL-2.0-only
//! What the figures are to be like, and whether they are.

use std::fmt::{self, Display, Formatter};

use anyhow::{Context, Error, Result};
use serde::Serialize;

use super::{
    instructions::{ACCOUNT, ALL, Cost, SETS, TRAFFIC},
    native::Time,
    rate::{PMACCTD, Rate},
};

/// A bound.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// No more than that.
    AtMost(f64),
    /// No less than that.
    AtLeast(f64),
}

/// A figure and its bound.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    /// What it says.
    pub what: String,
    /// The figure.
    pub value: f64,
    /// Its bound.
    pub bound: Bound,
    /// Is it within its bound?
    pub met: bool,
}

impl Target {
    fn at_most(bound: f64, what: impl Into<String>, value: f64) -> Self {
        // A ratio of something that was not measured is no figure.
        let met = value.is_finite() && value > 0.0 && value <= bound;
        Self { what: what.into(), value, bound: Bound::AtMost(bound), met }
    }

    fn at_least(bound: f64, what: impl Into<String>, value: f64) -> Self {
        let met = value.is_finite() && value >= bound;
        Self { what: what.into(), value, bound: Bound::AtLeast(bound), met }
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { what, value, bound, met } = self;
        let (word, bound) = match bound {
            Bound::AtMost(bound) => ("at most", bound),
            Bound::AtLeast(bound) => ("at least", bound),
        };
        let verdict = if *met { "" } else { ", missed" };
        write!(f, "{what:<66}{value:>10.2}   ({word} {bound}{verdict})")
    }
}

/// Those of a packet's instructions: in comparison with the peers, and those of our own that may not become more.
pub fn of_costs(costs: &[Cost]) -> Result<Vec<Target>> {
    let ratio = |one, other| Ok::<_, Error>(added(costs, one)? / added(costs, other)?);
    let mut targets = vec![
        Target::at_most(0.8, "instructions added, --traffic / ACCOUNT", ratio(TRAFFIC, ACCOUNT)?),
        Target::at_most(0.4, "instructions added, --traffic / nftables sets", ratio(TRAFFIC, SETS)?),
        Target::at_most(2.0, "instructions added, all tables / ACCOUNT", ratio(ALL, ACCOUNT)?),
    ];
    for Cost { case, added, at_most, .. } in most_addresses(costs) {
        targets.extend(at_most.map(|bound| Target::at_most(bound, format!("instructions added, {case}"), *added)));
    }
    Ok(targets)
}

/// Those of packets a second.
pub fn of_rates(rates: &[Rate]) -> Result<Vec<Target>> {
    let ratio = rate(rates, TRAFFIC)? / rate(rates, PMACCTD)?;
    Ok(vec![Target::at_least(5.0, "packets a second, --traffic / pmacctd", ratio)])
}

/// Those of this machine: of one core, and of two if it has them.
pub fn of_times(times: &[Time]) -> Result<Vec<Target>> {
    let cores = times.iter().filter(|time| time.group == "draw").map(|time| time.number).max();
    let hot = |case, addresses| time(times, "hot", case, addresses);
    let mut targets = vec![
        Target::at_most(15.0, "nanoseconds, 256 addresses", hot("traffic/16", 1 << 8)?),
        Target::at_most(40.0, "nanoseconds, 65536 addresses", hot("traffic/16", 1 << 16)?),
        Target::at_most(40.0, "nanoseconds, 65536 addresses, hashed", hot("traffic/8", 1 << 16)?),
    ];
    if cores > Some(1) {
        for addresses in [1 << 8, 1 << 16] {
            let thread = |threads| time(times, "threads", &format!("traffic/16/{addresses}"), threads);
            let what = format!("packets of two threads / of one, {addresses} addresses");
            targets.push(Target::at_least(1.9, what, 2.0 * thread(1)? / thread(2)?));
        }
    }
    Ok(targets)
}

/// The figures with the most addresses.
fn most_addresses(costs: &[Cost]) -> impl Iterator<Item = &Cost> {
    let most = costs.iter().map(|cost| cost.addresses).max();
    costs.iter().filter(move |cost| Some(cost.addresses) == most)
}

/// The instructions that a case adds with the most addresses.
fn added(costs: &[Cost], name: &str) -> Result<f64> {
    let cost = most_addresses(costs).find(|cost| cost.case == name);
    cost.map(|cost| cost.added).with_context(|| format!("no figure of {name}"))
}

fn rate(rates: &[Rate], name: &str) -> Result<f64> {
    let rate = rates.iter().find(|rate| rate.counter == name).map(|rate| rate.packets);
    rate.with_context(|| format!("no rate of {name}"))
}

fn time(times: &[Time], group: &str, case: &str, number: u32) -> Result<f64> {
    let is = |time: &&Time| time.group == group && time.case == case && time.number == number;
    let time = times.iter().find(is).map(|time| time.nanoseconds);
    time.with_context(|| format!("the benchmark has no figure {group}/{case}/{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(case: &str, addresses: u32, added: f64) -> Cost {
        Cost { case: case.into(), addresses, instructions: 1000.0 + added, added, at_most: None }
    }

    fn time(group: &str, case: &str, number: u32, nanoseconds: f64) -> Time {
        Time { group: group.into(), case: case.into(), number, nanoseconds, interval: [nanoseconds; 2] }
    }

    fn judged(targets: &[Target]) -> Vec<(f64, bool)> {
        targets.iter().map(|target| (target.value, target.met)).collect()
    }

    #[test]
    fn instructions_are_those_with_the_most_addresses() {
        let costs = [
            (TRAFFIC, 1, 400.0),
            (TRAFFIC, 256, 150.0),
            (ACCOUNT, 1, 100.0),
            (ACCOUNT, 256, 200.0),
            (SETS, 256, 300.0),
            (ALL, 256, 400.0),
        ];
        let mut costs = costs.map(|(case, addresses, added)| cost(case, addresses, added)).to_vec();
        assert_eq!(judged(&of_costs(&costs).unwrap()), [(0.75, true), (0.5, false), (2.0, true)]);
        // What was not measured is not met in silence.
        costs.pop();
        assert!(of_costs(&costs).is_err());
    }

    #[test]
    fn our_own_may_not_become_more() {
        let one = |added| [TRAFFIC, ALL, ACCOUNT, SETS].map(|case| cost(case, 1, added));
        let bounded = |added| Cost { at_most: Some(250.0), ..cost("ours", 1, added) };
        let last = |added| judged(&of_costs(&[&one(100.0)[..], &[bounded(added)]].concat()).unwrap())[3];
        assert_eq!(last(250.0), (250.0, true));
        assert_eq!(last(251.0), (251.0, false));
        // Nothing costs nothing, and nobody is infinitely better than somebody.
        assert_eq!(last(-1.0), (-1.0, false));
        assert!(!of_costs(&one(0.0)).unwrap()[0].met);
    }

    #[test]
    fn more_packets_are_better() {
        let rates = |ours| {
            [(TRAFFIC, ours), (PMACCTD, 200.0)].map(|(name, packets)| Rate {
                counter: name.into(),
                version: String::new(),
                packets,
                all: false,
            })
        };
        assert_eq!(judged(&of_rates(&rates(1000.0)).unwrap()), [(5.0, true)]);
        assert_eq!(judged(&of_rates(&rates(800.0)).unwrap()), [(4.0, false)]);
        assert_eq!(judged(&of_rates(&rates(f64::INFINITY)).unwrap()), [(f64::INFINITY, false)]);
    }

    #[test]
    fn one_core_has_no_figure_for_two() {
        let mut times = vec![
            time("draw", "nothing", 1, 1.0),
            time("hot", "traffic/16", 256, 15.0),
            time("hot", "traffic/16", 1 << 16, 40.5),
            time("hot", "traffic/8", 1 << 16, 20.0),
        ];
        let threads = |addresses, threads, took| time("threads", &format!("traffic/16/{addresses}"), threads, took);
        times.extend([threads(256, 1, 10.0), threads(1 << 16, 1, 10.0), threads(1 << 16, 2, 10.0)]);
        let one = [(15.0, true), (40.5, false), (20.0, true)];
        assert_eq!(judged(&of_times(&times).unwrap()), one);
        times.push(time("draw", "nothing", 2, 1.0));
        assert!(of_times(&times).is_err());
        times.push(threads(256, 2, 12.5));
        assert_eq!(judged(&of_times(&times).unwrap())[3..], [(1.6, false), (2.0, true)]);
    }
}
