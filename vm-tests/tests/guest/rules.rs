// SPDX-License-Identifier: GPL-2.0-only
//! Tables keep their counts while rules are added, replaced and deleted.

use anyhow::ensure;
use vm_harness::command::COMMAND_TIMEOUT;
use vm_harness::replay::{Backend, TABLES};
use vm_tests::{
    frame, guest_test, iptables, iptables_both, module_messages, open_and_send, send_to_both, table, table_files,
    text_after, under_traffic,
};

const COUNT: &str = "-m traffic --traffic --net 10.0.0.0/8 --name t";

// Replaces a rule by one with the same table, and adds and deletes other rules, while frames
// arrive. Each frame must be counted once.
guest_test!(changes_under_traffic_lose_nothing, |guest, backend| {
    iptables(guest, backend, &format!("-A PROMISC {COUNT}"))?;
    guest.open_port(0)?;
    let mut n = 0;
    let sent = under_traffic(
        guest,
        |_| frame(1),
        |guest| {
            n += 1;
            let other = format!("-A PROMISC -m traffic --traffic --net 192.0.2.0/24 --name other{n}");
            iptables(guest, backend, &other)?;
            iptables(guest, backend, &format!("-R PROMISC 1 {COUNT} -m comment --comment number{n}"))?;
            iptables(guest, backend, "-D PROMISC 2").map(drop)
        },
    )?;
    ensure!(sent > 500, "only {sent} frames were sent");
    let text = table(guest, "t")?;
    ensure!(text == text_after(sent), "{sent} frames were sent, the table has\n{text}");
    ensure!(table_files(guest)? == "t\n", "a table without a rule still exists");
});

// Replaces the whole rule set while frames arrive. Each frame must be counted once.
guest_test!(restore_under_traffic_loses_nothing, |guest, backend| {
    iptables(guest, backend, &format!("-A PROMISC {COUNT}"))?;
    let tool = format!("/usr/local/sbin/iptables-{backend}");
    guest.must(&format!("{tool}-save >/tmp/rules"))?;
    guest.open_port(0)?;
    let sent =
        under_traffic(guest, |_| frame(1), |guest| guest.must(&format!("{tool}-restore </tmp/rules")).map(drop))?;
    ensure!(sent > 500, "only {sent} frames were sent");
    let text = table(guest, "t")?;
    ensure!(text == text_after(sent), "{sent} frames were sent, the table has\n{text}");
});

guest_test!(a_table_exists_while_a_rule_uses_it, |guest| {
    // The second rule matches no packet. It uses the table in another chain.
    iptables_both(guest, &format!("-A PROMISC {COUNT}"))?;
    iptables_both(guest, &format!("-A INPUT -i none {COUNT}"))?;
    open_and_send(guest, 0, [frame(1)])?;
    // Both back ends have a rule with this table in PROMISC.
    ensure!(table(guest, "t")? == text_after(2), "two rules count");
    iptables(guest, Backend::Nft, "-F PROMISC")?;
    guest.send(0, [frame(1)])?;
    ensure!(table(guest, "t")? == text_after(3), "one rule counts");
    iptables(guest, Backend::Legacy, "-F PROMISC")?;
    guest.send(0, [frame(1)])?;
    ensure!(table(guest, "t")? == text_after(3), "no rule counts");
    iptables(guest, Backend::Nft, &format!("-A PROMISC {COUNT}"))?;
    guest.send(0, [frame(1)])?;
    ensure!(table(guest, "t")? == text_after(4), "a new rule counts in the same table");
    iptables_both(guest, "-F")?;
    ensure!(table_files(guest)?.is_empty(), "the table still exists without rules");
    iptables(guest, Backend::Nft, &format!("-A PROMISC {COUNT}"))?;
    guest.send(0, [frame(1)])?;
    ensure!(table(guest, "t")? == text_after(1), "a new table does not start at zero");
});

// Binaries without --prefix use revision 0. Tables do not depend on the revision.
guest_test!(rules_of_revision_0_are_accepted, |guest| {
    for (program, net) in [("iptables", "10.0.0.0/8"), ("ip6tables", "2001:db8::/32")] {
        let rule = format!("PROMISC -m traffic --traffic --net {net} --name t");
        iptables(guest, Backend::Legacy, &format!("{program} -A {rule}"))?;
        open_and_send(guest, 0, [frame(1)])?;
        let before = table(guest, "t")?;
        let replaced = guest.must(&format!("/init replace {program} 0 0"))?;
        ensure!(replaced == "ok\n", "{program}: {replaced}");
        ensure!(table(guest, "t")? == before, "the table has lost its counts");
        // The rule still counts, and commands of revision 1 find it.
        guest.send(0, [frame(1)])?;
        ensure!(program == "ip6tables" || table(guest, "t")? == text_after(2), "{}", table(guest, "t")?);
        iptables(guest, Backend::Legacy, &format!("{program} -C {rule}"))?;
        // A rule of revision 1 with the same parameters shares the table.
        iptables(guest, Backend::Nft, &format!("{program} -A {rule}"))?;
        iptables(guest, Backend::Legacy, &format!("{program} -D {rule}"))?;
        ensure!(table_files(guest)? == "t\n", "the rule of revision 1 has no table");
        iptables(guest, Backend::Nft, &format!("{program} -D {rule}"))?;
        // nf_tables frees rules asynchronously.
        guest.must(&format!("for n in $(seq 100); do test -e {TABLES}/t || exit 0; sleep 0.1; done; exit 1"))?;
    }
});

guest_test!(the_kernel_refuses_prefixes_that_are_not_valid, in_guest_briefly, |guest| {
    // The network has 24 bits, so 8 bits for IPv4 and 104 for IPv6 are left for the prefix.
    let cases = [("iptables", "10.0.0.0/24", 9), ("ip6tables", "2001:d00::/24", 105)];
    let mut messages = 0;
    for (program, net, too_many) in cases {
        let rule = format!("{program} -A PROMISC -m traffic --traffic --net {net} --name t");
        iptables(guest, Backend::Legacy, &rule)?;
        // The kernel limits the rate of its messages, so there are few cases.
        for (revision, bits) in [(1, too_many), (1, 255), (0, 1)] {
            let result = guest.must(&format!("/init replace {program} {revision} {bits}"))?;
            ensure!(result == "errno 22\n", "{program}, revision {revision}, {bits} bits: {result}");
            let why = match revision {
                0 => "rule refused: reserved bytes are not zero",
                _ => "rule refused: the prefix is shorter than the network's",
            };
            let mut log = module_messages(guest)?;
            log.retain(|line| line.starts_with("rule refused"));
            messages += 1;
            ensure!(log.len() == messages && log.last().is_some_and(|line| line == why), "{program}: {log:?}");
        }
        let largest = guest.must(&format!("/init replace {program} 1 {}", too_many - 1))?;
        ensure!(largest == "ok\n", "{program}: {largest}");
        iptables(guest, Backend::Legacy, &format!("{program} -F PROMISC"))?;
    }
});

guest_test!(reading_does_not_disturb_counting, |guest| {
    iptables(guest, Backend::Nft, &format!("-A PROMISC {COUNT}"))?;
    guest.open_port(0)?;
    let reader = guest.start(&format!("while ! test -e /tmp/stop; do cat {TABLES}/t >/dev/null; done"))?;
    guest.send(0, (0..6_000).map(|_| frame(1)))?;
    guest.write("/tmp/stop", b"")?;
    guest.finish_command(reader, COMMAND_TIMEOUT)?.success("the reader")?;
    ensure!(table(guest, "t")? == text_after(6_000));
    // Byte by byte the text is the same.
    let pieces = guest.must(&format!("dd if={TABLES}/t bs=1 2>/dev/null"))?;
    ensure!(pieces == text_after(6_000), "byte by byte the text is\n{pieces}");
});

guest_test!(two_cpus_count_at_the_same_time, |guest| {
    iptables(guest, Backend::Nft, &format!("-A PROMISC {COUNT}"))?;
    (0..2).try_for_each(|port| guest.open_port(port))?;
    guest.steer_ports_to_cpus()?;
    const EACH: u64 = 5_000;
    send_to_both(guest, [0, 1].map(|_| (0..EACH).map(|_| frame(1))))?;
    ensure!(table(guest, "t")? == text_after(2 * EACH), "{}", table(guest, "t")?);
});
