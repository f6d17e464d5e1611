// SPDX-License-Identifier: GPL-2.0-only
//! Frames to other hosts pass through PROMISC; frames to the guest do not.

use anyhow::ensure;
use insta::assert_snapshot;
use traffic_model::frames::{ALICE, BOB, BROADCAST, DOT1Q, Ethernet, IPV4, Ip, Mac, mirrored};
use vm_harness::guest::mac_of_port;
use vm_harness::replay::Backend;
use vm_tests::{check_counters, count, guest_test, iptables, iptables_both, open_and_send, table};

fn packet(host: u8) -> Vec<u8> {
    Ip::new([10, 0, 0, host], [10, 0, 0, 100]).udp((1, 2), &[7; 72])
}

fn to(mac: Mac, host: u8) -> Vec<u8> {
    Ethernet::new(ALICE, mac).wrap(IPV4, &packet(host))
}

guest_test!(frames_to_the_guest_pass_through_input_and_not_promisc, |guest| {
    guest.must("ip addr add 10.0.0.100/32 dev lo")?;
    iptables_both(guest, "-A INPUT -s 10.0.0.0/24")?;
    let multicast = [0x01, 0, 0x5e, 0, 0, 1];
    let frames = [to(mac_of_port(0), 1), to(BOB, 2), to(BROADCAST, 3), to(multicast, 4), to(mac_of_port(0), 5)];
    assert_snapshot!("frames_to_the_guest_and_to_others", count(guest, "--net 10.0.0.0/24", &frames)?);
    check_counters(guest, "iptables", "PROMISC", &[(1, 100)])?;
    // The guest also receives the broadcast and multicast frames: their IP address is a local
    // one.
    check_counters(guest, "iptables", "INPUT", &[(4, 400)])?;
});

guest_test!(tagged_frames_with_an_interface_for_the_vlan, |guest| {
    let tagged = |mac, vlan, host| Ethernet::new(ALICE, mac).tag(DOT1Q, vlan).wrap(IPV4, &packet(host));
    let frames = [
        tagged(BOB, 5, 1),
        // The guest has an interface for this VLAN, so this is its own traffic.
        tagged(mac_of_port(0), 5, 2),
        // Another VLAN: not the guest's traffic, independent of the address.
        tagged(mac_of_port(0), 6, 3),
        tagged(BROADCAST, 6, 4),
    ];
    // The VLAN interface can be up only while the port is.
    guest.open_port(0)?;
    guest.must("ip link add link eth0 name eth0.5 type vlan id 5 && ip link set dev eth0.5 up")?;
    assert_snapshot!("vlan_interface", count(guest, "--net 10.0.0.0/24", &frames)?);
});

guest_test!(rules_see_the_packet_and_its_port, |guest| {
    for (backend, name) in [(Backend::Nft, "n"), (Backend::Legacy, "l")] {
        for (rule, table) in [("-i eth0", "0"), ("-i eth1", "1"), ("-s 10.0.0.7 -p udp --dport 2", "s")] {
            let rule = format!("-A PROMISC {rule} -m traffic --traffic --net 10.0.0.0/24 --name {name}{table}");
            iptables(guest, backend, &rule)?;
        }
    }
    for (port, hosts) in [(0, [7, 8]), (1, [7, 9])] {
        open_and_send(guest, port, hosts.map(|host| to(BOB, host)))?;
    }
    let mut tables = String::new();
    for name in ["0", "1", "s"] {
        let [nft, legacy] = [table(guest, &format!("n{name}"))?, table(guest, &format!("l{name}"))?];
        ensure!(nft == legacy, "{name}: nft counts\n{nft}and legacy counts\n{legacy}");
        tables += &format!("==> {name}\n{nft}");
    }
    assert_snapshot!("rules_see_the_packet_and_its_port", tables);
});

guest_test!(the_match_is_true_when_it_counts_a_packet, |guest| {
    let outside = mirrored(&Ip::new([192, 0, 2, 1], [192, 0, 2, 2]).udp((1, 2), b""));
    let inside = to(BOB, 1);
    let frames = [outside.clone(), inside.clone(), outside, inside];
    // The second rule counts packets that the first one did not match.
    iptables_both(guest, "-A PROMISC -m traffic --traffic --net 10.0.0.0/24 --name first-{backend} -j RETURN")?;
    iptables_both(guest, "-A PROMISC")?;
    open_and_send(guest, 0, &frames)?;
    check_counters(guest, "iptables", "PROMISC", &[(2, 200), (2, 56)])?;
});
