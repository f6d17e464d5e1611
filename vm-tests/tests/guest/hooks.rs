// SPDX-License-Identifier: GPL-2.0-only
//! The functions on the hook PROMISC: when there is one, and that each sees every frame.

use anyhow::{Result, ensure};
use traffic_model::frames::{Ip, mirrored};
use vm_harness::guest::Guest;
use vm_harness::replay::Backend;
use vm_tests::{
    BACKENDS, PROMISC, check_counters, frame, guest_test, hooks, iptables, open_and_send, row, row_after, table,
    under_traffic,
};

/// The programs of iptables and nft's names of their families.
const FAMILIES: [(&str, &str); 2] = [("iptables", "ip"), ("ip6tables", "ip6")];
const COUNT: &str = "-m traffic --traffic --net 10.0.0.0/24 --name t";

fn mirrored_frame(program: &str) -> Vec<u8> {
    match program {
        "iptables" => frame(1),
        _ => mirrored(&Ip::between("2001:db8::1", "2001:db8:1::1").udp((1, 2), &[7; 52])),
    }
}

/// The function of the legacy table filter.
fn legacy_function(family: &str) -> &'static str {
    if family == "ip" { "ipt_do_table" } else { "ip6t_do_table" }
}

/// Checks that the legacy table is on the hook in the initial namespace, and nothing else, or that
/// nothing is.
fn check_hook(guest: &mut Guest, family: &str, after: &str, is_on: bool) -> Result<()> {
    let functions = hooks(guest, "", family, PROMISC)?;
    let want = is_on.then(|| legacy_function(family));
    ensure!(functions == want.as_slice(), "{family}: after {after:?} the functions are {functions:?}");
    Ok(())
}

guest_test!(a_legacy_chain_that_is_empty_and_accepts_is_not_on_the_hook, |guest| {
    guest.must("ip netns add other")?;
    for (program, family) in FAMILIES {
        check_hook(guest, family, "boot", false)?;
        for (rule, is_on) in [
            ("-L", false),
            ("-A INPUT -s ADDRESS -j DROP", false),
            ("-P FORWARD DROP", false),
            ("-L PROMISC -v", false),
            ("-A PROMISC -s ADDRESS", true),
            ("-A PROMISC -s ADDRESS", true),
            ("-Z PROMISC", true),
            ("-D PROMISC 1", true),
            ("-D PROMISC 1", false),
            ("-P PROMISC DROP", true),
            ("-F", true),
            ("-P PROMISC ACCEPT", false),
            ("-N user", false),
            ("-A user -j DROP", false),
            ("-A PROMISC -j user", true),
            ("-P PROMISC DROP", true),
            ("-F PROMISC", true),
            ("-A PROMISC", true),
            ("-P PROMISC ACCEPT", true),
            ("-F PROMISC", false),
            ("-F user", false),
            ("-X user", false),
        ] {
            let rule = rule.replace("ADDRESS", if family == "ip" { "10.0.0.1" } else { "2001:db8::1" });
            iptables(guest, Backend::Legacy, &format!("{program} {rule}"))?;
            check_hook(guest, family, &rule, is_on)?;
        }
        // The control: the other chains are always on their hooks, and other namespaces have none.
        ensure!(
            hooks(guest, "", family, 1)?.contains(&legacy_function(family).to_owned()),
            "{family}: the table is not on INPUT"
        );
        ensure!(hooks(guest, "other", family, PROMISC)?.is_empty(), "{family}: another namespace has a function");
    }
});

// Unregistering a hook drops what waits in NFQUEUE. So a replacement that fails must not do it.
guest_test!(a_replacement_that_fails_leaves_the_legacy_table_on_the_hook, |guest| {
    for (program, family) in FAMILIES {
        iptables(guest, Backend::Legacy, &format!("{program} -L"))?;
        check_hook(guest, family, "-L", false)?;
        let answer = guest.must(&format!("/init replace-stale {program}"))?;
        ensure!(answer == "errno 11\n", "{program}: {answer} instead of EAGAIN");
        let rules = iptables(guest, Backend::Legacy, &format!("{program} -S PROMISC"))?;
        ensure!(rules == "-P PROMISC ACCEPT\n", "{program}: the table was replaced:\n{rules}");
        check_hook(guest, family, "a failed replacement", true)?;
        iptables(guest, Backend::Legacy, &format!("{program} -P PROMISC ACCEPT"))?;
        check_hook(guest, family, "-P PROMISC ACCEPT", false)?;
    }
});

guest_test!(a_restored_legacy_table_is_on_the_hook_while_its_chain_has_rules, |guest| {
    let restore = |guest: &mut Guest, program: &str, options: &str, rules: &str| {
        guest.write("/tmp/rules", format!("*filter\n{rules}COMMIT\n").as_bytes())?;
        guest.must(&format!("/usr/local/sbin/{program}-legacy-restore {options} </tmp/rules"))
    };
    for (program, family) in FAMILIES {
        for (options, rules, is_on) in [
            ("", ":INPUT DROP [0:0]\n-A INPUT -j ACCEPT\n", false),
            ("", ":PROMISC ACCEPT [0:0]\n-A PROMISC -p tcp\n", true),
            ("--noflush", "-A INPUT -j ACCEPT\n", true),
            ("", ":INPUT ACCEPT [0:0]\n", false),
            ("", ":PROMISC DROP [0:0]\n", true),
            ("--noflush", ":PROMISC ACCEPT [0:0]\n", false),
            ("--test", "-A PROMISC -p tcp\n", false),
            ("--noflush", "-A PROMISC -p tcp\n", true),
            ("", "", false),
        ] {
            restore(guest, program, options, rules)?;
            check_hook(guest, family, &format!("{options} {rules}"), is_on)?;
        }
    }
});

guest_test!(a_namespace_with_rules_can_be_deleted, |guest| {
    // With a rule, with a policy, and with neither.
    for rules in [&["-A PROMISC -p tcp"][..], &["-P PROMISC DROP"], &["-A PROMISC -p tcp", "-F PROMISC"], &["-L"]] {
        guest.must("ip netns add other && ip link add up0 type veth peer name down0 netns other")?;
        guest.must("ip -n other link set down0 promisc on up && ip link set up0 up")?;
        for (program, family) in FAMILIES {
            for backend in BACKENDS {
                for rule in rules {
                    guest.must(&format!("ip netns exec other {}", backend.command(&format!("{program} {rule}"))))?;
                }
            }
            let functions = hooks(guest, "other", family, PROMISC)?;
            let legacy = functions.iter().filter(|name| *name == legacy_function(family)).count();
            let want = usize::from(rules.len() == 1 && rules != ["-L"]);
            ensure!(legacy == want, "{family}: after {rules:?} the functions are {functions:?}");
        }
        guest.must("ip netns delete other")?;
        // The namespace ends asynchronously, and its devices with it.
        guest.must("for n in $(seq 300); do test -e /sys/class/net/up0 || exit 0; sleep 0.1; done; exit 1")?;
        for (_, family) in FAMILIES {
            check_hook(guest, family, "deleting another namespace", false)?;
        }
    }
});

// The rule of nf_tables in INPUT keeps the table while PROMISC of the legacy tables changes.
guest_test!(a_frame_after_a_command_has_returned_is_counted, |guest| {
    const ROUNDS: u64 = 25;
    const BURST: u64 = 10;
    iptables(guest, Backend::Nft, &format!("-A INPUT -i none {COUNT}"))?;
    guest.open_port(0)?;
    guest.open_port(1)?;
    let mut round = 0;
    let sent = under_traffic(
        guest,
        |_| frame(2),
        |guest| {
            for _ in 0..ROUNDS / 12 + 1 {
                round += 1;
                iptables(guest, Backend::Legacy, &format!("-A PROMISC {COUNT}"))?;
                guest.send(1, (0..BURST).map(|_| frame(1)))?;
                iptables(guest, Backend::Legacy, "-F PROMISC")?;
                // No rule counts these.
                guest.send(1, [frame(3)])?;
            }
            Ok(())
        },
    )?;
    let text = table(guest, "t")?;
    ensure!(text.contains(&row_after(1, round * BURST)), "after {round} bursts of {BURST} frames:\n{text}");
    ensure!(row(&text, "10.0.0.3")?.is_empty(), "frames without a rule are counted:\n{text}");
    // Frames of the other port arrived all the time, also while there was no rule.
    let other = row(&text, "10.0.0.2")?.first().map_or(0, |bytes| bytes / 100);
    ensure!(other > 0 && other < sent, "{other} of {sent} frames are counted");
    check_hook(guest, "ip", "-F PROMISC", false)?;
});

// The chain is on the hook because of a policy, then of a rule, then of both.
guest_test!(a_rule_counts_every_frame_while_the_policy_changes, |guest| {
    iptables(guest, Backend::Legacy, &format!("-A PROMISC {COUNT}"))?;
    guest.open_port(0)?;
    let mut n = 0;
    let sent = under_traffic(
        guest,
        |_| frame(1),
        |guest| {
            n += 1;
            let policy = if n % 2 == 0 { "ACCEPT" } else { "DROP" };
            iptables(guest, Backend::Legacy, &format!("-P PROMISC {policy}"))?;
            iptables(guest, Backend::Legacy, "ip6tables -P PROMISC DROP")?;
            iptables(guest, Backend::Legacy, &format!("-A PROMISC -m comment --comment number{n}"))?;
            iptables(guest, Backend::Legacy, "ip6tables -P PROMISC ACCEPT")?;
            iptables(guest, Backend::Legacy, "-D PROMISC 2").map(drop)
        },
    )?;
    let text = table(guest, "t")?;
    ensure!(text.contains(&row_after(1, sent)), "{sent} frames were sent, the table has\n{text}");
});

guest_test!(a_verdict_of_one_back_end_hides_nothing_from_the_other, |guest, backend| {
    let other = if backend == Backend::Nft { Backend::Legacy } else { Backend::Nft };
    guest.open_port(0)?;
    for (program, family) in FAMILIES {
        let name = format!("{other}{program}");
        let net = if program == "iptables" { "0.0.0.0/0" } else { "::/0" };
        // The order of the two functions is that in which they were added, or the reverse.
        for first in BACKENDS {
            let count = format!("{program} -A PROMISC -m traffic --traffic --net {net} --name {name}");
            let verdicts =
                ["-P PROMISC DROP", "-A PROMISC -j DROP", "-I PROMISC -g user", "-I PROMISC -p udp -j ACCEPT"];
            iptables(guest, backend, &format!("{program} -N user"))?;
            iptables(guest, backend, &format!("{program} -A user -j DROP"))?;
            if first == other {
                iptables(guest, other, &count)?;
                iptables(guest, backend, &format!("{program} {}", verdicts[0]))?;
            } else {
                iptables(guest, backend, &format!("{program} {}", verdicts[0]))?;
                iptables(guest, other, &count)?;
            }
            for (n, verdict) in (1..).zip(verdicts) {
                iptables(guest, backend, &format!("{program} {verdict}"))?;
                guest.send(0, [mirrored_frame(program)])?;
                let text = table(guest, &name)?;
                let row = row(&text, if program == "iptables" { "10.0.0.1" } else { "2001:db8::1" })?;
                ensure!(row.first() == Some(&(n * 100)), "{backend} has {verdict}, {n} frames were sent:\n{text}");
            }
            ensure!(hooks(guest, "", family, PROMISC)?.len() == 2, "{family}: not both back ends are on the hook");
            for rule in ["-P PROMISC ACCEPT", "-F", "-X"] {
                iptables(guest, backend, &format!("{program} {rule}"))?;
            }
            iptables(guest, other, &format!("{program} -F"))?;
        }
    }
});

guest_test!(both_back_ends_drop_and_both_count, |guest| {
    for (program, _) in FAMILIES {
        for backend in BACKENDS {
            iptables(guest, backend, &format!("{program} -A PROMISC -p udp"))?;
            iptables(guest, backend, &format!("{program} -A PROMISC -j DROP"))?;
            iptables(guest, backend, &format!("{program} -A PROMISC"))?;
        }
        open_and_send(guest, 0, [mirrored_frame(program)])?;
        // Within a table, a verdict ends the chain.
        check_counters(guest, program, "PROMISC", &[(1, 100), (1, 100), (0, 0)])?;
    }
});

// nf_tables runs chains of one family and of `inet` in the order of their priorities.
guest_test!(a_verdict_of_one_table_of_nft_hides_nothing_from_another, |guest| {
    iptables(guest, Backend::Nft, "-A PROMISC -j DROP")?;
    ensure!(guest.must("/init chain inet early mirrored 6 && /init chain ip late mirrored 6")? == "ok\nok\n");
    for table in ["inet early", "ip late"] {
        guest.must(&format!("nft add rule {table} mirrored counter drop"))?;
    }
    open_and_send(guest, 0, (0..3).map(|_| frame(1)))?;
    for table in ["inet early", "ip late"] {
        let text = guest.must(&format!("nft list table {table}"))?;
        ensure!(text.contains("counter packets 3 bytes 300 drop"), "{text}");
    }
});
