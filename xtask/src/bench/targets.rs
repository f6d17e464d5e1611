// SPDX-License-Identifier: GPL-2.0-only
//! The targets that compare two figures or bound one, and whether they are met. The limit of a
//! single case is in [`super::instructions`].

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::instructions::{ACCOUNT, ALL, Cost, EBPF, HASHED, IPV6, MOST, NOTHING, SETS, TRAFFIC, by_series};
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

/// At most this ratio of the instructions that two cases add.
type Ratio = (&'static str, &'static str, f64);

/// The ratios on each series.
fn ratios(costs: &[Cost], ratios: &[Ratio]) -> Result<Vec<Target>> {
    let target = |costs, (one, other, bound): &Ratio| {
        let (one, other) = (cost_of(costs, one)?, cost_of(costs, other)?);
        let what = format!("{}: instructions added, {} / {}", one.series, one.case, other.case);
        Ok(Target::new(what, one.added / other.added, Bound::AtMost(*bound)))
    };
    by_series(costs).flat_map(|costs| ratios.iter().map(move |ratio| target(costs, ratio))).collect()
}

/// The targets for instructions per packet with [`MOST`] addresses that `--check` enforces.
pub fn for_instructions(costs: &[Cost]) -> Result<Vec<Target>> {
    ratios(costs, &[(TRAFFIC, SETS, 0.4), (TRAFFIC, EBPF, 1.0), (HASHED, EBPF, 1.0), (IPV6, HASHED, 1.3)])
}

/// The targets for instructions per packet with [`MOST`] addresses that are not met, so `--check`
/// cannot enforce them. The last one compares with a receive path without a hook: the chain and the
/// place of the program count, too.
pub fn not_enforced(costs: &[Cost]) -> Result<Vec<Target>> {
    let mut targets = ratios(costs, &[(TRAFFIC, ACCOUNT, 0.6), (ALL, ACCOUNT, 1.0)])?;
    for costs in by_series(costs) {
        let nothing = cost_of(costs, NOTHING)?;
        let added = |case| Ok::<_, anyhow::Error>(cost_of(costs, case)?.instructions - nothing.instructions);
        let what = format!("{}: instructions added with the hook, {TRAFFIC} / {EBPF}", nothing.series);
        targets.push(Target::new(what, added(TRAFFIC)? / added(EBPF)?, Bound::AtMost(1.0)));
    }
    Ok(targets)
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
            cost(SETS, MOST, 300.0, None),
            cost(EBPF, MOST, 160.0, None),
            cost(HASHED, MOST, 160.0, None),
            cost(IPV6, MOST, 240.0, None),
        ];
        let expected = [(0.5, false), (0.9375, true), (1.0, true), (1.5, false)];
        assert_eq!(results(&for_instructions(&costs).unwrap()), expected);
        let both = for_instructions(&[costs.clone(), on_7_3(&costs)].concat()).unwrap();
        assert_eq!(results(&both), [expected, expected].concat());
        assert!(both[0].what.starts_with("6.12: ") && both[4].what.starts_with("7.3: "));
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
    fn figures_that_were_not_measured_miss_their_target() {
        let costs = |added| [TRAFFIC, SETS, EBPF, HASHED, IPV6].map(|case| cost(case, MOST, added, None));
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
