// SPDX-License-Identifier: GPL-2.0
//! Rules that come and go, and tables that stay.

use anyhow::ensure;
use insta::assert_snapshot;
use traffic_model::frames::{Ipv4, mirrored};
use vm_harness::guest::{COMMAND_TIME, Sender};
use vm_harness::replay::{Backend, TABLES};

use crate::support::{BACKENDS, in_guest, iptables, table, under_traffic};

const COUNT: &str = "-m traffic --traffic --net 10.0.0.0/8 --name t";

fn frame() -> Vec<u8> {
    mirrored(&Ipv4::new([10, 0, 0, 1], [192, 0, 2, 1]).udp((1, 2), &[7; 72]))
}

/// The table after so many frames.
fn text_after(frames: u64) -> String {
    let bytes = frames * 100;
    format!("IP\t\tTOTAL\t\tTCP\t\tUDP\t\tOTHER\n10.0.0.1\t{bytes}\t0\t0\t0\t{bytes}\t0\t0\t0\n")
}

/// A rule is replaced by another one with the same table, and other rules come and go, while frames arrive:
/// each frame is counted once.
fn changes_lose_nothing(backend: Backend) {
    in_guest(|guest| {
        iptables(guest, backend, &format!("-A PROMISC {COUNT}"))?;
        guest.open_port(0)?;
        let mut n = 0;
        let sent = under_traffic(
            guest,
            |_| frame(),
            |guest| {
                n += 1;
                let other = format!("-A PROMISC -m traffic --traffic --net 192.0.2.0/24 --name other{n}");
                iptables(guest, backend, &other)?;
                iptables(guest, backend, &format!("-R PROMISC 1 {COUNT} -m comment --comment number{n}"))?;
                iptables(guest, backend, "-D PROMISC 2").map(drop)
            },
        )?;
        ensure!(sent > 500, "only {sent} frames were sent meanwhile");
        let text = table(guest, "t")?;
        ensure!(text == text_after(sent), "{sent} frames were sent, the table says\n{text}");
        ensure!(guest.must(&format!("ls {TABLES}"))? == "t\n", "a table without a rule is left");
        Ok(())
    });
}

#[test]
fn changes_under_traffic_lose_nothing_nft() {
    changes_lose_nothing(Backend::Nft);
}

#[test]
fn changes_under_traffic_lose_nothing_legacy() {
    changes_lose_nothing(Backend::Legacy);
}

/// The whole rule set is replaced while frames arrive: each frame is counted once.
fn restore_loses_nothing(backend: Backend) {
    in_guest(|guest| {
        iptables(guest, backend, &format!("-A PROMISC {COUNT}"))?;
        let tool = format!("/usr/local/sbin/iptables-{backend}");
        guest.must(&format!("{tool}-save >/tmp/rules"))?;
        guest.open_port(0)?;
        let sent =
            under_traffic(guest, |_| frame(), |guest| guest.must(&format!("{tool}-restore </tmp/rules")).map(drop))?;
        ensure!(sent > 500, "only {sent} frames were sent meanwhile");
        let text = table(guest, "t")?;
        ensure!(text == text_after(sent), "{sent} frames were sent, the table says\n{text}");
        Ok(())
    });
}

#[test]
fn restore_under_traffic_loses_nothing_nft() {
    restore_loses_nothing(Backend::Nft);
}

#[test]
fn restore_under_traffic_loses_nothing_legacy() {
    restore_loses_nothing(Backend::Legacy);
}

#[test]
fn the_table_lives_while_a_rule_has_it() {
    in_guest(|guest| {
        for backend in BACKENDS {
            // The second rule never sees a packet; it holds the table, from another chain.
            iptables(guest, backend, &format!("-A PROMISC {COUNT}"))?;
            iptables(guest, backend, &format!("-A INPUT -i none {COUNT}"))?;
        }
        guest.open_port(0)?;
        guest.send(0, [frame()])?;
        // Both back ends have a rule with this table in PROMISC: two matches, one table.
        ensure!(table(guest, "t")? == text_after(2), "two rules share the table");
        iptables(guest, Backend::Nft, "-F PROMISC")?;
        guest.send(0, [frame()])?;
        ensure!(table(guest, "t")? == text_after(3), "one rule counts");
        iptables(guest, Backend::Legacy, "-F PROMISC")?;
        guest.send(0, [frame()])?;
        ensure!(table(guest, "t")? == text_after(3), "no rule counts, the table is kept");
        iptables(guest, Backend::Nft, &format!("-A PROMISC {COUNT}"))?;
        guest.send(0, [frame()])?;
        ensure!(table(guest, "t")? == text_after(4), "a new rule goes on with the table");
        for backend in BACKENDS {
            iptables(guest, backend, "-F")?;
        }
        ensure!(guest.must(&format!("ls {TABLES}"))?.is_empty(), "the table goes with its last rule");
        iptables(guest, Backend::Nft, &format!("-A PROMISC {COUNT}"))?;
        guest.send(0, [frame()])?;
        ensure!(table(guest, "t")? == text_after(1), "a new table begins at zero");
        Ok(())
    });
}

#[test]
fn the_same_name_with_other_parameters_is_refused() {
    in_guest(|guest| {
        iptables(guest, Backend::Nft, &format!("-A PROMISC {COUNT}"))?;
        let mut said = String::new();
        for backend in BACKENDS {
            for other in ["--net 10.0.0.0/9", "--net 10.0.0.0/8 --nointernal", "--net 10.0.0.0/8 ! --nointernal"] {
                let rule = format!("-A PROMISC -m traffic --traffic {other} --name t");
                let output = guest.run(&backend.command(&rule))?;
                ensure!(output.status != 0, "accepted: {rule}");
                said += &format!("{other}\n{}", output.stderr);
            }
        }
        assert_snapshot!("same_name_other_parameters", said);
        let log = guest.kernel_log()?;
        let refusals: Vec<&str> = log.lines().filter(|line| line.contains("xt_traffic: ")).collect();
        let refusals: Vec<&str> =
            refusals.iter().filter_map(|line| line.split_once("] ").map(|(_, text)| text)).collect();
        assert_snapshot!("same_name_other_parameters_log", refusals.join("\n"));
        Ok(())
    });
}

#[test]
fn reading_does_not_disturb_counting() {
    in_guest(|guest| {
        iptables(guest, Backend::Nft, &format!("-A PROMISC {COUNT}"))?;
        guest.open_port(0)?;
        let reader = guest.start(&format!("while ! test -e /tmp/stop; do cat {TABLES}/t >/dev/null; done"))?;
        guest.send(0, (0..6_000).map(|_| frame()))?;
        guest.write("/tmp/stop", b"")?;
        let output = guest.finish_command(reader, COMMAND_TIME)?;
        ensure!(output.status == 0, "{output:?}");
        ensure!(table(guest, "t")? == text_after(6_000));
        // In pieces that end anywhere, the text is the same.
        let pieces = guest.must(&format!("dd if={TABLES}/t bs=1 2>/dev/null"))?;
        ensure!(pieces == text_after(6_000), "byte by byte it reads\n{pieces}");
        Ok(())
    });
}

#[test]
fn two_cpus_count_at_once() {
    in_guest(|guest| {
        iptables(guest, Backend::Nft, &format!("-A PROMISC {COUNT}"))?;
        for port in 0..2 {
            guest.open_port(port)?;
        }
        // Each port's packets on a CPU of their own.
        guest.must("echo 1000000 >/proc/sys/net/core/netdev_max_backlog")?;
        guest.must("for n in 0 1; do echo $((n + 1)) >/sys/class/net/eth$n/queues/rx-0/rps_cpus; done")?;
        const EACH: u64 = 5_000;
        let senders = [guest.sender(0), guest.sender(1)];
        std::thread::scope(|scope| {
            let send = |sender: &Sender| (0..EACH).try_for_each(|_| sender.send(&frame()));
            let threads = senders.each_ref().map(|sender| scope.spawn(move || send(sender)));
            threads.into_iter().try_for_each(|thread| thread.join().expect("sending does not panic"))
        })?;
        for port in 0..2 {
            guest.await_frames(port)?;
        }
        ensure!(table(guest, "t")? == text_after(2 * EACH), "{}", table(guest, "t")?);
        Ok(())
    });
}
