// SPDX-License-Identifier: GPL-2.0
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
    pub what: &'static str,
    /// The figure.
    pub value: f64,
    /// Its bound.
    pub bound: Bound,
}

impl Target {
    fn at_most(bound: f64, what: &'static str, value: f64) -> Self {
        Self { what, value, bound: Bound::AtMost(bound) }
    }

    fn at_least(bound: f64, what: &'static str, value: f64) -> Self {
        Self { what, value, bound: Bound::AtLeast(bound) }
    }

    /// Is the figure within its bound?
    pub fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtMost(bound) => self.value <= bound,
            Bound::AtLeast(bound) => self.value >= bound,
        }
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { what, value, bound } = self;
        let (word, bound) = match bound {
            Bound::AtMost(bound) => ("at most", bound),
            Bound::AtLeast(bound) => ("at least", bound),
        };
        let verdict = if self.is_met() { "" } else { ", missed" };
        write!(f, "{what:<66}{value:>10.2}   ({word} {bound}{verdict})")
    }
}

/// Those of a packet's instructions.
pub fn of_costs(costs: &[Cost]) -> Result<Vec<Target>> {
    let ratio = |one, other| Ok::<_, Error>(added(costs, one)? / added(costs, other)?);
    Ok(vec![
        Target::at_most(0.8, "instructions added, --traffic / ACCOUNT", ratio(TRAFFIC, ACCOUNT)?),
        Target::at_most(0.4, "instructions added, --traffic / nftables sets", ratio(TRAFFIC, SETS)?),
        Target::at_most(2.0, "instructions added, all tables / ACCOUNT", ratio(ALL, ACCOUNT)?),
    ])
}

/// Those of packets a second.
pub fn of_rates(rates: &[Rate]) -> Result<Vec<Target>> {
    let ratio = rate(rates, TRAFFIC)? / rate(rates, PMACCTD)?;
    Ok(vec![Target::at_least(5.0, "packets a second, --traffic / pmacctd", ratio)])
}

/// Those of this machine, which has so many CPUs.
pub fn of_times(times: &[Time], cpus: usize) -> Result<Vec<Target>> {
    let hot = |case, addresses| time(times, "hot", case, addresses);
    let mut targets = vec![
        Target::at_most(15.0, "nanoseconds, 256 addresses", hot("traffic/16", 1 << 8)?),
        Target::at_most(40.0, "nanoseconds, 65536 addresses", hot("traffic/16", 1 << 16)?),
        Target::at_most(40.0, "nanoseconds, 65536 addresses, hashed", hot("traffic/8", 1 << 16)?),
    ];
    if cpus > 1 {
        let thread = |threads| time(times, "threads", "traffic/16/256", threads);
        let ratio = 2.0 * thread(1)? / thread(2)?;
        targets.push(Target::at_least(1.9, "packets of two threads / of one", ratio));
    }
    Ok(targets)
}

/// The instructions that a case adds with the most addresses.
fn added(costs: &[Cost], name: &str) -> Result<f64> {
    let all = costs.iter().filter(|cost| cost.case == name);
    let most = all.max_by_key(|cost| cost.addresses).map(|cost| cost.added);
    most.with_context(|| format!("no figure of {name}"))
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
        Cost { case: case.into(), addresses, instructions: 1000.0 + added, added }
    }

    fn time(group: &str, case: &str, number: u32, nanoseconds: f64) -> Time {
        Time { group: group.into(), case: case.into(), number, nanoseconds }
    }

    fn judged(targets: &[Target]) -> Vec<(f64, bool)> {
        targets.iter().map(|target| (target.value, target.is_met())).collect()
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
    fn more_packets_are_better() {
        let rates = |ours| {
            [(TRAFFIC, ours), (PMACCTD, 200.0)].map(|(name, packets)| Rate {
                counter: name.into(),
                packets,
                all: false,
            })
        };
        assert_eq!(judged(&of_rates(&rates(1000.0)).unwrap()), [(5.0, true)]);
        assert_eq!(judged(&of_rates(&rates(800.0)).unwrap()), [(4.0, false)]);
    }

    #[test]
    fn one_cpu_has_no_figure_for_two() {
        let threads = "traffic/16/256";
        let mut times = vec![
            time("hot", "traffic/16", 256, 15.0),
            time("hot", "traffic/16", 1 << 16, 40.5),
            time("hot", "traffic/8", 1 << 16, 20.0),
            time("threads", threads, 1, 10.0),
        ];
        let one = [(15.0, true), (40.5, false), (20.0, true)];
        assert_eq!(judged(&of_times(&times, 1).unwrap()), one);
        assert!(of_times(&times, 2).is_err());
        times.push(time("threads", threads, 2, 12.5));
        assert_eq!(judged(&of_times(&times, 2).unwrap())[3], (1.6, false));
    }
}
