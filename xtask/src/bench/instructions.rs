// SPDX-License-Identifier: GPL-2.0
//! How many instructions a packet costs the kernel.
//!
//! The guest has one CPU, and its clock counts the instructions that it executes, one a nanosecond. pktgen
//! hands packets for others straight to a device's receive path: what it says that a packet took is how many
//! instructions it took, and says the same each time, but for a timer's interrupt here and there.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use vm_harness::guest::Guest;

use super::{
    lab::Lab,
    peers::Account,
    source::{Kind, Pace, Source, Traffic},
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
    /// What the packets are.
    kind: Kind,
    /// What it must have counted afterwards.
    counted: &'static [Counted],
    /// The instructions that ours may add. Whoever has made it cheaper writes that here, too.
    at_most: Option<f64>,
}

/// A command that prints numbers, each of which must be how many there were.
#[derive(Clone, Copy)]
enum Counted {
    Packets(&'static str),
    /// Or a few less: a set of nftables leaves out packets of new addresses while it grows.
    MostPackets(&'static str),
    /// Pairs of addresses, or a few more: where a set of flows is too full to remember all of its flows, some packets of
    /// theirs count as new.
    Flows(&'static str),
}

impl Counted {
    /// Has the guest print them.
    fn check(self, guest: &mut Guest, packets: u64, pairs: u64) -> Result<()> {
        let (command, expected) = match self {
            Self::Packets(command) => (command, packets..=packets),
            Self::MostPackets(command) => (command, packets - packets / 1000..=packets),
            Self::Flows(command) => (command, pairs..=pairs + packets / 100),
        };
        let printed = guest.must(&format!("{ELEMENTS}\n{command}"))?;
        let numbers: Result<Vec<u64>, _> = printed.split_whitespace().map(str::parse).collect();
        let right = numbers.is_ok_and(|all| !all.is_empty() && all.iter().all(|number| expected.contains(number)));
        ensure!(right, "`{command}` says {}, not {expected:?}", printed.trim());
        Ok(())
    }
}

// The names of cases that others refer to. What is public has a target.
const NOTHING: &str = "no rule";
const EMPTY: &str = "empty chain PROMISC";
const EMPTY_NFT: &str = "empty chain PROMISC of nftables";
const EMPTY_IPV6: &str = "empty chain PROMISC of IPv6";
const INGRESS: &str = "empty chain at netdev ingress";
pub const TRAFFIC: &str = "--traffic";
pub const ALL: &str = "--traffic --ipconn --portconn";
pub const ACCOUNT: &str = "ACCOUNT";
pub const SET: &str = "nftables set of senders";
pub const SETS: &str = "nftables sets of senders and receivers";

/// The rule that all others are measured by.
pub const RULE_TRAFFIC: &str = "iptables-legacy -A PROMISC -m traffic --traffic --net 10.0.0.0/16 --name t";
const RULE_ALL: &str = "iptables-legacy -A PROMISC -m traffic --traffic --ipconn --portconn --net 10.0.0.0/16 --name t";

/// The bytes that the table has as sent and as received, in packets.
pub const TABLE: &str =
    "awk 'NR > 1 { out += $2; in_ += $3 } END { printf \"%d %d\", out / 46, in_ / 46 }' /proc/net/xt_traffic/t";
const TABLE_IPV6: &str =
    "awk 'NR > 1 { out += $2; in_ += $3 } END { printf \"%d %d\", out / 64, in_ / 64 }' /proc/net/xt_traffic/t";
/// The connections that addresses have begun and accepted, and those of ports.
const CONNECTIONS: &str = "for file in ipconn portconn; do \
    awk 'NR > 1 { out += $2; in_ += $3 } END { print out, in_ }' /proc/net/xt_traffic/t.$file; done";
/// The frames for others that the device has dropped.
const DROPPED: &str = "ip -j -s -s link show mirror0 | grep -o '\"otherhost\":[0-9]*' | cut -d: -f2";

const CASES: [Case; 16] = [
    Case { name: NOTHING, without: NOTHING, ..RULES },
    Case { name: EMPTY, without: EMPTY, setup: "iptables-legacy -L PROMISC", ..RULES },
    Case { name: "a rule that matches nothing", setup: "iptables-legacy -A PROMISC -s 192.0.2.1", ..RULES },
    Case { name: TRAFFIC, setup: RULE_TRAFFIC, counted: &[Counted::Packets(TABLE)], at_most: Some(230.0), ..RULES },
    Case {
        name: "--traffic, hashed",
        setup: "iptables-legacy -A PROMISC -m traffic --traffic --net 0.0.0.0/0 --name t",
        counted: &[Counted::Packets(TABLE)],
        at_most: Some(322.0),
        ..RULES
    },
    Case {
        name: ALL,
        setup: RULE_ALL,
        counted: &[Counted::Packets(TABLE), Counted::Flows(CONNECTIONS)],
        at_most: Some(387.0),
        ..RULES
    },
    Case {
        name: "all three, each packet a connection",
        setup: RULE_ALL,
        kind: Kind::Ipv4Flows,
        counted: &[Counted::Packets(TABLE), Counted::Packets(CONNECTIONS)],
        at_most: Some(830.0),
        ..RULES
    },
    Case {
        name: ACCOUNT,
        setup: "insmod /xt_ACCOUNT.ko && iptables-legacy -A PROMISC -j ACCOUNT --addr 10.0.0.0/16 --tname t",
        counted: &[Counted::Packets(
            "iptaccount -s -l t | awk -F ';' '/^10/ { out += $3; in_ += $5 } END { printf \"%d %d\", out / 46, in_ / 46 }'",
        )],
        ..RULES
    },
    Case {
        name: EMPTY_NFT,
        without: EMPTY_NFT,
        setup: "iptables-nft -A PROMISC -s 192.0.2.1 && iptables-nft -F PROMISC",
        ..RULES
    },
    Case {
        name: "--traffic, iptables-nft",
        without: EMPTY_NFT,
        setup: "iptables-nft -A PROMISC -m traffic --traffic --net 10.0.0.0/16 --name t",
        counted: &[Counted::Packets(TABLE)],
        at_most: Some(243.0),
        ..RULES
    },
    Case { name: EMPTY_IPV6, without: EMPTY_IPV6, setup: "ip6tables-legacy -L PROMISC", kind: Kind::Ipv6, ..RULES },
    Case {
        name: "--traffic, IPv6",
        without: EMPTY_IPV6,
        setup: "ip6tables-legacy -A PROMISC -m traffic --traffic --net fd00::/48 --name t",
        kind: Kind::Ipv6,
        counted: &[Counted::Packets(TABLE_IPV6)],
        at_most: Some(418.0),
    },
    Case {
        name: "all three, IPv6",
        without: EMPTY_IPV6,
        setup: "ip6tables-legacy -A PROMISC -m traffic --traffic --ipconn --portconn --net fd00::/48 --name t",
        kind: Kind::Ipv6,
        counted: &[Counted::Packets(TABLE_IPV6), Counted::Flows(CONNECTIONS)],
        at_most: Some(605.0),
    },
    Case {
        name: INGRESS,
        without: INGRESS,
        setup: "nft 'add table netdev bench; \
                add chain netdev bench ingress { type filter hook ingress device mirror0 priority 0; }'",
        ..RULES
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
        counted: &[Counted::MostPackets("elements senders")],
        ..RULES
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
        add @senders { ip saddr counter } add @receivers { ip daddr counter }
    }
}
END",
        counted: &[Counted::MostPackets("elements senders && elements receivers")],
        ..RULES
    },
];

/// What most cases are like.
const RULES: Case = Case { name: "", without: EMPTY, setup: "", kind: Kind::Ipv4, counted: &[], at_most: None };

/// Prints the packets that the counters of a set have.
const ELEMENTS: &str = "elements() {
    nft list set netdev bench $1 | grep -o 'counter packets [0-9]*' | awk '{ sum += $3 } END { printf \"%d \", sum }'
}";

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
    /// How many it may add at most, where that is known.
    #[serde(skip)]
    pub at_most: Option<f64>,
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
        install_account(&mut guest, &lab.account)?;
    }
    let source = Source::new(&mut guest)?;
    if !case.setup.is_empty() {
        guest.must(case.setup)?;
    }
    let (mut costs, mut sent, mut pairs) = (Vec::new(), 0, 0);
    for &addresses in numbers {
        step.line(&format!("{}, {addresses} addresses", case.name));
        let packets = PACKETS.max(case.kind.to_all(addresses));
        let traffic = Traffic { addresses, packets, pace: Pace::Each, kind: case.kind };
        let microseconds = source.send_twice(&mut guest, traffic)?;
        sent += 2 * u64::from(packets);
        pairs += u64::from(traffic.pairs());
        let instructions = microseconds * 1000.0 / f64::from(packets);
        costs.push(Cost { case: case.name.into(), addresses, instructions, added: 0.0, at_most: case.at_most });
    }
    for counted in [Counted::Packets(DROPPED)].iter().chain(case.counted) {
        counted.check(&mut guest, sent, pairs)?;
    }
    guest.finish()?;
    Ok(costs)
}

fn install_account(guest: &mut Guest, account: &Account) -> Result<()> {
    for (file, place) in [
        (&account.module, "/xt_ACCOUNT.ko"),
        (&account.library, &format!("{EXTENSIONS}/libxt_ACCOUNT.so")),
        (&account.reader, "/usr/local/bin/iptaccount"),
    ] {
        guest.write(place, &read(file)?)?;
    }
    guest.must("chmod 755 /usr/local/bin/iptaccount").map(drop)
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
