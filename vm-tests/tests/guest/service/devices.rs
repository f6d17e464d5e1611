// SPDX-License-Identifier: GPL-2.0-only
//! The mirror devices of the service.

use anyhow::{Result, ensure};
use insta::assert_snapshot;
use traffic_model::frames::{ALICE, Ethernet, IPV4, Ip};
use vm_harness::guest::{Guest, mac_of_port};
use vm_tests::{frame, guest_test, row_after, table, text_after};

use super::{
    configure, install, interfaces, kill_after_commands, port, program, report, rules, run_for, start, with_wrappers,
    wrap,
};

/// The first line about a mirror device: its port and its flags.
fn mirror(guest: &mut Guest, device: &str) -> Result<String> {
    guest.must(&format!("ip -o link show dev {device} type mirror | sed 's/^[0-9]*: \\(.*>\\).*/\\1/'"))
}

/// A packet of [`frame`] for another address of Ethernet.
fn frame_for(destination: [u8; 6], host: u8) -> Vec<u8> {
    let packet = Ip::new([10, 0, 0, host], [192, 0, 2, 1]).udp((1, 2), &[7; 72]);
    Ethernet::new(ALICE, destination).wrap(IPV4, &packet)
}

/// A packet without its last 30 bytes.
fn cut(host: u8) -> Vec<u8> {
    let mut frame = frame(host);
    frame.truncate(frame.len() - 30);
    frame
}

guest_test!(frames_for_all_addresses_are_counted, |guest| {
    guest.must("ip addr add 192.0.2.1/32 dev lo")?;
    install(guest, "port eth0\ntable t 10.0.0.0/8 --traffic\n")?;
    start(guest)?;
    let multicast = [0x01, 0, 0x5e, 1, 2, 3];
    guest.send(0, [frame(1), frame_for(multicast, 2), frame_for([0xff; 6], 3), frame_for(mac_of_port(0), 4)])?;
    let want = text_after(1) + &row_after(2, 1) + &row_after(3, 1) + &row_after(4, 1);
    ensure!(table(guest, "t")? == want, "{}", table(guest, "t")?);
    // A closed port of UDP answers.
    let sent = guest.sent_by_guest(0);
    ensure!(sent.is_empty(), "the host has sent {sent:02x?}");
});

guest_test!(status_says_what_is_not_counted, in_guest_briefly, |guest| {
    install(guest, "port eth0 as span\ntable t 10.0.0.0/8 --traffic\n")?;
    start(guest)?;
    let arp = Ethernet::new(ALICE, [0xff; 6]).wrap(0x0806, &[0; 46]);
    guest.send(0, [frame(1), cut(2), cut(2), arp])?;
    assert_snapshot!("uncounted", program(guest, "status")?);
    ensure!(table(guest, "t")? == text_after(1), "{}", table(guest, "t")?);
    // The flag changes without a new device.
    let span = guest.must("cat /sys/class/net/span/ifindex")?;
    configure(guest, "port eth0 sliced as span\ntable t 10.0.0.0/8 --traffic\n")?;
    program(guest, "reload")?;
    guest.send(0, [cut(2)])?;
    ensure!(table(guest, "t")? == text_after(1) + &row_after(2, 1), "{}", table(guest, "t")?);
    let status = program(guest, "status")?;
    ensure!(status.contains("2 cut") && !status.contains("sliced"), "{status}");
    configure(guest, "port eth0 as span\ntable t 10.0.0.0/8 --traffic\n")?;
    program(guest, "reload")?;
    guest.send(0, [cut(2)])?;
    ensure!(table(guest, "t")? == text_after(1) + &row_after(2, 1), "the flag is still on");
    ensure!(guest.must("cat /sys/class/net/span/ifindex")? == span, "a new device was made");

    guest.must("ip link set dev span down")?;
    let down = guest.run("xt-traffic status")?;
    ensure!(down.status == 1 && down.stdout.contains("port   eth0             span is down\n"), "{}", report(&down));
    guest.must("ip link del dev span")?;
    let gone = guest.run("xt-traffic status")?;
    ensure!(gone.status == 1 && gone.stdout.contains("has no mirror device span\n"), "{}", report(&gone));
    program(guest, "start")?;
    program(guest, "status")?;
});

guest_test!(the_name_of_a_mirror_device_can_change, in_guest_briefly, |guest| {
    let before = interfaces(guest)?;
    install(guest, "port eth0\ntable t 10.0.0.0/8 --traffic\n")?;
    start(guest)?;
    guest.send(0, [frame(1)])?;
    configure(guest, "port eth0 as m0\ntable t 10.0.0.0/8 --traffic\n")?;
    program(guest, "reload")?;
    guest.await_promiscuous(0)?;
    guest.send(0, [frame(1)])?;
    ensure!(table(guest, "t")? == text_after(2), "{}", table(guest, "t")?);
    ensure!(interfaces(guest)? == before.replace("lo\n", "lo\nm0\n"), "{}", interfaces(guest)?);
    program(guest, "stop")?;
    ensure!(interfaces(guest)? == before, "{}", interfaces(guest)?);
});

guest_test!(devices_can_exchange_their_names, in_guest_briefly, |guest| {
    let table_line = "table t 10.0.0.0/8 --traffic\n";
    install(guest, &format!("port eth0 as a\nport eth1 as b\n{table_line}"))?;
    program(guest, "start")?;
    configure(guest, &format!("port eth0 as b\nport eth1 as a\n{table_line}"))?;
    program(guest, "reload")?;
    program(guest, "status")?;
    let links = guest.must("cat /sys/class/net/[ab]/iflink; cat /sys/class/net/eth[10]/ifindex")?;
    let links: Vec<_> = links.lines().collect();
    ensure!(links[..2] == [links[3], links[2]], "{links:?}");
    // The name of a port that is gone is free.
    configure(guest, &format!("port eth1 as b\n{table_line}"))?;
    program(guest, "reload")?;
    program(guest, "status")?;
    program(guest, "stop")?;
});

guest_test!(a_port_that_cannot_have_a_mirror_device_is_used_without_it, in_guest_briefly, |guest| {
    // It has one of somebody else already, which is down.
    guest.must("ip link add link eth0 name other type mirror")?;
    let before = [rules(guest)?, port(guest, "eth0")?, interfaces(guest)?];
    install(guest, "port eth0\ntable t 10.0.0.0/8 --traffic\n")?;
    let started = guest.run("xt-traffic start")?;
    ensure!(started.status == 3, "{}", report(&started));
    assert_snapshot!("without_device", report(&started) + &program(guest, "status")? + &rules(guest)?);
    guest.await_promiscuous(0)?;
    guest.send(0, [frame(1)])?;
    ensure!(table(guest, "t")? == text_after(1), "{}", table(guest, "t")?);
    // A port that comes back is used in the same way.
    program(guest, "port eth0")?;
    // It gets the mirror device when it can have one.
    guest.must("ip link del dev other")?;
    program(guest, "reload")?;
    guest.send(0, [frame(1)])?;
    ensure!(table(guest, "t")? == text_after(2), "{}", table(guest, "t")?);
    ensure!(interfaces(guest)?.contains("m-eth0\n"));
    guest.must("ip link del dev m-eth0 && ip link add link eth0 name other type mirror")?;
    // Without a reload.
    ensure!(guest.run("xt-traffic port eth0")?.status == 3);
    guest.send(0, [frame(1)])?;
    ensure!(table(guest, "t")? == text_after(3), "{}", table(guest, "t")?);
    program(guest, "stop")?;
    ensure!([rules(guest)?, port(guest, "eth0")?, interfaces(guest)?] == before);
});

guest_test!(a_port_that_comes_back_gets_the_device_of_its_rules, in_guest_briefly, |guest| {
    install(guest, "port eth0\ntable t 10.0.0.0/8 --traffic\n")?;
    start(guest)?;
    configure(guest, "port eth0 as new\ntable t 10.0.0.0/8 --traffic\n")?;
    program(guest, "port eth0")?;
    ensure!(!interfaces(guest)?.contains("new\n"), "the configuration is not loaded yet");
    guest.send(0, [frame(1)])?;
    ensure!(table(guest, "t")? == text_after(1), "{}", table(guest, "t")?);
});

guest_test!(what_cannot_be_removed_stays_recorded, in_guest_briefly, |guest| {
    let before = [rules(guest)?, port(guest, "eth0")?, interfaces(guest)?];
    install(guest, "port eth0\ntable t 10.0.0.0/8 --traffic\n")?;
    start(guest)?;
    wrap(guest, "ip", "case $* in 'link del'*) echo busy >&2; exit 2 ;; esac\nreal \"$@\"")?;
    for _ in 0..2 {
        let failed = guest.run(&with_wrappers("stop"))?;
        ensure!(failed.status == 1 && failed.stderr.contains("busy"), "{}", report(&failed));
    }
    program(guest, "stop")?;
    ensure!([rules(guest)?, port(guest, "eth0")?, interfaces(guest)?] == before);
});

guest_test!(a_stop_can_be_killed_at_any_command, |guest| {
    install(guest, "port eth0\ntable t 10.0.0.0/8 --traffic\n")?;
    let before = [rules(guest)?, port(guest, "eth0")?, interfaces(guest)?];
    kill_after_commands(guest)?;
    for commands in 1.. {
        program(guest, "start")?;
        let killed = run_for(guest, "stop", commands)?;
        program(guest, "stop")?;
        let after = [rules(guest)?, port(guest, "eth0")?, interfaces(guest)?];
        ensure!(after == before, "after {commands} commands: {}", after.join("\n"));
        if !killed {
            ensure!(commands > 5, "only {commands} commands were run");
            break;
        }
    }
});

guest_test!(devices_of_others_are_not_touched, in_guest_briefly, |guest| {
    guest.must("ip link add name m-eth0 type dummy && ip link add name sw1 type dummy")?;
    // A mirror device of somebody else, on the right port.
    guest.must("ip link add link eth1 name m-eth1 type mirror")?;
    // Without the flags: those of m-eth1 say whether eth1 is up.
    let link = |guest: &mut Guest| {
        guest.must("for name in m-eth0 m-eth1 sw1; do ip -o link show dev $name | sed 's/<.*>//'; done")
    };
    let before = link(guest)?;
    install(guest, "port eth0\nport eth1\ntunnel sw1 erspan\ntable t 10.0.0.0/8 --traffic\n")?;
    for _ in 0..2 {
        let refused = guest.run("xt-traffic start")?;
        ensure!(refused.status == 3, "{}", report(&refused));
        assert_snapshot!("foreign", refused.stderr);
        ensure!(link(guest)? == before, "{}", link(guest)?);
    }
    program(guest, "stop")?;
    ensure!(link(guest)? == before, "{}", link(guest)?);
});

guest_test!(what_a_killed_start_has_made_is_removed, |guest| {
    let before = [interfaces(guest)?, rules(guest)?, port(guest, "eth0")?];
    install(guest, "port eth0\ntunnel sw1 erspan\ntable t 10.0.0.0/8 --traffic\n")?;
    // Each start is killed after it has made one more device.
    wrap(guest, "ip", "real \"$@\" || exit\ncase $* in 'link add'*) kill -KILL $PPID ;; esac")?;
    for devices in ["m-eth0\n", "sw1\n", "m-sw1\n"] {
        let killed = guest.run(&with_wrappers("start"))?;
        ensure!(
            killed.status != 0 && interfaces(guest)?.contains(devices),
            "{}{}",
            report(&killed),
            interfaces(guest)?
        );
    }
    // A start goes on with what the ones before have made.
    guest.must(&with_wrappers("start"))?;
    program(guest, "status")?;
    for kills in 1..=3 {
        program(guest, "stop")?;
        ensure!([interfaces(guest)?, rules(guest)?, port(guest, "eth0")?] == before, "{}", interfaces(guest)?);
        for _ in 0..kills {
            guest.run(&with_wrappers("start"))?;
        }
    }
    program(guest, "stop")?;
    ensure!([interfaces(guest)?, rules(guest)?, port(guest, "eth0")?] == before, "{}", interfaces(guest)?);
});

guest_test!(a_port_that_appears_later_is_set_up, |guest| {
    install(guest, "port late\ntable t 10.0.0.0/8 --traffic\n")?;
    let add = "ip link add late type veth peer name far";
    // Without the service a new port is not changed.
    guest.must(add)?;
    program(guest, "port late")?;
    let untouched = port(guest, "late")?;
    ensure!(!untouched.contains("NOARP"), "{untouched}");
    // udev has not initialized the port.
    guest.must("mkdir -p /run/udev/data && touch /run/udev/control")?;
    assert_snapshot!("port_is_not_there", program(guest, "start")?);
    ensure!(port(guest, "late")? == untouched, "a port was changed before udev initialized it");
    for _ in 0..2 {
        program(guest, "port late")?;
        assert_snapshot!("port_that_came", port(guest, "late")? + &mirror(guest, "m-late")?);
        guest.must(&format!("ip link del late && {add}"))?;
    }
    program(guest, "port late")?;
    program(guest, "port far")?;
    ensure!(!port(guest, "far")?.contains("NOARP"), "a port without configuration was changed");
    program(guest, "stop")?;
    ensure!(port(guest, "late")? == untouched, "{}", port(guest, "late")?);
    ensure!(!interfaces(guest)?.contains("m-late"), "the mirror device still exists");
});

guest_test!(a_port_that_comes_back_counts_in_the_same_table, |guest| {
    // The bridge gives the port what arrives at eth0.
    let add = "ip link add far type veth peer name late && ip link set dev far master br0 up";
    guest.must(&format!(
        "ip link add br0 type bridge && ip link set dev br0 up && ip link set dev eth0 master br0 && {add}"
    ))?;
    guest.open_port(0)?;
    install(guest, "port late\ntable t 10.0.0.0/8 --traffic\n")?;
    program(guest, "start")?;
    for frames in 1..=3 {
        guest.must("until grep -q up /sys/class/net/far/operstate; do :; done")?;
        guest.send(0, [frame(1)])?;
        ensure!(table(guest, "t")? == text_after(frames), "{}", table(guest, "t")?);
        let before = rules(guest)?;
        guest.must("ip link del dev far")?;
        let missing = guest.run("xt-traffic status")?;
        ensure!(missing.status == 1 && missing.stdout.contains("does not exist"), "{}", report(&missing));
        guest.must(&format!("{add} && xt-traffic port late"))?;
        ensure!(rules(guest)? == before, "{}", rules(guest)?);
    }
});
