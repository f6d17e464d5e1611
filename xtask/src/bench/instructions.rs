// SPDX-License-Identifier: GPL-2.0
//! How many instructions a packet costs the kernel.
//!
//! The guest has one CPU, and its clock counts the instructions that it executes, one a nanosecond. pktgen
//! hands packets for others straight to a device's receive path: what it says that a packet took is how many
//! instructions it took, and says the same each time, but for a timer's interrupt here and there.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use vm_tests::guest::Guest;

use super::{
    lab::Lab,
    source::{Pace, Source},
};
use crate::{ui::Step, workshop::Workshop};

/// How many addresses send and receive.
pub const ADDRESSES: [u32; 3] = [1, 1 << 8, 1 << 16];
/// Packets at least, in each run.
pub const PACKETS: u32 = 20_000;

/// The extensions of the guest's iptables.
const EXTENSIONS: &str = "/usr/local/lib/xtables";

/// Something that looks at packets.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    /// The case whose cost is none of its own.
    without: &'static str,
    /// What is typed in the guest.
    setup: &'static str,
    /// Prints how many packets it has counted, or looked at.
    counted: Option<&'static str>,
}

// The names of cases that others refer to. What is public has a target.
const NOTHING: &str = "no rule";
const EMPTY: &str = "empty chain PROMISC";
const EMPTY_NFT: &str = "empty chain PROMISC of nftables";
const INGRESS: &str = "empty chain at netdev ingress";
pub const TRAFFIC: &str = "--traffic";
pub const ALL: &str = "--traffic --ipconn --portconn";
pub const ACCOUNT: &str = "ACCOUNT";
const SET: &str = "nftables set of senders";
pub const SETS: &str = "nftables sets of senders and receivers";

/// The rule that all others are measured by.
pub const RULE_TRAFFIC: &str = "iptables-legacy -A PROMISC -m traffic --traffic --net 10.0.0.0/16 --name t";

/// The rule's counter.
const RULE: &str = "iptables-legacy -vnxL PROMISC | awk 'NR == 3 { print $1 }'";
/// The bytes that the table has as sent, in packets.
pub const TABLE: &str = "awk 'NR > 1 { sum += $2 } END { printf \"%d\", sum / 46 }' /proc/net/xt_traffic/t";
/// The packets that the set's counters have.
const ELEMENTS: &str = "nft list set netdev bench senders | grep -o 'counter packets [0-9]*' | \
                        awk '{ sum += $3 } END { printf \"%d\", sum }'";

const CASES: [Case; 12] = [
    Case { name: NOTHING, without: NOTHING, setup: "", counted: None },
    Case { name: EMPTY, without: EMPTY, setup: "iptables-legacy -L PROMISC", counted: None },
    Case {
        name: "a rule that matches nothing",
        without: EMPTY,
        setup: "iptables-legacy -A PROMISC -s 192.0.2.1",
        counted: None,
    },
    Case { name: TRAFFIC, without: EMPTY, setup: RULE_TRAFFIC, counted: Some(TABLE) },
    Case {
        name: "--traffic, hashed",
        without: EMPTY,
        setup: "iptables-legacy -A PROMISC -m traffic --traffic --net 0.0.0.0/0 --name t",
        counted: Some(TABLE),
    },
    Case {
        name: ALL,
        without: EMPTY,
        setup: "iptables-legacy -A PROMISC -m traffic --traffic --ipconn --portconn --net 10.0.0.0/16 --name t",
        counted: Some(TABLE),
    },
    Case {
        name: ACCOUNT,
        without: EMPTY,
        setup: "insmod /xt_ACCOUNT.ko && iptables-legacy -A PROMISC -j ACCOUNT --addr 10.0.0.0/16 --tname t",
        counted: Some(RULE),
    },
    Case {
        name: EMPTY_NFT,
        without: EMPTY_NFT,
        setup: "iptables-nft -A PROMISC -s 192.0.2.1 && iptables-nft -F PROMISC",
        counted: None,
    },
    Case {
        name: "--traffic, iptables-nft",
        without: EMPTY_NFT,
        setup: "iptables-nft -A PROMISC -m traffic --traffic --net 10.0.0.0/16 --name t",
        counted: Some(TABLE),
    },
    Case {
        name: INGRESS,
        without: INGRESS,
        setup: "nft 'add table netdev bench; \
                add chain netdev bench ingress { type filter hook ingress device mirror0 priority 0; }'",
        counted: None,
    },
    Case {
        name: SET,
        without: INGRESS,
        setup: "nft -f - <<END
table netdev bench {
    set senders { type ipv4_addr; size 65536; flags dynamic; }
    chain ingress { type filter hook ingress device mirror0 priority 0; add @senders { ip saddr counter }; }
}
END",
        counted: Some(ELEMENTS),
    },
    Case {
        name: SETS,
        without: INGRESS,
        setup: "nft -f - <<END
table netdev bench {
    set senders { type ipv4_addr; size 65536; flags dynamic; }
    set receivers { type ipv4_addr; size 65536; flags dynamic; }
    chain ingress {
        type filter hook ingress device mirror0 priority 0
        add @senders { ip saddr counter }
        add @receivers { ip daddr counter }
    }
}
END",
        counted: Some(ELEMENTS),
    },
];

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// What looks at the packets.
    pub case: String,
    /// How many addresses send and receive.
    pub addresses: u32,
    /// Instructions for a packet, from pktgen and back.
    pub instructions: f64,
    /// Those that would not be executed without the rule.
    pub added: f64,
}

/// Measures every case; only one number of addresses if it is to be `quick`.
pub fn measure(ws: &Workshop, lab: &Lab, quick: bool) -> Result<Vec<Cost>> {
    let numbers = if quick { &ADDRESSES[2..] } else { &ADDRESSES[..] };
    let mut step = ws.step("bench-instructions", "counting instructions")?;
    let mut costs: Vec<Cost> = Vec::new();
    for case in &CASES {
        costs.extend(costs_of(lab, case, numbers, &mut step).with_context(|| case.name.to_owned())?);
    }
    step.finish();
    let whole = costs.clone();
    for cost in &mut costs {
        let without = CASES.iter().find(|case| case.name == cost.case).map(|case| case.without);
        let base = whole.iter().find(|base| Some(base.case.as_str()) == without && base.addresses == cost.addresses);
        cost.added = cost.instructions - base.context("nothing to compare with")?.instructions;
    }
    Ok(costs)
}

/// One guest for one case: what another case leaves behind costs nothing here.
fn costs_of(lab: &Lab, case: &Case, numbers: &[u32], step: &mut Step) -> Result<Vec<Cost>> {
    let mut guest = Guest::boot(&lab.config()?)?;
    if case.name == ACCOUNT {
        guest.write("/xt_ACCOUNT.ko", &read(&lab.account.module)?)?;
        guest.write(&format!("{EXTENSIONS}/libxt_ACCOUNT.so"), &read(&lab.account.library)?)?;
    }
    let source = Source::new(&mut guest)?;
    if !case.setup.is_empty() {
        guest.must(case.setup)?;
    }
    let (mut costs, mut sent) = (Vec::new(), 0);
    for &addresses in numbers {
        step.line(&format!("{}, {addresses} addresses", case.name));
        let packets = PACKETS.max(2 * addresses);
        source.set_up(&mut guest, addresses, packets, Pace::Each)?;
        // Once for all addresses to become known, and once to measure.
        source.run(&mut guest)?;
        let microseconds = source.run(&mut guest)?;
        sent += 2 * u64::from(packets);
        let instructions = microseconds * 1000.0 / f64::from(packets);
        costs.push(Cost { case: case.name.into(), addresses, instructions, added: 0.0 });
    }
    if let Some(command) = case.counted {
        let counted = guest.must(command)?;
        ensure!(counted.trim() == sent.to_string(), "{sent} packets were sent, but {} counted", counted.trim());
    }
    Ok(costs)
}

pub fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_something_to_compare_with() {
        for case in &CASES {
            let base = CASES.iter().find(|base| base.name == case.without);
            assert!(base.is_some_and(|base| base.without == base.name), "{}", case.name);
        }
    }
}
