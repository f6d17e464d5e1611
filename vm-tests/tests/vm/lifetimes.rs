// SPDX-License-Identifier: GPL-2.0
//! What tables outlive and what not: rules in several chains, changes under traffic, namespaces, the module.

use anyhow::{Result, ensure};
use insta::assert_snapshot;
use traffic_model::frames::{ALICE, BROADCAST, Ethernet, IPV4, Ip, Ipv4, Ipv6, SYN, mirrored};
use vm_harness::guest::{COMMAND_TIME, Guest, mac_of_port};
use vm_harness::replay::{Backend, TABLES};

use crate::support::{BACKENDS, in_guest, iptables, table, under_traffic};

/// Broadcasts and multicasts are for everybody, so for the box, too: INPUT sees them. A router forwards what is
/// sent to its own address. The rest is for others.
#[test]
fn one_table_in_several_chains() {
    let ip = |to: [u8; 4]| Ipv4::new([10, 0, 0, 1], to).udp((1, 2), &[0; 72]);
    let to = |mac, packet: &[u8]| Ethernet::new(ALICE, mac).wrap(IPV4, packet);
    let frames = [
        mirrored(&ip([10, 0, 0, 2])),
        to(BROADCAST, &ip([255, 255, 255, 255])),
        to([1, 0, 0x5e, 0, 0, 1], &ip([224, 0, 0, 1])),
        to(mac_of_port(0), &ip([10, 8, 0, 2])),
    ];
    in_guest(|guest| {
        guest.must("echo 1 >/proc/sys/net/ipv4/ip_forward")?;
        guest.open_port(1)?;
        guest.must("ip addr add 10.8.0.1/24 dev eth1 && ip neigh add 10.8.0.2 lladdr 02:02:02:02:02:02 dev eth1")?;
        guest.must("ip addr add 10.0.0.9/24 dev eth0")?;
        for backend in BACKENDS {
            for chain in ["PROMISC", "FORWARD", "INPUT"] {
                let rule = format!("-A {chain} -i eth0 -m traffic --traffic --ipconn --net 10.0.0.0/24");
                iptables(guest, backend, &format!("{rule} --name {backend}"))?;
            }
        }
        guest.open_port(0)?;
        guest.send(0, &frames)?;
        for backend in BACKENDS {
            let tables = table(guest, &backend.to_string())? + &table(guest, &format!("{backend}.ipconn"))?;
            assert_snapshot!("several_chains", tables);
        }
        Ok(())
    });
}

const RULE: &str = "-m traffic --traffic --net 10.0.0.0/8 --name t";

fn refused(guest: &mut Guest, backend: Backend, rule: &str) -> Result<()> {
    let output = guest.run(&backend.command(rule))?;
    ensure!(output.status != 0, "accepted: {rule}");
    let said = output.stderr;
    ensure!(said.contains("File exists"), "{rule}: {said}");
    Ok(())
}

#[test]
fn every_parameter_makes_another_table() {
    let others = [
        "iptables -A INPUT -m traffic --traffic --ipconn --net 10.0.0.0/8 --name t",
        "iptables -A INPUT -m traffic --traffic --portconn --net 10.0.0.0/8 --name t",
        "iptables -A INPUT -m traffic --ipconn --net 10.0.0.0/8 --name t",
        "iptables -A INPUT -m traffic --traffic --net 10.0.0.0/9 --name t",
        "iptables -A INPUT -m traffic --traffic --net 10.0.0.0/8 --name t --hashsize 4096",
        "iptables -A INPUT -m traffic --traffic --net 10.0.0.0/8 --name t --clearonread",
        "iptables -A INPUT -m traffic --traffic --net 10.0.0.0/8 --name t --nointernal",
        "iptables -A INPUT -m traffic --traffic --net 10.0.0.0/8 --name t ! --nointernal",
        "ip6tables -A INPUT -m traffic --traffic --net 2001:db8::/32 --name t",
    ];
    for backend in BACKENDS {
        in_guest(|guest| {
            iptables(guest, backend, &format!("-A PROMISC {RULE}"))?;
            for other in others {
                refused(guest, backend, other)?;
            }
            // The same, said in another way: the default of this network.
            iptables(guest, backend, "-A INPUT -m traffic --traffic --net 10.0.0.0/8 --name t --hashsize 65536")?;
            let log = guest.kernel_log()?;
            let lines = log.lines().filter_map(|line| line.split_once("xt_traffic: ").map(|(_, text)| text));
            assert_snapshot!("refusals", lines.collect::<Vec<_>>().join("\n"));
            Ok(())
        });
    }
}

fn ipv6() -> Ip {
    Ip::V6(Ipv6 { source: "2001:db8::1".parse().unwrap(), destination: "2001:db8:1::2".parse().unwrap() }, vec![])
}

/// A segment that starts a connection like no other.
fn start(number: u64) -> Vec<u8> {
    let ip = ipv6();
    ip.mirrored(&ip.tcp(((number >> 8) as u16, number as u16), number as u32, SYN, b""))
}

/// One address's row, if all frames were counted once: 60 bytes each, and a connection.
fn rows_after(frames: u64) -> [String; 2] {
    let bytes = frames * 60;
    [
        format!("IP\t\tTOTAL\t\tTCP\t\tUDP\t\tOTHER\n2001:db8::1\t{bytes}\t0\t{bytes}\t0\t0\t0\t0\t0\n"),
        format!(
            "IP\t\tTOTAL\t\tTCP\t\tUDP\t\tICMP\t\tOTHER\n2001:db8::1\t{frames}\t0\t{frames}\t0\t0\t0\t0\t0\t0\t0\n"
        ),
    ]
}

const RULE6: &str = "-m traffic --traffic --ipconn --portconn --net 2001:db8::/48 --name t";

/// What administrators do with ip6tables while frames arrive: each frame is counted once.
fn changes_lose_nothing(backend: Backend) {
    in_guest(|guest| {
        let ip6tables = |guest: &mut Guest, rule: &str| iptables(guest, backend, &format!("ip6tables {rule}"));
        ip6tables(guest, &format!("-A PROMISC {RULE6}"))?;
        guest.open_port(0)?;
        let mut n = 0;
        let sent = under_traffic(guest, start, |guest| {
            n += 1;
            ip6tables(guest, &format!("-R PROMISC 1 {RULE6} -m comment --comment number{n}"))?;
            ip6tables(guest, "-Z PROMISC")?;
            let tool = format!("/usr/local/sbin/ip6tables-{backend}");
            guest.must(&format!("{tool}-save >/tmp/rules && {tool}-restore </tmp/rules")).map(drop)
        })?;
        ensure!(sent > 200, "only {sent} frames were sent meanwhile");
        let [traffic, ipconn] = rows_after(sent);
        ensure!(table(guest, "t")? == traffic, "{sent} frames were sent, the table says\n{}", table(guest, "t")?);
        let text = table(guest, "t.ipconn")?;
        ensure!(text == ipconn, "{sent} connections were started, the table says\n{text}");
        // Each frame has a port of its own, modulo 2^16.
        let ports = table(guest, "t.portconn")?.lines().count() as u64 - 1;
        ensure!(ports == sent.min(1 << 16), "{sent} ports were used, the table has {ports}");
        Ok(())
    });
}

#[test]
fn ip6tables_under_traffic_loses_nothing_nft() {
    changes_lose_nothing(Backend::Nft);
}

#[test]
fn ip6tables_under_traffic_loses_nothing_legacy() {
    changes_lose_nothing(Backend::Legacy);
}

/// A namespace that ends with rules in place takes their tables along; who has a file open keeps it, as with
/// other files of its kind, and can read on.
#[test]
fn a_namespace_with_rules_and_an_open_file() {
    in_guest(|guest| {
        guest.must("ip netns add other")?;
        guest.move_port(1, "other")?;
        for backend in BACKENDS {
            let rule = format!("-A PROMISC -m traffic --traffic --ipconn --net 10.0.0.0/8 --name {backend}");
            guest.must(&format!("ip netns exec other {}", backend.command(&rule)))?;
        }
        guest.open_port(1)?;
        guest.send(1, [mirrored(&Ipv4::new([10, 0, 0, 1], [192, 0, 2, 1]).udp((1, 2), b"open"))])?;
        // A shell outside opens a file inside by way of a process there, which ends, and the namespace with it.
        let text = guest.must(
            "ip netns exec other sleep 100 & \
             until inside=$(ip netns pids other) && test -n \"$inside\"; do :; done; \
             exec 3</proc/$inside/net/xt_traffic/nft; \
             ip netns delete other; kill $inside; wait; cat <&3",
        )?;
        ensure!(text == "IP\t\tTOTAL\t\tTCP\t\tUDP\t\tOTHER\n10.0.0.1\t32\t0\t0\t0\t32\t0\t0\t0\n", "{text}");
        // The port comes back when the namespace has ended, and it does not before its files are closed.
        guest.must("until test -e /sys/class/net/eth1; do :; done")?;
        ensure!(guest.must(&format!("ls {TABLES}"))?.is_empty());
        Ok(())
    });
}

#[test]
fn the_module_stays_while_there_is_a_rule() {
    in_guest(|guest| {
        for rule in [
            "iptables -A PROMISC -m traffic --traffic --net 10.0.0.0/8 --name four",
            "ip6tables -A INPUT -m traffic --ipconn --net ::/0 --name six",
        ] {
            for backend in BACKENDS {
                iptables(guest, backend, rule)?;
                let unload = guest.run("rmmod xt_traffic")?;
                ensure!(unload.status != 0, "the module went while {backend} had a rule");
                let program = rule.split(' ').next().unwrap_or_default();
                iptables(guest, backend, &format!("{program} -F"))?;
            }
        }
        // nf_tables destroys rules a little later.
        let unloaded = guest.start("until rmmod xt_traffic; do :; done 2>/dev/null")?;
        guest.finish_command(unloaded, COMMAND_TIME)?;
        ensure!(guest.run(&format!("test -e {TABLES}"))?.status != 0, "the folder is left");
        guest.must("insmod /lib/modules/xt_traffic.ko")?;
        ensure!(guest.must(&format!("ls -A {TABLES}"))? == ".stats\n");
        Ok(())
    });
}
