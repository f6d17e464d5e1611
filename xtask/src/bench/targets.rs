// SPDX-License-Identifier: GPL-2.0
//! What the figures are to be like, and whether they are.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::{
    instructions::{ACCOUNT, ALL, Cost, Figures, SETS, TRAFFIC},
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
    fn is_met(&self) -> bool {
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

/// The targets of those figures that there are.
pub fn all(figures: &Figures, native: &[Time]) -> Vec<Target> {
    let target = |what, value: Option<f64>, bound| Some(Target { what, value: value?, bound });
    let added = |one, other| Some(added(&figures.costs, one)? / added(&figures.costs, other)?);
    let rates = || Some(rate(&figures.rates, TRAFFIC)? / rate(&figures.rates, PMACCTD)?);
    let hot = |addresses| time(native, "hot", "traffic/16", addresses);
    let thread = |threads| time(native, "threads", "traffic/16/256", threads);
    let two = || Some(2.0 * thread(1)? / thread(2)?);
    [
        target("instructions added, --traffic / ACCOUNT", added(TRAFFIC, ACCOUNT), Bound::AtMost(0.8)),
        target("instructions added, --traffic / nftables sets", added(TRAFFIC, SETS), Bound::AtMost(0.4)),
        target("instructions added, all tables / ACCOUNT", added(ALL, ACCOUNT), Bound::AtMost(2.0)),
        target("packets a second, --traffic / pmacctd", rates(), Bound::AtLeast(5.0)),
        target("nanoseconds, 256 addresses", hot(1 << 8), Bound::AtMost(15.0)),
        target("nanoseconds, 65536 addresses", hot(1 << 16), Bound::AtMost(40.0)),
        target("packets of two threads / of one", two(), Bound::AtLeast(1.9)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The instructions that a case adds with the most addresses.
fn added(costs: &[Cost], name: &str) -> Option<f64> {
    let all = costs.iter().filter(|cost| cost.case == name);
    all.max_by_key(|cost| cost.addresses).map(|cost| cost.added)
}

fn rate(rates: &[Rate], name: &str) -> Option<f64> {
    rates.iter().find(|rate| rate.counter == name).map(|rate| rate.packets)
}

fn time(native: &[Time], group: &str, case: &str, number: u32) -> Option<f64> {
    let is = |time: &&Time| time.group == group && time.case == case && time.number == number;
    native.iter().find(is).map(|time| time.nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::{super::instructions::Reading, *};

    fn cost(case: &str, addresses: u32, added: f64) -> Cost {
        Cost { case: case.into(), addresses, instructions: 1000.0 + added, added }
    }

    fn time(group: &str, case: &str, number: u32, nanoseconds: f64) -> Time {
        Time { group: group.into(), case: case.into(), number, nanoseconds }
    }

    #[test]
    fn figures_and_bounds() {
        let costs = [(TRAFFIC, 1, 400.0), (TRAFFIC, 256, 150.0), (ACCOUNT, 1, 100.0), (ACCOUNT, 256, 200.0)];
        let costs = costs.map(|(case, addresses, added)| cost(case, addresses, added)).to_vec();
        let rates = [(TRAFFIC, 800.0), (PMACCTD, 200.0)];
        let rates = rates.map(|(name, packets)| Rate { counter: name.into(), packets, all: false }).to_vec();
        let figures = Figures { costs, reading: Reading { rows: 1, instructions: 1.0 }, rates };
        let threads = "traffic/16/256";
        let native =
            [time("hot", "traffic/16", 256, 5.0), time("threads", threads, 1, 10.0), time("threads", threads, 2, 10.0)];
        let targets: Vec<_> = all(&figures, &native).iter().map(|target| (target.value, target.is_met())).collect();
        // With the most addresses; and what was not measured has no target.
        assert_eq!(targets, [(0.75, true), (4.0, false), (5.0, true), (2.0, true)]);
    }
}
