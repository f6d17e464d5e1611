// SPDX-License-Identifier: GPL-2.0-only
//! The lifetime of tables: rules in several chains, changes under traffic, namespaces, the module.

use anyhow::ensure;
use insta::assert_snapshot;
use traffic_model::frames::{ALICE, BROADCAST, Ethernet, IPV4, Ip, SYN, mirrored};
use traffic_model::model::File;
use vm_harness::command::COMMAND_TIMEOUT;
use vm_harness::guest::{Guest, mac_of_port};
use vm_harness::replay::TABLES;
use vm_tests::{
    BACKENDS, enable_forwarding, guest_test, iptables, iptables_both, open_and_send, table, table_files, under_traffic,
};

// Broadcast and multicast frames are addressed to the host too: they pass through INPUT. Packets
// in frames to its own address pass through FORWARD. The others pass through PROMISC.
guest_test!(one_table_in_several_chains, |guest| {
    let ip = |to: [u8; 4]| Ip::new([10, 0, 0, 1], to).udp((1, 2), &[0; 72]);
    let to = |mac, packet: &[u8]| Ethernet::new(ALICE, mac).wrap(IPV4, packet);
    let frames = [
        mirrored(&ip([10, 0, 0, 2])),
        to(BROADCAST, &ip([255, 255, 255, 255])),
        to([1, 0, 0x5e, 0, 0, 1], &ip([224, 0, 0, 1])),
        to(mac_of_port(0), &ip([10, 8, 0, 2])),
    ];
    enable_forwarding(guest, "10.0.0.9/24")?;
    for chain in ["PROMISC", "FORWARD", "INPUT"] {
        let rule = "-i eth0 -m traffic --traffic --ipconn --net 10.0.0.0/24 --name {backend}";
        iptables_both(guest, &format!("-A {chain} {rule}"))?;
    }
    open_and_send(guest, 0, &frames)?;
    for backend in BACKENDS {
        let tables = table(guest, &backend.to_string())? + &table(guest, &format!("{backend}.ipconn"))?;
        assert_snapshot!("several_chains", tables);
    }
});

/// A SYN of 60 bytes. Each number gives another connection.
fn syn(number: u64) -> Vec<u8> {
    let ip = Ip::between("2001:db8::1", "2001:db8:1::2");
    mirrored(&ip.tcp(((number >> 8) as u16, number as u16), number as u32, SYN, b""))
}

/// The tables of bytes and of connections after a number of [`syn`]s.
fn tables_after(frames: u64) -> [String; 2] {
    let bytes = frames * 60;
    [
        format!("{}2001:db8::1\t{bytes}\t0\t{bytes}\t0\t0\t0\t0\t0\n", File::Traffic.header()),
        format!("{}2001:db8::1\t{frames}\t0\t{frames}\t0\t0\t0\t0\t0\t0\t0\n", File::Ipconn.header()),
    ]
}

const RULE6: &str = "-m traffic --traffic --ipconn --portconn --net 2001:db8::/48 --name t";

// Changes rules while frames arrive. Each frame must be counted once.
guest_test!(ip6tables_under_traffic_loses_nothing, |guest, backend| {
    let ip6tables = |guest: &mut Guest, rule: &str| iptables(guest, backend, &format!("ip6tables {rule}"));
    ip6tables(guest, &format!("-A PROMISC {RULE6}"))?;
    guest.open_port(0)?;
    let mut n = 0;
    let sent = under_traffic(guest, syn, |guest| {
        n += 1;
        ip6tables(guest, &format!("-R PROMISC 1 {RULE6} -m comment --comment number{n}"))?;
        ip6tables(guest, "-Z PROMISC")?;
        let tool = format!("/usr/local/sbin/ip6tables-{backend}");
        guest.must(&format!("{tool}-save >/tmp/rules && {tool}-restore </tmp/rules")).map(drop)
    })?;
    ensure!(sent > 200, "only {sent} frames were sent");
    let [traffic, ipconn] = tables_after(sent);
    ensure!(table(guest, "t")? == traffic, "{sent} frames were sent, the table has\n{}", table(guest, "t")?);
    let text = table(guest, "t.ipconn")?;
    ensure!(text == ipconn, "{sent} connections were started, the table has\n{text}");
    // The frames have 2^16 destination ports.
    let ports = table(guest, "t.portconn")?.lines().count() as u64 - 1;
    ensure!(ports == sent.min(1 << 16), "{sent} ports were used, the table has {ports}");
});

// Deleting a namespace deletes its tables. An open file remains readable, as other files in
// /proc/net.
guest_test!(an_open_file_of_a_deleted_namespace_is_readable, |guest| {
    guest.must("ip netns add other")?;
    guest.move_port(1, "other")?;
    for backend in BACKENDS {
        let rule = format!("-A PROMISC -m traffic --traffic --ipconn --net 10.0.0.0/8 --name {backend}");
        guest.must(&format!("ip netns exec other {}", backend.command(&rule)))?;
    }
    open_and_send(guest, 1, [mirrored(&Ip::new([10, 0, 0, 1], [192, 0, 2, 1]).udp((1, 2), b"open"))])?;
    // A shell opens a file in the namespace through a process there. Then the process and the
    // namespace end.
    let text = guest.must(
        "ip netns exec other sleep 100 & \
         until inside=$(ip netns pids other) && test -n \"$inside\"; do :; done; \
         exec 3</proc/$inside/net/xt_traffic/nft; \
         ip netns delete other; kill $inside; wait; cat <&3",
    )?;
    ensure!(text == File::Traffic.header().to_owned() + "10.0.0.1\t32\t0\t0\t0\t32\t0\t0\t0\n", "{text}");
    // The port returns when the namespace has ended, which is after its files are closed.
    guest.must("until test -e /sys/class/net/eth1; do sleep 0.1; done")?;
    ensure!(table_files(guest)?.is_empty());
});

guest_test!(the_module_cannot_be_removed_while_a_rule_exists, |guest| {
    for rule in [
        "iptables -A PROMISC -m traffic --traffic --net 10.0.0.0/8 --name four",
        "ip6tables -A INPUT -m traffic --ipconn --net ::/0 --name six",
    ] {
        for backend in BACKENDS {
            iptables(guest, backend, rule)?;
            ensure!(guest.run("rmmod xt_traffic")?.status != 0, "the module was removed while {backend} had a rule");
            let program = rule.split(' ').next().unwrap_or_default();
            iptables(guest, backend, &format!("{program} -F"))?;
        }
    }
    // nf_tables frees rules asynchronously.
    let unloaded = guest.start("until rmmod xt_traffic; do :; done 2>/dev/null")?;
    guest.finish_command(unloaded, COMMAND_TIMEOUT)?;
    ensure!(guest.run(&format!("test -e {TABLES}"))?.status != 0, "the folder still exists");
    guest.must("insmod /lib/modules/xt_traffic.ko")?;
    ensure!(guest.must(&format!("ls -A {TABLES}"))? == ".stats\n");
});
