// SPDX-License-Identifier: GPL-2.0-only
//! All iptables commands for built-in chains, with the chain PROMISC.

use anyhow::{Result, ensure};
use insta::assert_snapshot;
use vm_harness::guest::Guest;
use vm_harness::replay::{Backend, TABLES};
use vm_tests::{BACKENDS, frame, guest_test, iptables, open_and_send, table_files, without_comments};

/// The example of the specification.
const RSN: &str = "-A PROMISC -m traffic --traffic --portconn --ipconn \
                   --netmask 255.255.240.0 --netbase 193.11.176.0 --nointernal --name RSN";

const RULES: [&str; 9] = [
    "-A PROMISC -m traffic --traffic --net 10.0.0.0/8 --name cidr",
    "-A PROMISC -i eth0 -m traffic --traffic --netbase 193.11.176.0 --netmask 255.255.240.0 --nointernal --name base",
    "-A PROMISC -m traffic ! --nointernal --traffic --net 0.0.0.0/0 --name A-z_9 -j ACCEPT",
    "-A PROMISC -m traffic --traffic --net 10.1.2.3/32 --name one -m comment --comment \"and more\"",
    RSN,
    "-A PROMISC -m traffic --clearonread --hashsize 4096 ! --nointernal --portconn --net 10.0.0.0/8 --name ports",
    "-A PROMISC -m traffic --prefix 24 --traffic --net 10.0.0.0/8 --name subnets --nointernal",
    "-A PROMISC -m traffic --ipconn --net 10.0.0.0/8 --name default --prefix 32",
    "-I PROMISC 2 -s 10.0.0.0/8 -j DROP",
];

const RULES6: [&str; 9] = [
    "-A PROMISC -m traffic --traffic --net 2001:db8::/32 --name cidr",
    "-A PROMISC -i eth0 -m traffic --traffic --netbase 2001:0DB8:0:0:: --netmask ffff:ffff:: --nointernal --name base",
    "-A PROMISC -m traffic ! --nointernal --ipconn --net ::/0 --name A-z_9 -j ACCEPT",
    "-A PROMISC -m traffic --traffic --net 2001:db8::1/128 --name one -m comment --comment \"and more\"",
    "-A PROMISC -m traffic --traffic --portconn --ipconn --netmask ffff:ffff:f000:: --netbase 2001:db8:b000:: \
     --nointernal --name RSN",
    "-A PROMISC -m traffic --clearonread --hashsize 1 ! --nointernal --portconn --net fe80::/10 --name ports",
    "-A PROMISC -m traffic --prefix 0 --traffic --net ::/0 --name everything --hashsize 4",
    "-A PROMISC -m traffic --ipconn --net 2001:db8::/32 --name default --prefix 128",
    "-I PROMISC 2 -s 2001:db8::/32 -j DROP",
];

fn add(guest: &mut Guest, backend: Backend, program: &str, rules: &[&str]) -> Result<()> {
    rules.iter().try_for_each(|rule| iptables(guest, backend, &format!("{program} {rule}")).map(drop))
}

/// The saved rules of the table filter.
fn saved(guest: &mut Guest, tool: &str) -> Result<String> {
    Ok(without_comments(&guest.must(&format!("{tool}-save -t filter"))?))
}

/// Saves and restores rules, and prints and adds them again. The rules must not change. The
/// snapshots are `saved` and `printed` with a suffix.
fn round_trip(guest: &mut Guest, backend: Backend, program: &str, rules: &[&str], suffix: &str) -> Result<()> {
    let tool = format!("/usr/local/sbin/{program}-{backend}");
    add(guest, backend, program, rules)?;
    iptables(guest, backend, &format!("{program} -P PROMISC DROP"))?;
    let before = saved(guest, &tool)?;
    assert_snapshot!(format!("saved{suffix}"), before);
    guest.must(&format!("{tool}-save >/tmp/rules && {tool}-restore </tmp/rules"))?;
    ensure!(saved(guest, &tool)? == before, "restoring over the same rules changes them");
    guest.must(&format!("{tool} -F; {tool} -P PROMISC ACCEPT; {tool}-restore --test </tmp/rules"))?;
    guest.must(&format!("{tool}-restore </tmp/rules"))?;
    ensure!(saved(guest, &tool)? == before, "restoring into empty chains changes the rules");
    // Each printed line is a command that adds the rule.
    let printed = iptables(guest, backend, &format!("{program} -S PROMISC"))?;
    assert_snapshot!(format!("printed{suffix}"), printed);
    iptables(guest, backend, &format!("{program} -F PROMISC"))?;
    add(guest, backend, program, &printed.lines().collect::<Vec<_>>())?;
    let again = iptables(guest, backend, &format!("{program} -S PROMISC"))?;
    ensure!(again == printed, "adding the printed rules changes them:\n{again}");
    Ok(())
}

guest_test!(save_and_restore_is_a_round_trip, |guest, backend| {
    round_trip(guest, backend, "iptables", &RULES, "")?;
});

guest_test!(save_and_restore_is_a_round_trip_for_ipv6, |guest, backend| {
    round_trip(guest, backend, "ip6tables", &RULES6, "6")?;
});

/// The lines about PROMISC in saved rules, with counters.
fn saved_promisc(guest: &mut Guest, tool: &str) -> Result<String> {
    let saved = guest.must(&format!("{tool}-save -c -t filter"))?;
    ensure!(saved.contains(":OUTPUT ACCEPT"), "{tool} saves no table filter:\n{saved}");
    Ok(saved.lines().filter(|line| line.contains("PROMISC")).map(|line| format!("{line}\n")).collect())
}

// A kernel without the hook would refuse to restore the chain.
guest_test!(promisc_is_saved_only_if_it_has_rules_or_another_policy, |guest, backend| {
    for program in ["iptables", "ip6tables"] {
        let tool = format!("/usr/local/sbin/{program}-{backend}");
        for (command, expected) in [
            ("-A INPUT -j ACCEPT", ""),
            ("-A PROMISC -j ACCEPT", ":PROMISC ACCEPT [0:0]\n[0:0] -A PROMISC -j ACCEPT\n"),
            ("-P PROMISC DROP", ":PROMISC DROP [0:0]\n[0:0] -A PROMISC -j ACCEPT\n"),
            ("-F PROMISC", ":PROMISC DROP [0:0]\n"),
            ("-P PROMISC ACCEPT", ""),
        ] {
            iptables(guest, backend, &format!("{program} {command}"))?;
            let text = saved_promisc(guest, &tool)?;
            ensure!(text == expected, "{tool} {command}: saved:\n{text}");
            // The list has it in any case.
            let listed = iptables(guest, backend, &format!("{program} -S PROMISC"))?;
            ensure!(listed.starts_with("-P PROMISC "), "{tool} {command}: listed:\n{listed}");
        }
        // The counters of the policy do not make a difference.
        guest.write("/tmp/rules", b"*filter\n:PROMISC ACCEPT [23:2342]\nCOMMIT\n")?;
        guest.must(&format!("{tool}-restore -c --noflush </tmp/rules"))?;
        ensure!(iptables(guest, backend, &format!("{program} -v -S PROMISC"))? == "-P PROMISC ACCEPT -c 23 2342\n");
        ensure!(saved_promisc(guest, &tool)?.is_empty(), "{tool} saves a chain for its counters");
        // Rules saved without the chain replace those of the chain, too.
        guest.must(&format!("{tool}-save >/tmp/rules"))?;
        iptables(guest, backend, &format!("{program} -A PROMISC -j ACCEPT"))?;
        guest.must(&format!("{tool}-restore </tmp/rules"))?;
        let text = saved_promisc(guest, &tool)?;
        ensure!(text.is_empty(), "{tool}: after restoring rules without the chain:\n{text}");
    }
});

guest_test!(the_example_of_the_specification, |guest, backend| {
    iptables(guest, backend, RSN)?;
    let printed = "-A PROMISC -m traffic --traffic --ipconn --portconn --net 193.11.176.0/20 \
                   --name RSN --nointernal";
    let rules = iptables(guest, backend, "-S PROMISC")?;
    ensure!(rules == format!("-P PROMISC ACCEPT\n{printed}\n"), "{backend}: {rules}");
    // Both forms of the network find the rule.
    iptables(guest, backend, &RSN.replacen("-A", "-C", 1))?;
    iptables(guest, backend, &printed.replacen("-A", "-C", 1))?;
    let files = table_files(guest)?;
    ensure!(files == "RSN\nRSN.ipconn\nRSN.portconn\n", "{backend}: {files}");
    iptables(guest, backend, &RSN.replacen("-A", "-D", 1))?;
    // nf_tables frees rules asynchronously.
    let gone = format!("for n in $(seq 100); do test -z \"$(ls {TABLES})\" && exit; sleep 0.1; done; ls {TABLES}");
    let files = guest.must(&gone)?;
    ensure!(files.is_empty(), "{backend}: tables remain\n{files}");
});

guest_test!(list, |guest, backend| {
    add(guest, backend, "iptables", &RULES)?;
    open_and_send(guest, 0, [frame(1)])?;
    assert_snapshot!("list", iptables(guest, backend, "-L PROMISC -n -v")?);
    iptables(guest, backend, "-Z PROMISC")?;
    let zeroed = iptables(guest, backend, "-L PROMISC -n -v -x")?;
    ensure!(zeroed.lines().skip(2).all(|line| line.trim_start().starts_with("0        0")), "{zeroed}");
});

guest_test!(list_of_ipv6, |guest, backend| {
    add(guest, backend, "ip6tables", &RULES6)?;
    assert_snapshot!("list6", iptables(guest, backend, "ip6tables -L PROMISC -n")?);
});

guest_test!(insert_check_replace_delete_flush, |guest, backend| {
    let rule = |name: &str| format!("PROMISC -m traffic --traffic --net 10.0.0.0/8 --name {name}");
    iptables(guest, backend, &format!("-A {}", rule("a")))?;
    iptables(guest, backend, &format!("-I {}", rule("b")))?;
    iptables(guest, backend, &format!("-C {}", rule("a")))?;
    let missing = guest.run(&backend.command(&format!("-C {}", rule("c"))))?;
    ensure!(missing.status == 1, "-C finds a rule that does not exist");
    iptables(guest, backend, &format!("-D {}", rule("a")))?;
    iptables(guest, backend, "-R PROMISC 1 -m traffic --traffic --net 10.0.0.0/8 --name c")?;
    assert_snapshot!("after_changes", iptables(guest, backend, "-S PROMISC")?);
    iptables(guest, backend, "-F")?;
    assert_snapshot!("after_flush", iptables(guest, backend, "-S PROMISC")?);
    for wrong in ["-P PROMISC RETURN", "-N PROMISC"] {
        ensure!(guest.run(&backend.command(wrong))?.status != 0, "{backend}: {wrong} succeeds");
    }
});

guest_test!(both_families_have_the_chain, |guest| {
    for backend in BACKENDS {
        iptables(guest, backend, "ip6tables -A PROMISC -s 2001:db8::/32 -j DROP")?;
        iptables(guest, backend, "ip6tables -P PROMISC DROP")?;
        assert_snapshot!("ip6tables", iptables(guest, backend, "ip6tables -S PROMISC")?);
        let ipv4 = iptables(guest, backend, "-S PROMISC")?;
        ensure!(ipv4 == "-P PROMISC ACCEPT\n", "{backend}: IPv6 rules are in the IPv4 chain:\n{ipv4}");
    }
});

guest_test!(other_tables_do_not_have_the_chain, |guest| {
    for backend in BACKENDS {
        for table in ["mangle", "raw", "nat"] {
            let output = guest.run(&backend.command(&format!("-t {table} -A PROMISC -j ACCEPT")))?;
            ensure!(output.status != 0, "{backend}: {table} has PROMISC");
        }
        let jump = guest.run(&backend.command("-A INPUT -j PROMISC"))?;
        ensure!(jump.status != 0, "{backend}: a jump to a base chain succeeds");
    }
});
