// SPDX-License-Identifier: GPL-2.0-only
//! The number of instructions that the kernel executes per packet, and for reading a table.
//!
//! The guest has one CPU, and its clock advances by one nanosecond per executed instruction:
//! <https://www.qemu.org/docs/master/devel/tcg-icount.html>. pktgen passes packets for other hosts
//! to a device's receive path. The time that it reports per packet is the number of instructions
//! per packet. It is repeatable, except for a few timer interrupts.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use serde::{Deserialize, Serialize};
use vm_harness::guest::Guest;

use super::env::BenchEnv;
use super::peers::EBPF_PROGRAMS;
use super::pktgen::{self, Kind, Pace, Traffic};
use crate::ui::Step;
use crate::workspace::Workspace;

/// The numbers of addresses that send and receive.
pub const ADDRESSES: &[u32] = &[1, 1 << 8, MOST];
/// The largest of [`ADDRESSES`]. All targets are for this number.
pub const MOST: u32 = 1 << 16;
/// The smallest number of packets in a run.
pub const PACKETS: u32 = 20_000;
/// The number of times that a table is read.
const READS: u32 = 20;

/// The kernel series of the limits, in their order.
pub const SERIES: [&str; 2] = ["6.12", "7.3"];
/// How many instructions two runs of the same code can differ. The limit 0 allows these.
const NOISE: f64 = 2.0;

/// One row of the table of instructions.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    /// The case to compare with: the same without the rule. It precedes this case in [`CASES`].
    without: &'static str,
    /// The shell commands that add the rule.
    setup: &'static str,
    /// What is copied to the guest for the rule.
    peer: Option<Peer>,
    kind: Kind,
    /// The shell command that prints how many packets have reached the hook or its place.
    received: &'static str,
    /// What the rule must have counted afterwards.
    counted: &'static [Counted],
    /// The most instructions that the rule may add on each of [`SERIES`], for [`MOST`] addresses.
    /// Lower it when the code becomes faster. Rows in a hash table need some more room: each kernel
    /// image draws another hash key, and the lengths of the chains differ with it. One module has
    /// cost from 404 to 409 instructions with IPv6. So does the array of flows: a new flow has cost
    /// from 1000 to 1135.
    limits: Option<[f64; SERIES.len()]>,
    /// Whether the check of the limits leaves the case out, because no limit or target needs it.
    extra: bool,
}

/// A counter that is built here.
#[derive(Clone, Copy)]
enum Peer {
    /// `ACCOUNT` of xtables-addons.
    Account,
    /// The programs in eBPF.
    Ebpf,
}

/// A shell command that prints numbers, and what each of them must be.
#[derive(Clone, Copy)]
enum Counted {
    /// The number of packets.
    Packets(&'static str),
    /// The number of pairs of addresses, or slightly more: if a flow set is full, it forgets flows,
    /// and their next packets count as new connections.
    Flows(&'static str),
    /// The number of packets, or slightly fewer: a set of nftables can skip packets of new
    /// addresses while the kernel changes its hash table.
    Elements(&'static str),
}

impl Counted {
    /// Runs the command in the guest and checks the numbers.
    fn check(self, guest: &mut Guest, packets: u64, pairs: u64) -> Result<()> {
        let (command, expected) = match self {
            Self::Packets(command) => (command, packets..=packets),
            Self::Flows(command) => (command, pairs..=pairs + packets / 100),
            Self::Elements(command) => (command, packets - packets / 200..=packets),
        };
        let printed = guest.must(&format!("{ELEMENTS}\n{command}"))?;
        let numbers: Result<Vec<u64>, _> = printed.split_whitespace().map(str::parse).collect();
        let right = numbers.is_ok_and(|all| !all.is_empty() && all.iter().all(|number| expected.contains(number)));
        ensure!(right, "`{command}` printed {}, expected {expected:?}", printed.trim());
        Ok(())
    }
}

// The names of cases that other cases or targets refer to.
pub const NOTHING: &str = "no rule, hook not in use";
const UNUSED: &str = "legacy table, PROMISC not used";
const EMPTY: &str = "empty chain PROMISC";
const EMPTY_NFT: &str = "empty chain PROMISC, iptables-nft";
const EMPTY_IPV6: &str = "empty chain PROMISC, IPv6";
const EMPTY_MIRROR: &str = "empty chain PROMISC, mirror device";
pub const MIRROR: &str = "--traffic, mirror device";
const EMPTY_MIRROR_IPV6: &str = "empty chain PROMISC, IPv6, mirror device";
pub const MIRROR_IPV6: &str = "--traffic, IPv6, mirror device";
const INGRESS: &str = "empty chain at netdev ingress";
pub const TRAFFIC: &str = "--traffic";
pub const HASHED: &str = "--traffic, hashed rows (0.0.0.0/0)";
pub const IPV6: &str = "--traffic, IPv6 (hashed rows)";
pub const ALL: &str = "--traffic --ipconn --portconn";
pub const ACCOUNT: &str = "ACCOUNT";
pub const SETS: &str = "nftables sets of senders and receivers";
const EMPTY_EBPF: &str = "empty eBPF program at tc ingress";
pub const EBPF: &str = "eBPF, per-CPU hash";

/// The shell command that puts a chain of a legacy table on the hook: without a rule and with the
/// policy ACCEPT, it is not there. The verdict does not matter on this hook.
macro_rules! policy {
    ($program:literal) => {
        concat!($program, " -P PROMISC DROP")
    };
}

/// The shell command that adds a rule to the chain of [`policy`].
macro_rules! legacy {
    ($program:literal, $rule:expr) => {
        concat!(policy!($program), " && ", $program, " -A PROMISC ", $rule)
    };
}

/// A rule of our own.
macro_rules! rule {
    ($options:literal, $network:literal) => {
        concat!("-m traffic ", $options, " --net ", $network, " --name t")
    };
}

/// The shell commands that make a mirror device of the port.
macro_rules! mirror {
    ($setup:expr) => {
        concat!("ip link add link mirror0 name m-mirror0 type mirror && ip link set m-mirror0 up && ", $setup)
    };
}

/// The rule of [`TRAFFIC`].
pub const RULE_TRAFFIC: &str = legacy!("iptables-legacy", rule!("--traffic", "10.0.0.0/16"));
const RULE_ALL: &str = legacy!("iptables-legacy", rule!("--traffic --ipconn --portconn", "10.0.0.0/16"));

/// Prints the sent and the received bytes of a table, divided by the size of a packet.
pub const TABLE: &str =
    "awk 'NR > 1 { out += $2; in_ += $3 } END { printf \"%d %d\", out / 46, in_ / 46 }' /proc/net/xt_traffic/t";
const TABLE_IPV6: &str =
    "awk 'NR > 1 { out += $2; in_ += $3 } END { printf \"%d %d\", out / 64, in_ / 64 }' /proc/net/xt_traffic/t";
/// Prints the started and the accepted connections of all addresses, and of all ports.
const CONNECTIONS: &str = "for file in ipconn portconn; do \
    awk 'NR > 1 { out += $2; in_ += $3 } END { print out, in_ }' /proc/net/xt_traffic/t.$file; done";
/// Prints the number of frames for other hosts that the device has dropped.
const DROPPED: &str = "ip -j -s -s link show mirror0 | grep -o '\"otherhost\":[0-9]*' | cut -d: -f2";
/// Prints the number of packets that the mirror device has passed to the hook.
const MIRRORED: &str = "ethtool -S m-mirror0 | awk '/rx_ipv4_packets/ { print $2 }'";
const MIRRORED_IPV6: &str = "ethtool -S m-mirror0 | awk '/rx_ipv6_packets/ { print $2 }'";

/// Prints the bytes that the rows of a map in eBPF have counted, divided by the size of a packet.
/// The packets are UDP, so the columns for TCP and for other protocols must be 0. Prints nothing if
/// they are not, or if an address has no row.
const SENDERS_EBPF: &[Counted] =
    &[Counted::Packets("/init bpf sum | awk '$1 == 32768 && $2 + $4 == 0 { printf \"%d\", $3 / 46 }'")];
const BOTH_EBPF: &[Counted] = &[Counted::Packets(
    "/init bpf sum | awk '$1 == 65536 && $2 + $4 + $5 + $7 == 0 { printf \"%d %d\", $3 / 46, $6 / 46 }'",
)];

const CASES: &[Case] = &[
    empty(NOTHING, ""),
    // Without a rule and with the policy ACCEPT, the chain is not on the hook.
    Case { without: NOTHING, limits: Some([0.0, 0.0]), ..empty(UNUSED, "iptables-legacy -L PROMISC") },
    empty(EMPTY, policy!("iptables-legacy")),
    Case { name: "a rule that matches nothing", setup: legacy!("iptables-legacy", "-s 192.0.2.1"), ..RULES },
    ours(TRAFFIC, RULE_TRAFFIC, [222.0, 222.0]),
    ours(HASHED, legacy!("iptables-legacy", rule!("--traffic", "0.0.0.0/0")), [325.0, 325.0]),
    Case { counted: &[Counted::Packets(TABLE), Counted::Flows(CONNECTIONS)], ..ours(ALL, RULE_ALL, [401.0, 401.0]) },
    Case {
        kind: Kind::Ipv4Flows,
        counted: &[Counted::Packets(TABLE), Counted::Packets(CONNECTIONS)],
        ..ours("all three, each packet a connection", RULE_ALL, [1160.0, 1160.0])
    },
    Case {
        name: ACCOUNT,
        peer: Some(Peer::Account),
        setup: concat!(
            "insmod /xt_ACCOUNT.ko && ",
            legacy!("iptables-legacy", "-j ACCOUNT --addr 10.0.0.0/16 --tname t")
        ),
        counted: &[Counted::Packets(
            "iptaccount -s -l t | awk -F ';' '/^10/ { out += $3; in_ += $5 } END { printf \"%d %d\", out / 46, in_ / 46 }'",
        )],
        ..RULES
    },
    empty(EMPTY_NFT, "iptables-nft -A PROMISC -s 192.0.2.1 && iptables-nft -F PROMISC"),
    Case {
        without: EMPTY_NFT,
        ..ours(
            "--traffic, iptables-nft",
            concat!("iptables-nft -A PROMISC ", rule!("--traffic", "10.0.0.0/16")),
            [232.0, 234.0],
        )
    },
    Case { received: MIRRORED, ..empty(EMPTY_MIRROR, mirror!(policy!("iptables-legacy"))) },
    Case {
        without: EMPTY_MIRROR,
        received: MIRRORED,
        ..ours(MIRROR, mirror!(legacy!("iptables-legacy", rule!("--traffic", "10.0.0.0/16"))), [222.0, 222.0])
    },
    Case { kind: Kind::Ipv6, ..empty(EMPTY_IPV6, policy!("ip6tables-legacy")) },
    Case {
        without: EMPTY_IPV6,
        kind: Kind::Ipv6,
        counted: &[Counted::Packets(TABLE_IPV6)],
        ..ours(IPV6, legacy!("ip6tables-legacy", rule!("--traffic", "fd00::/48")), [412.0, 412.0])
    },
    Case {
        without: EMPTY_IPV6,
        kind: Kind::Ipv6,
        counted: &[Counted::Packets(TABLE_IPV6), Counted::Flows(CONNECTIONS)],
        ..ours(
            "all three, IPv6",
            legacy!("ip6tables-legacy", rule!("--traffic --ipconn --portconn", "fd00::/48")),
            [616.0, 616.0],
        )
    },
    Case {
        kind: Kind::Ipv6,
        received: MIRRORED_IPV6,
        ..empty(EMPTY_MIRROR_IPV6, mirror!(policy!("ip6tables-legacy")))
    },
    Case {
        without: EMPTY_MIRROR_IPV6,
        kind: Kind::Ipv6,
        received: MIRRORED_IPV6,
        counted: &[Counted::Packets(TABLE_IPV6)],
        ..ours(MIRROR_IPV6, mirror!(legacy!("ip6tables-legacy", rule!("--traffic", "fd00::/48"))), [412.0, 412.0])
    },
    empty(
        INGRESS,
        "nft 'add table netdev bench; \
         add chain netdev bench ingress { type filter hook ingress device mirror0 priority 0; }'",
    ),
    // A set skips some packets with new addresses while its hash table grows. The kernel allocates
    // buckets for as many elements as the lower 16 bits of the size say, which are 0 for 65536:
    // <https://github.com/torvalds/linux/blob/v6.12/include/linux/rhashtable-types.h#L58>
    // <https://github.com/torvalds/linux/blob/v6.12/net/netfilter/nft_set_hash.c#L522>
    Case {
        name: "nftables set of senders",
        without: INGRESS,
        setup: "nft -f - <<END
table netdev bench {
    set senders { type ipv4_addr; size 65535; flags dynamic; }
    chain ingress { type filter hook ingress device mirror0 priority 0; add @senders { ip saddr counter }; }
}
END",
        counted: &[Counted::Elements("elements senders")],
        ..RULES
    },
    Case {
        name: SETS,
        without: INGRESS,
        setup: "nft -f - <<END
table netdev bench {
    set senders { type ipv4_addr; size 65535; flags dynamic; }
    set receivers { type ipv4_addr; size 65535; flags dynamic; }
    chain ingress {
        type filter hook ingress device mirror0 priority 0
        add @senders { ip saddr counter } add @receivers { ip daddr counter }
    }
}
END",
        counted: &[Counted::Elements("elements senders && elements receivers")],
        ..RULES
    },
    Case { peer: Some(Peer::Ebpf), ..empty(EMPTY_EBPF, "/init bpf attach mirror0 /ebpf/nothing") },
    ebpf("eBPF, per-CPU hash of senders", "/init bpf attach mirror0 /ebpf/senders hash 131072 8 3", SENDERS_EBPF),
    Case { extra: false, ..ebpf(EBPF, "/init bpf attach mirror0 /ebpf/count hash 131072 8 6", BOTH_EBPF) },
    ebpf("eBPF, per-CPU LRU hash", "/init bpf attach mirror0 /ebpf/count lru 131072 8 6", BOTH_EBPF),
    ebpf("eBPF, per-CPU array (/16)", "/init bpf attach mirror0 /ebpf/array array 65536 4 6", BOTH_EBPF),
];

impl Case {
    fn limit(&self, series: &str) -> Option<f64> {
        let number = SERIES.iter().position(|of| *of == series)?;
        self.limits.map(|limits| limits[number])
    }
}

/// The defaults of a case.
const RULES: Case = Case {
    name: "",
    without: EMPTY,
    setup: "",
    peer: None,
    kind: Kind::Ipv4,
    received: DROPPED,
    counted: &[],
    limits: None,
    extra: false,
};

/// A case that other cases are compared with.
const fn empty(name: &'static str, setup: &'static str) -> Case {
    Case { name, without: name, setup, ..RULES }
}

/// A rule of our own, with the limits of its cost.
const fn ours(name: &'static str, setup: &'static str, limits: [f64; SERIES.len()]) -> Case {
    Case { name, setup, counted: &[Counted::Packets(TABLE)], limits: Some(limits), ..RULES }
}

/// A program in eBPF with a map. The map has twice as many entries as there are addresses: its
/// buckets are short, and an LRU map evicts no address.
const fn ebpf(name: &'static str, setup: &'static str, counted: &'static [Counted]) -> Case {
    Case { name, without: EMPTY_EBPF, setup, peer: Some(Peer::Ebpf), counted, extra: true, ..RULES }
}

/// A shell function that prints the sum of the packet counters of a set.
const ELEMENTS: &str = "elements() {
    nft list set netdev bench $1 | grep -o 'counter packets [0-9]*' | awk '{ sum += $3 } END { printf \"%d \", sum }'
}";

/// The result of a case for one number of addresses.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Cost {
    /// The series of the kernel.
    pub series: String,
    /// The name of the case.
    pub case: String,
    /// The number of addresses that send and receive.
    pub addresses: u32,
    /// Instructions per packet, including those of pktgen.
    pub instructions: f64,
    /// Instructions per packet that the rule adds.
    pub added: f64,
    /// The most instructions that the rule may add, if there is a limit.
    pub limit: Option<f64>,
}

/// The costs on each series, in the order in which they were measured.
pub fn by_series(costs: &[Cost]) -> impl Iterator<Item = &[Cost]> {
    costs.chunk_by(|one, next| one.series == next.series)
}

impl Cost {
    /// Whether the limit is met. A rule that adds nothing was not measured properly. With the limit
    /// 0, nothing may be added or saved.
    pub fn met(&self) -> Option<bool> {
        let within = |limit| if limit == 0.0 { -NOISE..=NOISE } else { f64::MIN_POSITIVE..=limit };
        self.limit.map(|limit| within(limit).contains(&self.added))
    }
}

/// Measures the cases that limits and targets need, or also the `extra` ones, on one kernel; if
/// `quick`, only with [`MOST`] addresses.
pub fn measure(ws: &Workspace, env: &BenchEnv, quick: bool, extra: bool) -> Result<Vec<Cost>> {
    let numbers = if quick { &[MOST] } else { ADDRESSES };
    let series = &env.choice.series;
    let mut step =
        ws.step(&format!("bench-instructions-{series}"), format!("counting instructions on Linux {series}"))?;
    let mut costs: Vec<Cost> = Vec::new();
    for case in CASES.iter().filter(|case| extra || !case.extra) {
        measure_case(env, case, numbers, &mut costs, &mut step).with_context(|| case.name.to_owned())?;
    }
    step.finish();
    Ok(costs)
}

/// Measures a case in a guest of its own, so that cases do not influence each other. Adds the
/// results to `costs`.
fn measure_case(env: &BenchEnv, case: &Case, numbers: &[u32], costs: &mut Vec<Cost>, step: &mut Step) -> Result<()> {
    let mut guest = Guest::boot(&env.config()?)?;
    match case.peer {
        Some(Peer::Account) => install_account(&mut guest, &env.account)?,
        Some(Peer::Ebpf) => install_ebpf(&mut guest, &env.ebpf)?,
        None => {}
    }
    pktgen::prepare(&mut guest)?;
    guest.must(case.setup)?;
    let (mut sent, mut pairs) = (0, 0);
    for &addresses in numbers {
        step.line(&format!("{}, {addresses} addresses", case.name));
        let packets = PACKETS.max(case.kind.min_packets(addresses));
        let traffic = Traffic { addresses, packets, pace: Pace::Each, kind: case.kind };
        let instructions = traffic.send_known(&mut guest)? * 1000.0 / f64::from(packets);
        sent += u64::from(traffic.runs()) * u64::from(packets);
        pairs += u64::from(traffic.pairs());
        let base = costs.iter().find(|base| base.case == case.without && base.addresses == addresses);
        let added = base.map_or(0.0, |base| instructions - base.instructions);
        let limit = case.limit(&env.choice.series).filter(|_| addresses == MOST);
        let series = env.choice.series.clone();
        costs.push(Cost { series, case: case.name.into(), addresses, instructions, added, limit });
    }
    for counted in [Counted::Packets(case.received)].iter().chain(case.counted) {
        counted.check(&mut guest, sent, pairs)?;
    }
    guest.finish()
}

/// Copies the built `ACCOUNT` to the guest.
fn install_account(guest: &mut Guest, folder: &Path) -> Result<()> {
    for (file, place) in [
        ("extensions/ACCOUNT/xt_ACCOUNT.ko", "/xt_ACCOUNT.ko"),
        ("libxt_ACCOUNT.so", "/usr/local/lib/xtables/libxt_ACCOUNT.so"),
        ("iptaccount", "/usr/local/bin/iptaccount"),
    ] {
        guest.write(place, &fs::read(folder.join(file))?)?;
    }
    guest.must("chmod 755 /usr/local/bin/iptaccount").map(drop)
}

/// Copies the programs in eBPF to the guest.
fn install_ebpf(guest: &mut Guest, folder: &Path) -> Result<()> {
    guest.must("mkdir /ebpf")?;
    for program in EBPF_PROGRAMS {
        guest.write(&format!("/ebpf/{program}"), &fs::read(folder.join(program))?)?;
    }
    Ok(())
}

/// The cost of reading a table once.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Reading {
    /// The rows of the table.
    pub rows: u32,
    /// Instructions for the whole table.
    pub instructions: f64,
}

/// Reads a table with a row for each of [`MOST`] addresses.
pub fn measure_reading(ws: &Workspace, env: &BenchEnv) -> Result<Reading> {
    let step = ws.step("bench-reading", "reading a table")?;
    let mut guest = Guest::boot(&env.config()?)?;
    pktgen::prepare(&mut guest)?;
    guest.must(RULE_TRAFFIC)?;
    let packets = PACKETS.max(MOST);
    Traffic { addresses: MOST, packets, pace: Pace::Each, kind: Kind::Ipv4 }.send(&mut guest)?;
    let lines = guest.must("wc -l </proc/net/xt_traffic/t")?;
    ensure!(lines.trim() == (MOST + 1).to_string(), "the table has {} lines, expected {}", lines.trim(), MOST + 1);
    let times = guest.must(&format!(
        "read begun rest </proc/uptime; n=0; \
         while [ $n -lt {READS} ]; do cat /proc/net/xt_traffic/t >/dev/null; n=$((n + 1)); done; \
         read ended rest </proc/uptime; echo $begun $ended"
    ))?;
    guest.finish()?;
    step.finish();
    let seconds: Vec<f64> = times.split_whitespace().filter_map(|time| time.parse().ok()).collect();
    let &[begun, ended] = &seconds[..] else { bail!("/proc/uptime has no numbers: {}", times.trim()) };
    Ok(Reading { rows: MOST, instructions: (ended - begun) * 1e9 / f64::from(READS) })
}

#[cfg(test)]
mod tests {
    use super::{super::report::tests::cost, *};
    use crate::sources::pins::Pins;

    #[test]
    fn every_case_is_compared_with_an_earlier_base_case() {
        for (number, case) in CASES.iter().enumerate() {
            let base = CASES[..=number].iter().find(|base| base.name == case.without);
            assert!(base.is_some_and(|base| base.without == base.name), "{}", case.name);
        }
    }

    #[test]
    fn each_series_has_limits() {
        let pins = Pins::parse(include_str!("../../pins.toml")).unwrap();
        assert_eq!(pins.kernel.series.keys().collect::<Vec<_>>(), SERIES);
        for case in CASES {
            assert_eq!(SERIES.map(|series| case.limit(series).is_some()), [case.limits.is_some(); SERIES.len()]);
            assert_eq!(case.limit("0.0"), None);
        }
    }

    #[test]
    fn the_document_has_a_row_with_the_limits_of_every_case() {
        let document = include_str!("../../../docs/performance.md");
        let table = document.split("bench:instructions -->").nth(1).unwrap();
        let mut rows = table.lines().filter(|line| line.starts_with('|'));
        let names: Vec<_> = rows.next().unwrap().split('|').map(str::trim).collect();
        let column = |series: &str| {
            let first = names.iter().position(|name| *name == format!("{series}: instructions")).unwrap();
            assert_eq!(names[first + 2], "limit");
            first + 2
        };
        let rows = rows.skip(1);
        let shown = rows.map(|row| {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            (cells[1].replace('`', ""), SERIES.map(|series| cells[column(series)].to_owned()))
        });
        let limit = |case: &Case, series: &str| case.limit(series).map(|limit| limit.to_string()).unwrap_or_default();
        let expected = CASES.iter().map(|case| (case.name.to_owned(), SERIES.map(|series| limit(case, series))));
        assert_eq!(shown.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_limit_is_met_by_a_positive_cost_up_to_it() {
        let met = |added| cost("ours", 1, added, Some(250.0)).met();
        assert_eq!([250.0, 251.0, 0.0, -1.0].map(met), [Some(true), Some(false), Some(false), Some(false)]);
    }

    #[test]
    fn the_limit_0_allows_the_noise_only() {
        let met = |added| cost("unused", 1, added, Some(0.0)).met();
        assert_eq!([0.0, 1.0, -1.0, 3.0, -3.0].map(met), [true, true, true, false, false].map(Some));
    }
}
