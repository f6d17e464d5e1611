// SPDX-License-Identifier: GPL-2.0-only
//! The mirror device of a replay, and what it says about the frames.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};

use crate::guest::Guest;
use crate::mirror::{self, DEVICE};

/// The number of frames and bytes for each reason, as `ethtool -S` names it.
pub(super) type Statistics = BTreeMap<String, u64>;

/// What the names in the statistics mean, for frames that do not reach PROMISC.
const REASONS: [(&str, &str); 5] = [
    ("not_ip", "no IP packet"),
    ("broken", "a broken header"),
    ("cut", "the end is missing"),
    ("too_deep", "too many headers around the packet"),
    ("no_memory", "the kernel had no memory"),
];

pub(super) fn add(guest: &mut Guest, sliced: bool) -> Result<()> {
    mirror::add_mirror(guest)?;
    if sliced {
        guest.must(&format!("ethtool --set-priv-flags {DEVICE} sliced on"))?;
    }
    Ok(())
}

/// Prints what the device did not pass to PROMISC. Returns its statistics.
///
/// # Errors
/// When they do not have all of the `sent` frames.
pub(super) fn report(guest: &mut Guest, sent: usize) -> Result<Statistics> {
    let statistics = mirror::statistics(guest, DEVICE)?;
    let packets = statistics.iter().filter(|(name, _)| name.ends_with("_packets"));
    let received: u64 = packets.map(|(_, count)| count).sum();
    ensure!(received == sent as u64, "{sent} frames were sent, but {DEVICE} has received {received}");
    lines(&statistics).iter().for_each(|line| eprintln!("{line}"));
    Ok(statistics)
}

/// A line for each reason.
fn lines(statistics: &Statistics) -> Vec<String> {
    let count = |name: &str, unit: &str| statistics.get(&format!("rx_{name}_{unit}")).copied().unwrap_or(0);
    let reasons = REASONS.iter().filter(|(name, _)| count(name, "packets") > 0);
    let line = |(name, reason): &(&str, &str)| {
        let [frames, bytes] = ["packets", "bytes"].map(|unit| count(name, unit));
        format!("{DEVICE}: {frames} frames ({bytes} bytes) did not reach PROMISC: {reason} ({name})")
    };
    reasons.map(line).collect()
}

/// Compares the device's statistics with the model's.
///
/// # Errors
/// When they differ: with all differences.
pub(super) fn check(got: &Statistics, want: &Statistics) -> Result<()> {
    let names: BTreeSet<_> = got.keys().chain(want.keys()).collect();
    let differs = names.into_iter().filter(|name| got.get(*name) != want.get(*name));
    let lines: Vec<_> = differs
        .map(|name| {
            let [got, want] = [got, want].map(|statistics| statistics.get(name).copied().unwrap_or(0));
            format!("{DEVICE}: {name} is {got}, the model has {want}")
        })
        .collect();
    ensure!(lines.is_empty(), "{}", lines.join("\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(counts: &[(&str, u64)]) -> Statistics {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn what_did_not_reach_promisc_is_reported_by_reason() {
        let counts = statistics(&[
            ("rx_ipv4_packets", 5),
            ("rx_ipv4_bytes", 500),
            ("rx_cut_packets", 2),
            ("rx_cut_bytes", 128),
            ("rx_not_ip_packets", 1),
            ("rx_not_ip_bytes", 60),
        ]);
        let want = [
            "mirror0: 1 frames (60 bytes) did not reach PROMISC: no IP packet (not_ip)",
            "mirror0: 2 frames (128 bytes) did not reach PROMISC: the end is missing (cut)",
        ];
        assert_eq!(lines(&counts), want);
    }

    #[test]
    fn differences_from_the_model_are_an_error() {
        let [one, other] = [3, 4].map(|count| statistics(&[("rx_ipv6_packets", count)]));
        assert!(check(&one, &one).is_ok());
        let error = check(&one, &other).unwrap_err().to_string();
        assert_eq!(error, "mirror0: rx_ipv6_packets is 3, the model has 4");
        assert!(check(&one, &Statistics::new()).is_err() && check(&Statistics::new(), &one).is_err());
    }
}
