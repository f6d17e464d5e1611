// SPDX-License-Identifier: GPL-2.0
//! Which frames are mirrored ones: those that are for somebody else.

use anyhow::ensure;
use insta::assert_snapshot;
use traffic_model::frames::{ALICE, BOB, BROADCAST, DOT1Q, Ethernet, IPV4, Ipv4, Mac, mirrored};
use vm_harness::guest::mac_of_port;
use vm_harness::replay::Backend;

use crate::support::{BACKENDS, count, counters, in_guest, iptables, table};

fn packet(host: u8) -> Vec<u8> {
    Ipv4::new([10, 0, 0, host], [10, 0, 0, 100]).udp((1, 2), &[7; 72])
}

fn to(mac: Mac, host: u8) -> Vec<u8> {
    Ethernet::new(ALICE, mac).wrap(IPV4, &packet(host))
}

#[test]
fn frames_for_the_box_reach_input_and_not_promisc() {
    in_guest(|guest| {
        guest.must("ip addr add 10.0.0.100/32 dev lo")?;
        for backend in BACKENDS {
            iptables(guest, backend, "-A INPUT -s 10.0.0.0/24")?;
        }
        let multicast = [0x01, 0, 0x5e, 0, 0, 1];
        let frames = [to(mac_of_port(0), 1), to(BOB, 2), to(BROADCAST, 3), to(multicast, 4), to(mac_of_port(0), 5)];
        assert_snapshot!("for_the_box_and_for_others", count(guest, "--net 10.0.0.0/24", &frames)?);
        for backend in BACKENDS {
            ensure!(counters(guest, backend, "PROMISC")? == [(1, 100)], "{backend}: PROMISC");
            // The box takes broadcast and multicast frames as well; their IP address is a local one.
            ensure!(counters(guest, backend, "INPUT")? == [(4, 400)], "{backend}: INPUT");
        }
        Ok(())
    });
}

#[test]
fn the_box_has_an_interface_for_a_vlan() {
    let tagged = |mac, vlan, host| Ethernet::new(ALICE, mac).tag(DOT1Q, vlan).wrap(IPV4, &packet(host));
    let frames = [
        tagged(BOB, 5, 1),
        // Of a VLAN that the box takes part in, and for the box: its own traffic.
        tagged(mac_of_port(0), 5, 2),
        // Of another VLAN: not the box's, whatever the address says.
        tagged(mac_of_port(0), 6, 3),
        tagged(BROADCAST, 6, 4),
    ];
    in_guest(|guest| {
        // It can be up only while the port is.
        guest.open_port(0)?;
        guest.must("ip link add link eth0 name eth0.5 type vlan id 5 && ip link set dev eth0.5 up")?;
        assert_snapshot!("vlan_interface", count(guest, "--net 10.0.0.0/24", &frames)?);
        Ok(())
    });
}

#[test]
fn rules_see_the_packet_and_its_port() {
    in_guest(|guest| {
        for (backend, name) in [(Backend::Nft, "n"), (Backend::Legacy, "l")] {
            for (rule, table) in [("-i eth0", "0"), ("-i eth1", "1"), ("-s 10.0.0.7 -p udp --dport 2", "s")] {
                let rule = format!("-A PROMISC {rule} -m traffic --traffic --net 10.0.0.0/24 --name {name}{table}");
                iptables(guest, backend, &rule)?;
            }
        }
        for (port, hosts) in [(0, [7, 8]), (1, [7, 9])] {
            guest.open_port(port)?;
            guest.send(port, hosts.map(|host| to(BOB, host)))?;
        }
        let mut tables = String::new();
        for name in ["0", "1", "s"] {
            let [nft, legacy] = [table(guest, &format!("n{name}"))?, table(guest, &format!("l{name}"))?];
            ensure!(nft == legacy, "{name}: nft counts\n{nft}and legacy counts\n{legacy}");
            tables += &format!("==> {name}\n{nft}");
        }
        assert_snapshot!("rules_see_the_packet_and_its_port", tables);
        Ok(())
    });
}

#[test]
fn a_match_is_true_when_something_was_counted() {
    let outside = mirrored(&Ipv4::new([192, 0, 2, 1], [192, 0, 2, 2]).udp((1, 2), b""));
    let inside = to(BOB, 1);
    let frames = [outside.clone(), inside.clone(), outside, inside];
    in_guest(|guest| {
        for backend in BACKENDS {
            // A verdict follows a match, so the second rule sees what did not match.
            let rule = format!("-A PROMISC -m traffic --traffic --net 10.0.0.0/24 --name first-{backend} -j RETURN");
            iptables(guest, backend, &rule)?;
            iptables(guest, backend, "-A PROMISC")?;
        }
        guest.open_port(0)?;
        guest.send(0, &frames)?;
        for backend in BACKENDS {
            let counters = counters(guest, backend, "PROMISC")?;
            ensure!(counters == [(2, 200), (2, 56)], "{backend}: {counters:?}");
        }
        Ok(())
    });
}
