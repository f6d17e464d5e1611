// SPDX-License-Identifier: GPL-2.0-only
//! Tables with the same name and other parameters: which of them counts, and which has the files.

use anyhow::{Context, Result, ensure};
use insta::assert_snapshot;
use traffic_model::model::File;
use vm_harness::command::COMMAND_TIMEOUT;
use vm_harness::guest::Guest;
use vm_harness::replay::{Backend, TABLES};
use vm_tests::{
    BACKENDS, frame, guest_test, iptables, iptables_both, module_messages, open_and_send, row, stat, table,
    table_files, text_after, under_traffic,
};

const OLD: &str = "-m traffic --traffic --net 10.0.0.0/8 --name t";
const NEW: &str = "-m traffic --traffic --net 10.0.0.0/9 --name t";
/// A rule in this chain keeps a table, and counts nothing.
const KEEP: &str = "INPUT -i none";

/// Waits until no table waits for its files. nf_tables frees rules asynchronously.
fn await_files(guest: &mut Guest) -> Result<()> {
    guest.must(&format!("while grep -q '[.]waiting ' {TABLES}/.stats; do :; done")).map(drop)
}

/// The lines of `.stats` with a key, in their order.
fn stats_lines(guest: &mut Guest, key: &str) -> Result<Vec<u64>> {
    let text = table(guest, ".stats")?;
    let values = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    values.map(|value| value.parse().with_context(|| format!("{key} is {value:?}"))).collect()
}

/// The number of frames of 10.0.0.1 in the file `t`.
fn frames_in_file(guest: &mut Guest) -> Result<u64> {
    let text = table(guest, "t")?;
    Ok(row(&text, "10.0.0.1")?.first().map_or(0, |bytes| bytes / 100))
}

/// Changes between rules of [`OLD`] and [`NEW`] while frames arrive. Each frame must be counted
/// once, in one of the tables.
fn change_under_traffic(
    guest: &mut Guest,
    backend: Backend,
    mut change: impl FnMut(&mut Guest, &str) -> Result<()>,
) -> Result<()> {
    // Both tables exist until they have been read.
    for rule in [format!("PROMISC {OLD}"), format!("{KEEP} {OLD}"), format!("{KEEP} {NEW}")] {
        iptables(guest, backend, &format!("-A {rule}"))?;
    }
    guest.open_port(0)?;
    let sent = under_traffic(guest, |_| frame(1), |guest| [NEW, OLD].iter().try_for_each(|rule| change(guest, rule)))?;
    ensure!(sent > 500, "only {sent} frames were sent");
    let old = frames_in_file(guest)?;
    iptables(guest, backend, "-F PROMISC")?;
    iptables(guest, backend, &format!("-D {KEEP} {OLD}"))?;
    await_files(guest)?;
    let new = frames_in_file(guest)?;
    ensure!(old + new == sent, "{sent} frames were sent, the old table has {old} and the new one {new}");
    ensure!(old > 0 && new > 0, "the old table has {old} frames, the new one {new}");
    Ok(())
}

guest_test!(a_restored_ruleset_with_other_parameters_counts_each_packet_once, |guest, backend| {
    let tool = format!("/usr/local/sbin/iptables-{backend}");
    change_under_traffic(guest, backend, |guest, rule| {
        let edit = format!("sed 's|^-A PROMISC .*|-A PROMISC {rule}|'");
        guest.must(&format!("{tool}-save >/tmp/rules && {edit} </tmp/rules | {tool}-restore")).map(drop)
    })?;
});

guest_test!(a_replaced_rule_with_other_parameters_counts_each_packet_once, |guest, backend| {
    change_under_traffic(guest, backend, |guest, rule| {
        iptables(guest, backend, &format!("-R PROMISC 1 {rule}")).map(drop)
    })?;
});

guest_test!(the_new_table_has_the_files_when_the_last_rule_of_the_old_one_is_gone, |guest, backend| {
    iptables(guest, backend, "-A PROMISC -m traffic --traffic --portconn --net 10.0.0.0/8 --name t")?;
    open_and_send(guest, 0, [frame(1)])?;
    ensure!(table_files(guest)? == "t\nt.portconn\n");
    let before = stat(guest, "t.generation")?;
    // An open file of the old table fails afterwards, as each file that is removed.
    let steps = "read:5 touch:/tmp/open await:/tmp/gone read:5";
    let reader = guest.start(&format!("/init file {TABLES}/t {steps}"))?;
    guest.must("until test -e /tmp/open; do :; done")?;

    let tool = format!("/usr/local/sbin/iptables-{backend}");
    let edit = "sed 's/--portconn/--ipconn/; s|10.0.0.0/8|10.0.0.0/9|'";
    guest.must(&format!("{tool}-save >/tmp/rules && {edit} </tmp/rules | {tool}-restore"))?;
    await_files(guest)?;
    ensure!(table_files(guest)? == "t\nt.ipconn\n", "{}", table_files(guest)?);
    ensure!(table(guest, "t")? == text_after(0), "the new table has counts of the old one");
    ensure!(stat(guest, "t.generation")? > before && stat(guest, "tables")? == 1);
    guest.send(0, [frame(1), frame(1)])?;
    ensure!(table(guest, "t")? == text_after(2), "{}", table(guest, "t")?);
    ensure!(row(&table(guest, "t.ipconn")?, "10.0.0.1")?.first() == Some(&1));
    guest.write("/tmp/gone", b"")?;
    let output = guest.finish_command(reader, COMMAND_TIMEOUT)?;
    ensure!(output.stdout.ends_with("errno 5\n"), "{output:?}");
});

guest_test!(the_generation_is_the_time_since_boot, |guest, backend| {
    let uptime = |guest: &mut Guest| -> Result<u64> {
        let text = guest.read_text("/proc/uptime")?;
        let seconds: f64 = text.split(' ').next().unwrap_or_default().parse()?;
        Ok((seconds * 1e9) as u64)
    };
    let before = uptime(guest)?;
    iptables(guest, backend, &format!("-A PROMISC {OLD}"))?;
    let after = uptime(guest)?;
    // The uptime has hundredths of a second.
    let generation = stat(guest, "t.generation")?;
    ensure!((before..=after + 10_000_000).contains(&generation), "{before} {generation} {after}");
    // Another rule does not change it.
    iptables(guest, backend, &format!("-A {KEEP} {OLD}"))?;
    ensure!(stat(guest, "t.generation")? == generation);
});

// Each of the rules counts every frame, because none has a target.
guest_test!(tables_with_one_name_have_the_files_in_the_order_in_which_they_were_made, |guest, backend| {
    let rule = |length: u32| format!("-m traffic --traffic --net 10.0.0.0/{length} --name t");
    guest.open_port(0)?;
    for length in 8..12 {
        iptables(guest, backend, &format!("-A PROMISC {}", rule(length)))?;
        guest.send(0, [frame(1)])?;
    }
    ensure!(table(guest, "t")? == text_after(4), "the files are not those of the oldest table");
    let waiting = stats_lines(guest, "t.waiting")?;
    let generation = stat(guest, "t.generation")?;
    ensure!(waiting.len() == 3 && generation < waiting[0] && waiting.is_sorted(), "{generation} {waiting:?}");
    ensure!(stat(guest, "tables")? == 4 && stat(guest, "rows")? == 4);

    // Rules with the parameters of a table share it, whether it has the files or waits.
    for length in [8, 9] {
        iptables(guest, backend, &format!("-A {KEEP} {}", rule(length)))?;
        iptables(guest, backend, &format!("-D PROMISC {}", rule(length)))?;
    }
    ensure!(stats_lines(guest, "t.waiting")? == waiting && table(guest, "t")? == text_after(4));

    // A table without a rule does not wait any more.
    iptables(guest, backend, &format!("-D PROMISC {}", rule(10)))?;
    guest.must(&format!("until test $(grep -c '[.]waiting ' {TABLES}/.stats) = 2; do :; done"))?;
    ensure!(stats_lines(guest, "t.waiting")? == [waiting[0], waiting[2]]);

    iptables(guest, backend, &format!("-D {KEEP} {}", rule(8)))?;
    guest.must(&format!("until test $(grep -c '[.]waiting ' {TABLES}/.stats) = 1; do :; done"))?;
    ensure!(table(guest, "t")? == text_after(3), "{}", table(guest, "t")?);
    ensure!(stat(guest, "t.generation")? == waiting[0] && stats_lines(guest, "t.waiting")? == [waiting[2]]);

    iptables(guest, backend, &format!("-D {KEEP} {}", rule(9)))?;
    await_files(guest)?;
    ensure!(table(guest, "t")? == text_after(1), "{}", table(guest, "t")?);
    ensure!(stat(guest, "t.generation")? == waiting[2] && stat(guest, "tables")? == 1);

    iptables(guest, backend, "-F")?;
    guest.must(&format!("while test -e {TABLES}/t; do :; done"))?;
    // One line for each table that had to wait.
    assert_snapshot!("waiting_log", module_messages(guest)?.join("\n"));
});

guest_test!(each_parameter_makes_another_table, |guest, backend| {
    let others = [
        "--traffic --ipconn --net 10.0.0.0/8",
        "--traffic --portconn --net 10.0.0.0/8",
        "--ipconn --net 10.0.0.0/8",
        "--traffic --net 10.0.0.0/9",
        "--traffic --net 10.0.0.0/8 --hashsize 4096",
        "--traffic --net 10.0.0.0/8 --prefix 24",
        "--traffic --net 10.0.0.0/8 --clearonread",
        "--traffic --net 10.0.0.0/8 --nointernal",
        "--traffic --net 10.0.0.0/8 ! --nointernal",
    ];
    iptables(guest, backend, &format!("-A PROMISC {OLD}"))?;
    for (other, waiting) in others.iter().zip(1..) {
        iptables(guest, backend, &format!("-A INPUT -m traffic --name t {other}"))?;
        ensure!(stats_lines(guest, "t.waiting")?.len() == waiting, "{other}: {}", table(guest, ".stats")?);
    }
    // The same hash size, given explicitly.
    iptables(guest, backend, &format!("-A INPUT {OLD} --hashsize 65536 --prefix 32"))?;
    ensure!(stats_lines(guest, "t.waiting")?.len() == others.len());
    ensure!(table_files(guest)? == "t\n");
});

guest_test!(the_name_of_a_table_of_the_other_family_is_refused, |guest| {
    iptables_both(guest, &format!("-A PROMISC {OLD}"))?;
    iptables(guest, Backend::Nft, &format!("-A INPUT {NEW}"))?;
    let refused = |guest: &mut Guest| -> Result<String> {
        let mut messages = String::new();
        for backend in BACKENDS {
            let rule = "ip6tables -A INPUT -m traffic --traffic --net 2001:db8::/32 --name t";
            let output = guest.run(&backend.command(rule))?;
            ensure!(output.status != 0, "{rule} is accepted");
            messages += &output.stderr;
        }
        Ok(messages)
    };
    assert_snapshot!("other_family", refused(guest)?);
    // The new table keeps the name, too.
    iptables_both(guest, "-F PROMISC")?;
    await_files(guest)?;
    assert_snapshot!("other_family", refused(guest)?);
    assert_snapshot!("other_family_log", module_messages(guest)?.join("\n"));
    iptables_both(guest, "-F")?;
    guest.must(&format!("while test -e {TABLES}/t; do :; done"))?;
    iptables(guest, Backend::Nft, "ip6tables -A INPUT -m traffic --traffic --net 2001:db8::/32 --name t")?;
    ensure!(table(guest, "t")? == File::Traffic.header());
});

guest_test!(a_namespace_with_waiting_tables_can_be_deleted, |guest| {
    guest.must("ip netns add other")?;
    for backend in BACKENDS {
        for rule in [OLD, NEW] {
            let rule = rule.replace("--name t", &format!("--name {backend}"));
            guest.must(&format!("ip netns exec other {}", backend.command(&format!("-A PROMISC {rule}"))))?;
        }
    }
    ensure!(guest.must(&format!("ip netns exec other grep -c waiting {TABLES}/.stats"))? == "2\n");
    guest.must("ip netns delete other")?;
    // The module can be removed when the rules are gone, which is a little later.
    let unloaded = guest.start("until rmmod xt_traffic; do :; done 2>/dev/null")?;
    guest.finish_command(unloaded, COMMAND_TIMEOUT)?;
});
