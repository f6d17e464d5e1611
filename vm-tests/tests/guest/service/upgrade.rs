// SPDX-License-Identifier: GPL-2.0-only
//! An upgrade of the service from a version without mirror devices, and kernels without them.

use anyhow::ensure;
use insta::assert_snapshot;
use traffic_model::frames::{ALICE, BROADCAST, Ethernet, IPV4, Ip};
use vm_tests::{frame, guest_test, row_after, table, text_after, under_traffic};

use super::{
    install, interfaces, kill_after_commands, port, program, report, rules, run_for, start, with_wrappers, wrap,
};

const CONF: &str = "port eth0\ntable t 10.0.0.0/8 --traffic\nchains PROMISC INPUT FORWARD\n";

/// Does what version 0.2.0 has done for [`CONF`].
const START_OF_0_2_0: &str = "\
set -e
mkdir -p /run/xt-traffic/ports
printf 'ifindex %s\narp on\npromisc off\nstate down\ndisable_ipv6 0\n' $(cat /sys/class/net/eth0/ifindex) \
    >/run/xt-traffic/ports/eth0
echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6
rule='-i eth0 -m traffic --traffic --net 10.0.0.0/8 --name t -m comment --comment xt-traffic'
for change in '-A PROMISC' '-I INPUT' '-I FORWARD'; do
    iptables-nft $change $rule
    echo \"iptables-nft ${change#* } $rule\" >>/run/xt-traffic/rules
done
ip link set dev eth0 arp off promisc on up
";

/// A packet to the host that goes to everybody.
fn broadcast() -> Vec<u8> {
    let packet = Ip::new([10, 0, 0, 2], [192, 0, 2, 1]).udp((1, 2), &[7; 72]);
    Ethernet::new(ALICE, BROADCAST).wrap(IPV4, &packet)
}

guest_test!(an_upgrade_counts_each_frame_once, |guest| {
    install(guest, CONF)?;
    let before = [rules(guest)?, port(guest, "eth0")?, interfaces(guest)?];
    guest.must(START_OF_0_2_0)?;
    guest.await_promiscuous(0)?;
    // The new version also understands the record before the reload.
    let status = guest.must("xt-traffic status")?;
    ensure!(status.contains("port   eth0             listens: "), "{status}");
    // Broadcasts pass through INPUT, and then through PROMISC.
    guest.must("ip addr add 192.0.2.1/32 dev lo")?;
    let mut reloads = Vec::new();
    let sent = under_traffic(
        guest,
        |number| if number % 2 == 0 { frame(1) } else { broadcast() },
        |guest| {
            if reloads.len() == 2 {
                return guest.must("sleep 0.1").map(drop);
            }
            reloads.push(guest.run("xt-traffic reload")?);
            Ok(())
        },
    )?;
    for reload in &reloads {
        assert_snapshot!("reload", report(reload));
    }
    let want = text_after(sent / 2) + &row_after(2, sent / 2);
    ensure!(table(guest, "t")? == want, "{sent} frames were sent: {}", table(guest, "t")?);
    assert_snapshot!("rules", rules(guest)?);
    let status = program(guest, "status")?;
    ensure!(status.contains("listens as m-eth0: "), "{status}");
    program(guest, "stop")?;
    let after = [rules(guest)?, port(guest, "eth0")?, interfaces(guest)?];
    ensure!(after == before, "{}", after.join("\n"));
});

guest_test!(without_the_link_type_ports_are_used_as_before, |guest| {
    let before = [rules(guest)?, port(guest, "eth0")?, interfaces(guest)?];
    install(guest, CONF)?;
    wrap(
        guest,
        "ip",
        "case $* in *'type mirror'*) echo 'Error: Unknown device type.' >&2; exit 2 ;; esac\nreal \"$@\"",
    )?;
    assert_snapshot!("plain_check", guest.must(&with_wrappers("check"))?);
    let started = guest.run(&with_wrappers("start"))?;
    let message = "xt-traffic: this kernel has no mirror devices: the ports are used without them\nexit status 0\n";
    ensure!(report(&started) == message, "{}", report(&started));
    ensure!(port(guest, "eth0")?.contains("NOARP,PROMISC,UP"), "{}", port(guest, "eth0")?);
    guest.await_promiscuous(0)?;
    guest.must("ip addr add 192.0.2.1/32 dev lo")?;
    guest.send(0, [frame(1), broadcast()])?;
    let want = text_after(1) + &row_after(2, 1);
    ensure!(table(guest, "t")? == want, "{}", table(guest, "t")?);
    assert_snapshot!("plain_status", guest.must(&with_wrappers("status"))?);
    // With the link type, the same table counts on.
    start(guest)?;
    guest.send(0, [frame(1)])?;
    ensure!(table(guest, "t")? == text_after(2) + &row_after(2, 1), "{}", table(guest, "t")?);
    ensure!(interfaces(guest)?.contains("m-eth0\n"));
    // And back.
    guest.must(&with_wrappers("reload"))?;
    guest.send(0, [frame(1)])?;
    ensure!(table(guest, "t")? == text_after(3) + &row_after(2, 1), "{}", table(guest, "t")?);
    guest.must(&with_wrappers("stop"))?;
    let after = [rules(guest)?, port(guest, "eth0")?, interfaces(guest)?];
    ensure!(after == before, "{}", after.join("\n"));
});

guest_test!(an_upgrade_can_be_killed, |guest| {
    install(guest, CONF)?;
    let before = [rules(guest)?, port(guest, "eth0")?, interfaces(guest)?];
    kill_after_commands(guest)?;
    // Each second command, to save time.
    for commands in (1..).step_by(2) {
        guest.must(START_OF_0_2_0)?;
        let killed = run_for(guest, "reload", commands)?;
        guest.run("xt-traffic reload")?;
        guest.await_promiscuous(0)?;
        guest.send(0, [frame(1)])?;
        ensure!(table(guest, "t")? == text_after(1), "after {commands} commands: {}", table(guest, "t")?);
        program(guest, "stop")?;
        let after = [rules(guest)?, port(guest, "eth0")?, interfaces(guest)?];
        ensure!(after == before, "after {commands} commands: {}", after.join("\n"));
        if !killed {
            ensure!(commands > 10, "only {commands} commands were run");
            break;
        }
    }
});
