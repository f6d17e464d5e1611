// SPDX-License-Identifier: GPL-2.0-only
//! The targets that compare two figures or bound one, and whether they are met. The limit of a
//! single case is in [`super::instructions`].

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::instructions::{
    ACCOUNT, ALL, Cost, EBPF, HASHED, IPV6, MIRROR, MIRROR_IPV6, MOST, NOTHING, SERIES, SETS, TRAFFIC, by_series,
};
use super::native::{self, Time};
use super::rate::{PMACCTD, Rate};

/// The allowed range of a figure.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// An inclusive maximum.
    AtMost(f64),
    /// An inclusive minimum.
    AtLeast(f64),
}

/// A figure and its bound.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Target {
    /// What the figure says, with its unit.
    pub what: String,
    /// The figure.
    pub value: f64,
    /// Its bound.
    pub bound: Bound,
    /// Whether the figure is within the bound.
    pub met: bool,
}

impl Target {
    /// A target. The ratio of a figure that was not measured is 0, infinite or not a number, and
    /// never meets its bound.
    fn new(what: impl Into<String>, value: f64, bound: Bound) -> Self {
        let within = match bound {
            Bound::AtMost(bound) => value <= bound,
            Bound::AtLeast(bound) => value >= bound,
        };
        Self { what: what.into(), value, bound, met: within && value.is_finite() && value > 0.0 }
    }
}

/// The cost of a case with [`MOST`] addresses.
fn cost_of<'a>(costs: &'a [Cost], case: &str) -> Result<&'a Cost> {
    let cost = costs.iter().find(|cost| cost.case == case && cost.addresses == MOST);
    cost.with_context(|| format!("{case} was not measured"))
}

/// A target: the instructions that one case adds, divided by those of another.
struct Ratio {
    one: &'static str,
    other: &'static str,
    at_most: f64,
    /// The series that miss the target, so `--check` cannot enforce it there.
    missed_on: &'static [&'static str],
}

const RATIOS: [Ratio; 6] = [
    Ratio { one: TRAFFIC, other: SETS, at_most: 0.4, missed_on: &[] },
    Ratio { one: TRAFFIC, other: EBPF, at_most: 1.0, missed_on: &[] },
    // The lookup in the kernel's hash is faster on 7.3.
    Ratio { one: HASHED, other: EBPF, at_most: 1.0, missed_on: &["7.3"] },
    Ratio { one: IPV6, other: HASHED, at_most: 1.3, missed_on: &[] },
    Ratio { one: TRAFFIC, other: ACCOUNT, at_most: 0.6, missed_on: &SERIES },
    Ratio { one: ALL, other: ACCOUNT, at_most: 1.0, missed_on: &SERIES },
];

impl Ratio {
    fn enforced(&self, series: &str) -> bool {
        !self.missed_on.contains(&series)
    }

    /// The target on the series of `costs`.
    fn target(&self, costs: &[Cost]) -> Result<Target> {
        let (one, other) = (cost_of(costs, self.one)?, cost_of(costs, self.other)?);
        let what = format!("{}: instructions added, {} / {}", one.series, one.case, other.case);
        Ok(Target::new(what, one.added / other.added, Bound::AtMost(self.at_most)))
    }
}

/// The targets for the instructions of one series that are enforced, or those that are not.
fn ratios(costs: &[Cost], enforced: bool) -> impl Iterator<Item = Result<Target>> {
    let chosen = move |ratio: &&Ratio| costs.first().is_some_and(|cost| ratio.enforced(&cost.series) == enforced);
    RATIOS.iter().filter(chosen).map(move |ratio| ratio.target(costs))
}

/// The targets for instructions per packet with [`MOST`] addresses that `--check` enforces.
pub fn for_instructions(costs: &[Cost]) -> Result<Vec<Target>> {
    by_series(costs).flat_map(|costs| ratios(costs, true).chain(on_mirror_devices(costs))).collect()
}

/// A mirror device skips a part of IP receive.
fn on_mirror_devices(costs: &[Cost]) -> [Result<Target>; 2] {
    [(MIRROR, TRAFFIC), (MIRROR_IPV6, IPV6)].map(|(mirror, port)| {
        let what = format!("{}: all instructions, {mirror} / {port}", costs[0].series);
        let ratio = cost_of(costs, mirror)?.instructions / cost_of(costs, port)?.instructions;
        Ok(Target::new(what, ratio, Bound::AtMost(1.0)))
    })
}

/// The targets for instructions per packet with [`MOST`] addresses that are not met, so `--check`
/// cannot enforce them. The last one of a series compares with a receive path without a hook: the
/// chain and the place of the program count, too.
pub fn not_enforced(costs: &[Cost]) -> Result<Vec<Target>> {
    by_series(costs).flat_map(|costs| ratios(costs, false).chain([with_the_hook(costs)])).collect()
}

fn with_the_hook(costs: &[Cost]) -> Result<Target> {
    let nothing = cost_of(costs, NOTHING)?;
    let added = |case| Ok::<_, anyhow::Error>(cost_of(costs, case)?.instructions - nothing.instructions);
    let what = format!("{}: instructions added with the hook, {TRAFFIC} / {EBPF}", nothing.series);
    Ok(Target::new(what, added(TRAFFIC)? / added(EBPF)?, Bound::AtMost(1.0)))
}

/// The target for packets per second.
pub fn for_rates(rates: &[Rate]) -> Result<Vec<Target>> {
    let rate = |name| {
        let rate = rates.iter().find(|rate| rate.counter == name);
        rate.map(|rate| rate.packets).with_context(|| format!("the rate of {name} was not measured"))
    };
    let ratio = rate(TRAFFIC)? / rate(PMACCTD)?;
    let what = format!("packets per second without loss, {TRAFFIC} / {PMACCTD}");
    Ok(vec![Target::new(what, ratio, Bound::AtLeast(5.0))])
}

/// The targets for times on the host: of one core, and of two if the host has them.
pub fn for_times(times: &[Time]) -> Result<Vec<Target>> {
    let time = |id: &str| native::find(times, id).with_context(|| format!("{id} was not measured"));
    let mut targets = Vec::new();
    for (what, id, bound) in [
        ("nanoseconds, 256 addresses", "hot/traffic/16/256", 15.0),
        ("nanoseconds, 65,536 addresses", "hot/traffic/16/65536", 40.0),
        ("nanoseconds, 65,536 addresses, hashed rows", "hot/traffic/8/65536", 40.0),
    ] {
        targets.push(Target::new(what, time(id)?, Bound::AtMost(bound)));
    }
    if native::find(times, "draw/nothing/2").is_some() {
        for (addresses, case) in [("256", "threads/traffic/16/256"), ("65,536", "threads/traffic/16/65536")] {
            let ratio = 2.0 * time(&format!("{case}/1"))? / time(&format!("{case}/2"))?;
            let what = format!("packets of two threads / of one, {addresses} addresses");
            targets.push(Target::new(what, ratio, Bound::AtLeast(1.9)));
        }
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::{super::report::tests::*, *};

    fn results(targets: &[Target]) -> Vec<(f64, bool)> {
        targets.iter().map(|target| (target.value, target.met)).collect()
    }

    #[test]
    fn instructions_are_compared_with_the_most_addresses() {
        let mut costs = vec![
            cost(TRAFFIC, 1, 400.0, None),
            cost(TRAFFIC, MOST, 150.0, None),
            cost(MIRROR, MOST, 150.0, None),
            cost(MIRROR_IPV6, MOST, 360.0, None),
            cost(SETS, MOST, 300.0, None),
            cost(EBPF, MOST, 160.0, None),
            cost(HASHED, MOST, 160.0, None),
            cost(IPV6, MOST, 240.0, None),
        ];
        let expected = [(0.5, false), (0.9375, true), (1.0, true), (1.5, false), (1.0, true), (1610.0 / 1490.0, false)];
        assert_eq!(results(&for_instructions(&costs).unwrap()), expected);
        let both = for_instructions(&[costs.clone(), on_7_3(&costs)].concat()).unwrap();
        let on_7_3 = [expected[0], expected[1], expected[3], expected[4], expected[5]];
        assert_eq!(results(&both), [&expected[..], &on_7_3].concat());
        assert!(both[0].what.starts_with("6.12: ") && both[6].what.starts_with("7.3: "));
        costs.pop();
        assert!(for_instructions(&costs).is_err());
    }

    #[test]
    fn the_receive_path_includes_the_hook() {
        let cost_with =
            |case, hook, added| Cost { instructions: 1000.0 + hook + added, ..cost(case, MOST, added, None) };
        let costs = [
            cost_with(NOTHING, 0.0, 0.0),
            cost_with(TRAFFIC, 200.0, 100.0),
            cost_with(ALL, 200.0, 400.0),
            cost_with(ACCOUNT, 200.0, 200.0),
            cost_with(EBPF, 50.0, 150.0),
        ];
        let expected = [(0.5, true), (2.0, false), (1.5, false)];
        assert_eq!(results(&not_enforced(&costs).unwrap()), expected);
        assert!(not_enforced(&costs[1..]).is_err());
    }

    #[test]
    fn a_target_is_either_enforced_or_not() {
        let cases = [NOTHING, TRAFFIC, ALL, HASHED, IPV6, ACCOUNT, SETS, EBPF, MIRROR, MIRROR_IPV6];
        let costs = cases.map(|case| cost(case, MOST, 1.0, None));
        for (costs, enforced) in [(costs.to_vec(), 4), (on_7_3(&costs), 3)] {
            assert_eq!(for_instructions(&costs).unwrap().len(), enforced + 2);
            assert_eq!(not_enforced(&costs).unwrap().len(), RATIOS.len() - enforced + 1);
        }
    }

    #[test]
    fn figures_that_were_not_measured_miss_their_target() {
        let cases = [TRAFFIC, SETS, EBPF, HASHED, IPV6, MIRROR, MIRROR_IPV6];
        let costs = |added| cases.map(|case| Cost { instructions: added, ..cost(case, MOST, added, None) });
        assert!(for_instructions(&costs(0.0)).unwrap().iter().all(|target| !target.met));
        for value in [-1.0, 0.0, f64::INFINITY, f64::NAN] {
            assert!(
                !Target::new("", value, Bound::AtMost(1.0)).met && !Target::new("", value, Bound::AtLeast(0.0)).met
            );
        }
    }

    #[test]
    fn the_rate_is_compared_with_pmacctd() {
        let rates = |ours| [rate(TRAFFIC, ours), rate(PMACCTD, 200.0)];
        assert_eq!(results(&for_rates(&rates(1000.0)).unwrap()), [(5.0, true)]);
        assert_eq!(results(&for_rates(&rates(800.0)).unwrap()), [(4.0, false)]);
        assert_eq!(results(&for_rates(&rates(f64::INFINITY)).unwrap()), [(f64::INFINITY, false)]);
    }

    #[test]
    fn two_threads_need_two_cores() {
        let mut times = vec![
            time("draw", "nothing", 1, 1.0),
            time("hot", "traffic/16", 256, 15.0),
            time("hot", "traffic/16", 1 << 16, 40.5),
            time("hot", "traffic/8", 1 << 16, 20.0),
        ];
        let threads = |addresses, threads, took| time("threads", &format!("traffic/16/{addresses}"), threads, took);
        times.extend([threads(256, 1, 10.0), threads(1 << 16, 1, 10.0), threads(1 << 16, 2, 10.0)]);
        let one = [(15.0, true), (40.5, false), (20.0, true)];
        assert_eq!(results(&for_times(&times).unwrap()), one);
        times.push(time("draw", "nothing", 2, 1.0));
        assert!(for_times(&times).is_err());
        times.push(threads(256, 2, 12.5));
        assert_eq!(results(&for_times(&times).unwrap())[3..], [(1.6, false), (2.0, true)]);
    }
}
