// SPDX-License-Identifier: GPL-2.0-only
//! A mirror device takes every frame of its port and passes the IP packets inside to PROMISC.

use std::env;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use Layer::{Label, Vlan};
use anyhow::{Context, Result, ensure};
use insta::assert_snapshot;
use traffic_model::frames::{
    ALICE, BOB, BROADCAST, DOT1AD, DOT1Q, Ethernet, Generator, IPV4, IPV6, Ip, LAYERS, Layer, Mac, SYN, padded, wrapped,
};
use traffic_model::model::{Expected, Port, Rule, same_table};
use vm_harness::command::COMMAND_TIMEOUT;
use vm_harness::guest::{Guest, mac_of_port};
use vm_harness::replay::Backend;
use vm_tests::mirror::{
    MIRROR, SLICED, expected_statistics, has_ethernet_header, layer_examples, open_mirror, statistics,
};
use vm_tests::{BACKENDS, check_counters, counters, guest_test, iptables, iptables_both, table, under_traffic_while};

const FRAMES: usize = 10_000;

const ALL: [&str; 2] = [
    "iptables -A PROMISC -i mirror0 -m traffic --traffic --net 0.0.0.0/0 --name all-{backend}",
    "ip6tables -A PROMISC -i mirror0 -m traffic --traffic --net ::/0 --name six-{backend}",
];

/// Compares the tables of [`ALL`] and the device's statistics with the model's.
fn check(guest: &mut Guest, port: Port, frames: &[Vec<u8>]) -> Result<()> {
    for (name, rule) in [("all", Rule::ALL_IPV4), ("six", Rule::ALL_IPV6)] {
        for backend in BACKENDS {
            let name = format!("{name}-{backend}");
            same_table(&name, &table(guest, &name)?, &Expected::of(&rule, port, frames).text())?;
        }
    }
    let (got, want) = (statistics(guest, "mirror0")?, expected_statistics(frames, port == SLICED));
    ensure!(got == want, "the device counts\n{got:#?}\nthe model\n{want:#?}");
    let link = guest.must("ip -j -s link show mirror0")?;
    let link: serde_json::Value = serde_json::from_str(&link)?;
    let counter = |name: &str| link.pointer(&format!("/0/stats64/rx/{name}")).and_then(serde_json::Value::as_u64);
    let received: Option<u64> = ["packets", "errors", "dropped"].into_iter().map(counter).sum();
    let sent = frames.iter().filter(|frame| has_ethernet_header(frame)).count();
    ensure!(received == Some(sent as u64), "{sent} frames were sent: {link}");
    Ok(())
}

/// Adds the rules and a mirror device, sends frames, and compares as [`check`] does.
fn count(guest: &mut Guest, frames: &[Vec<u8>]) -> Result<()> {
    ALL.iter().try_for_each(|rule| iptables_both(guest, rule))?;
    open_mirror(guest)?;
    guest.send(0, frames)?;
    check(guest, MIRROR, frames)
}

/// A packet of 100 bytes from 10.0.0.`host`.
fn packet(host: u8) -> Vec<u8> {
    Ip::new([10, 0, 0, host], [192, 0, 2, 1]).udp((1, 2), &[7; 72])
}

/// A packet of 100 bytes from 2001:db8::`host`.
fn packet6(host: u16) -> Vec<u8> {
    Ip::between(&format!("2001:db8::{host:x}"), "2001:db8:1::1").udp((1, 2), &[7; 52])
}

guest_test!(each_encapsulation_is_counted, |guest| {
    let mut frames = Vec::new();
    for (layers, host) in layer_examples().iter().zip(1..) {
        frames.push(padded(wrapped(layers, &packet(host))));
        frames.push(padded(wrapped(layers, &packet6(host.into()))));
    }
    count(guest, &frames)?;
    let text = table(guest, "all-nft")? + &table(guest, "six-nft")? + &guest.must("ethtool -S mirror0")?;
    assert_snapshot!("encapsulations", text);
});

/// Each header around a packet, in each other one, and more of each than the device removes.
fn nested() -> Vec<Vec<Layer>> {
    let pairs = LAYERS.iter().flat_map(|&outer| LAYERS.map(|inner| vec![outer, inner]));
    let stacks = LAYERS.iter().flat_map(|&layer| (0..20).map(move |count| vec![layer; count]));
    pairs.chain(stacks).collect()
}

guest_test!(headers_in_each_other_are_removed, |guest| {
    let packets = [packet(1), packet6(1)];
    let frames: Vec<_> =
        nested().iter().flat_map(|layers| packets.each_ref().map(|packet| wrapped(layers, packet))).collect();
    count(guest, &frames)?;
});

/// Frames with each of the headers, cut after each byte.
fn cut_frames() -> Vec<Vec<u8>> {
    let packets = [packet(1), packet6(1)];
    let whole =
        layer_examples().into_iter().flat_map(|layers| packets.each_ref().map(|packet| wrapped(&layers, packet)));
    whole.flat_map(|frame| (1..=frame.len()).map(move |length| frame[..length].to_vec())).collect()
}

guest_test!(frames_that_are_cut_anywhere_are_counted_as_such, |guest| {
    let frames = cut_frames();
    count(guest, &frames)?;
});

guest_test!(frames_that_are_cut_anywhere_are_counted_in_full_with_the_flag, |guest| {
    let frames = cut_frames();
    ALL.iter().try_for_each(|rule| iptables_both(guest, rule))?;
    open_mirror(guest)?;
    guest.must("ethtool --set-priv-flags mirror0 sliced on")?;
    guest.send(0, &frames)?;
    check(guest, SLICED, &frames)?;
});

guest_test!(each_destination_is_counted, |guest| {
    let to = |mac, host| Ethernet::new(ALICE, mac).wrap(IPV4, &packet(host));
    let multicast: Mac = [0x01, 0, 0x5e, 1, 2, 3];
    let frames = [to(BOB, 1), to(mac_of_port(0), 2), to(BROADCAST, 3), to(multicast, 4)];
    ALL.iter().try_for_each(|rule| iptables_both(guest, rule))?;
    // The rules of the host itself see nothing.
    iptables_both(guest, "-A INPUT -s 10.0.0.0/24")?;
    iptables_both(guest, "-t raw -A PREROUTING -s 10.0.0.0/24")?;
    guest.must("ip addr add 192.0.2.1/32 dev lo")?;
    open_mirror(guest)?;
    guest.send(0, &frames)?;
    check(guest, MIRROR, &frames)?;
    check_counters(guest, "iptables", "INPUT", &[(0, 0)])?;
});

/// A frame to the group address of an IP address: https://www.rfc-editor.org/rfc/rfc1112#section-6.4
/// and https://www.rfc-editor.org/rfc/rfc2464#section-7
fn to_group(ip: &Ip, destination: &str, packet: &[u8]) -> Result<Vec<u8>> {
    let mac = match destination.parse()? {
        IpAddr::V4(address) if address.is_multicast() => {
            let [_, b, c, d] = address.octets();
            [1, 0, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V4(_) => BROADCAST,
        IpAddr::V6(address) => {
            let octets = address.octets();
            [0x33, 0x33, octets[12], octets[13], octets[14], octets[15]]
        }
    };
    Ok(Ethernet::new(ALICE, mac).wrap(ip.ethertype(), packet))
}

guest_test!(packets_to_groups_count_once, |guest| {
    let mut frames = Vec::new();
    let mut add = |source: &str, destination: &str, make: &dyn Fn(&Ip) -> Vec<u8>| -> Result<()> {
        let ip = Ip::between(source, destination);
        frames.push(to_group(&ip, destination, &make(&ip))?);
        Ok(())
    };
    for destination in ["239.1.2.3", "232.5.5.5"] {
        add("10.8.0.1", destination, &|ip| ip.udp((5000, 1234), &[0; 1316]))?;
    }
    add("10.8.0.4", "224.0.0.5", &|ip| ip.packet(89, &[0; 44]))?;
    add("0.0.0.0", "255.255.255.255", &|ip| ip.udp((68, 67), &[0; 300]))?;
    add("10.8.0.5", "10.8.0.255", &|ip| ip.udp((137, 137), &[0; 200]))?;
    add("fe80::1", "ff02::1", &|ip| ip.icmp(134, [0; 4], &[0; 8]))?;
    add("fe80::1", "ff02::fb", &|ip| ip.udp((5353, 5353), &[0; 60]))?;
    count(guest, &frames)?;
    let rows = "10.8.0.1\t2688\t0\t0\t0\t2688\t0\t0\t0\n10.8.0.4\t64\t0\t0\t0\t0\t0\t64\t0\n\
                10.8.0.5\t228\t0\t0\t0\t228\t0\t0\t0\n10.8.0.255\t0\t228\t0\t0\t0\t228\t0\t0\n";
    let text = table(guest, "all-nft")?;
    ensure!(text.contains(rows), "{text}");
    let rows = "ff02::1\t0\t56\t0\t0\t0\t0\t0\t56\nff02::fb\t0\t108\t0\t0\t0\t108\t0\t0\n";
    let text = table(guest, "six-nft")?;
    ensure!(text.contains(rows), "{text}");
});

guest_test!(what_the_host_sends_to_everybody_is_not_mirrored, |guest| {
    ALL.iter().try_for_each(|rule| iptables_both(guest, rule))?;
    open_mirror(guest)?;
    guest.must("ip addr add 192.0.2.1/24 dev eth0")?;
    // The kernel receives a copy of a broadcast, as if the port had received it. Nobody answers.
    guest.run("ping -c 1 -W 1 192.0.2.255")?;
    check(guest, MIRROR, &[])?;
    let sent = guest.sent_by_guest(0);
    let broadcast = [&BROADCAST[..], &mac_of_port(0), &IPV4.to_be_bytes()].concat();
    ensure!(sent.iter().any(|frame| frame.starts_with(&broadcast)), "the host has sent {sent:02x?}");
});

guest_test!(sliced_packets_are_counted_with_the_flag, |guest| {
    let frames: Vec<_> = (0..=60_u8)
        .flat_map(|cut| {
            let frames = [wrapped(&[Vlan(DOT1Q, 5)], &packet(cut)), wrapped(&[], &packet6(cut.into()))];
            frames.map(|mut frame| {
                frame.truncate(frame.len() - usize::from(cut));
                frame
            })
        })
        .collect();
    count(guest, &frames)?;
    let flags = guest.must("ethtool --show-priv-flags mirror0")?;
    ensure!(flags.contains("sliced: off"), "{flags}");
    guest.must("ip link del mirror0 && ip link add link eth0 name mirror0 type mirror && ip link set mirror0 up")?;
    guest.must("ethtool --set-priv-flags mirror0 sliced on")?;
    for backend in BACKENDS {
        for program in ["iptables", "ip6tables"] {
            iptables(guest, backend, &format!("{program} -F PROMISC"))?;
        }
    }
    ALL.iter().try_for_each(|rule| iptables_both(guest, rule))?;
    guest.send(0, &frames)?;
    check(guest, SLICED, &frames)?;
});

/// Frames with all kinds of headers. Many are cut or have another error.
fn random_frames(seed: u64) -> Vec<Vec<u8>> {
    let ipv4 = (0..40).map(|n| IpAddr::from([172, 20, 0, n]));
    let ipv6 = (0..40).map(|n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n).into());
    Generator::new(seed, mac_of_port(0), ipv4.chain(ipv6).collect()).encapsulated().take(FRAMES).collect()
}

guest_test!(random_encapsulations_with_gro, |guest| {
    let frames = random_frames(1);
    count(guest, &frames)?;
});

guest_test!(random_encapsulations_without_gro, |guest| {
    guest.must("ethtool -K eth0 gro off")?;
    let frames = random_frames(2);
    count(guest, &frames)?;
});

guest_test!(aggregates_behind_headers_count_as_on_the_wire, |guest| {
    let streams: [&[Layer]; 4] = [&[], &[Vlan(DOT1Q, 5)], &[Vlan(DOT1AD, 6), Vlan(DOT1Q, 5)], &[Label]];
    let mut frames = Vec::new();
    for (layers, host) in streams.iter().zip(1..) {
        let ip = Ip::new([10, 0, 0, host], [192, 0, 2, 1]);
        frames.extend(ip.stream((1, 80), 500, &[7; 1400]).iter().map(|packet| wrapped(layers, packet)));
    }
    ALL.iter().try_for_each(|rule| iptables_both(guest, rule))?;
    open_mirror(guest)?;
    guest.send(0, &frames)?;
    // The device counts the frames on the wire, the rule counts the aggregates.
    check(guest, MIRROR, &frames)?;
    let (packets, _) = counters(guest, "iptables", Backend::Nft, "PROMISC")?[0];
    ensure!(packets < 1500, "GRO has left {packets} of {} packets", frames.len());
});

/// What changes when the host itself processes a frame.
fn host_state(guest: &mut Guest) -> Result<String> {
    guest.must(
        "cat /proc/net/snmp /proc/net/netstat /proc/net/arp; \
         grep -E '^(Ip6In|Icmp6In|Udp6In|Ip6Forw|Ip6OutForw)' /proc/net/snmp6; \
         ip -s -j link show dev eth0.5; ip -s -j link show dev br0; bridge fdb show br br0; \
         sed 1d /proc/net/tcp | awk '{ print $2, $3, $4 }'; sed 1d /proc/net/raw | awk '{ print $5 }'",
    )
}

guest_test!(nothing_else_receives_the_frames, |guest| {
    guest.must("ip link add link eth0 name eth0.5 type vlan id 5 && ip link add br0 type bridge")?;
    guest.must("ip link set eth0.5 master br0 && ip addr add 192.0.2.1/24 dev eth0 && ip link set br0 up")?;
    guest.must("echo 1 >/proc/sys/net/ipv4/ip_forward && echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6")?;
    guest.must("httpd -p 192.0.2.1:80 -h /tmp")?;
    let ping = guest.start("exec ping 127.0.0.1 >/dev/null")?;
    guest.must("until sed 1d /proc/net/raw | grep -q .; do :; done; killall -STOP ping")?;
    open_mirror(guest)?;
    guest.must("ip link set eth0.5 up")?;
    let own = mac_of_port(0);
    let arp = |target: [u8; 4]| [&[0, 1, 8, 0, 6, 4, 0, 1][..], &ALICE, &[192, 0, 2, 9], &[0; 6], &target].concat();
    let to_guest = Ip::new([192, 0, 2, 9], [192, 0, 2, 1]);
    let packets =
        [to_guest.tcp((5000, 80), 1, SYN, b""), to_guest.ping(1, b"12345678"), to_guest.udp((1, 9), b"closed")];
    let mut frames = vec![Ethernet::new(ALICE, BROADCAST).wrap(0x0806, &arp([192, 0, 2, 1]))];
    for packet in &packets {
        for mac in [own, BROADCAST, BOB] {
            frames.push(Ethernet::new(ALICE, mac).wrap(IPV4, packet));
            frames.push(Ethernet::new(ALICE, mac).tag(DOT1Q, 5).wrap(IPV4, packet));
            frames.push(Ethernet::new(ALICE, mac).tag(DOT1Q, 0).wrap(IPV4, packet));
        }
    }
    frames.push(Ethernet::new(ALICE, own).wrap(IPV4, &Ip::new([192, 0, 2, 9], [198, 51, 100, 1]).udp((1, 2), b"on")));
    frames.push(Ethernet::new(ALICE, own).wrap(IPV6, &packet6(1)));
    frames.push(padded(Ethernet::new(ALICE, [1, 0x80, 0xc2, 0, 0, 0]).wrap(38, &[0x42, 0x42, 3])));
    let before = host_state(guest)?;
    guest.send(0, &frames)?;
    let after = host_state(guest)?;
    ensure!(before == after, "before:\n{before}after:\n{after}");
    let sent = guest.sent_by_guest(0);
    ensure!(sent.is_empty(), "the guest has sent {sent:02x?}");
    // While the device is down, its port is an ordinary port again.
    guest.must("ip link set mirror0 down")?;
    guest.send(0, &frames)?;
    ensure!(host_state(guest)? != before, "the host has received nothing");
    ensure!(!guest.sent_by_guest(0).is_empty(), "the host has not answered");
    guest.must("killall -KILL ping httpd")?;
    guest.finish_command(ping, COMMAND_TIMEOUT)?;
});

/// Whether port 0 is promiscuous.
fn promiscuity(guest: &mut Guest) -> Result<u64> {
    let link: serde_json::Value = serde_json::from_str(&guest.must("ip -j -d link show eth0")?)?;
    link.pointer("/0/promiscuity").and_then(serde_json::Value::as_u64).context("no promiscuity")
}

guest_test!(the_port_is_promiscuous_while_the_device_is_up, |guest| {
    ensure!(promiscuity(guest)? == 0);
    guest.must("ip link add link eth0 name mirror0 type mirror")?;
    ensure!(promiscuity(guest)? == 0);
    for change in ["set mirror0 down", "del mirror0"] {
        guest.must("ip link set mirror0 up")?;
        ensure!(promiscuity(guest)? == 1);
        guest.must(&format!("ip link {change}"))?;
        ensure!(promiscuity(guest)? == 0, "after {change}");
    }
});

guest_test!(tools_show_the_device, |guest| {
    guest.must("ip link add link eth0 name mirror0 type mirror")?;
    let driver = guest.must("ethtool -i mirror0 | head -n 1")?;
    ensure!(driver == "driver: mirror\n", "{driver}");
    let link = guest.must("ip -d link show mirror0")?;
    ensure!(link.contains(" mirror0@eth0: ") && link.contains("\n    mirror "), "{link}");
});

guest_test!(what_is_not_possible_is_refused, |guest| {
    let commands = [
        // Without a port, of a device that is not of Ethernet, of a mirror device.
        "ip link add name mirror1 type mirror",
        "ip link add link lo name mirror1 type mirror",
        "ip link add link mirror0 name mirror1 type mirror",
        // The port is taken.
        "ip link add link eth0 name mirror1 type mirror",
        "ip link set eth0 master br0",
        // On top of a mirror device.
        "ip link set mirror0 master br0",
        "ip link add link mirror0 name mirror0.5 type vlan id 5",
        // The port belongs to a bridge.
        "ip link add link eth1 name mirror1 type mirror",
    ];
    guest.must("ip link add br0 type bridge && ip link set eth1 master br0")?;
    guest.must("ip link add link eth0 name mirror0 type mirror")?;
    for command in commands {
        ensure!(guest.run(command)?.status != 0, "{command} is accepted");
    }
});

guest_test!(the_device_disappears_with_its_port, |guest| {
    guest.must("ip link add up0 type veth peer name down0 && ip link add link up0 name mirror0 type mirror")?;
    guest.must("ip link set up0 up && ip link set down0 up && ip link set mirror0 up && ip link del down0")?;
    ensure!(guest.run("ip link show mirror0")?.status != 0, "the device remains");
});

guest_test!(the_hook_of_the_devices_namespace_sees_the_packets, |guest| {
    guest.must("ip netns add other")?;
    let rule = "-A PROMISC -m traffic --traffic --net 10.0.0.0/24 --name t";
    iptables(guest, Backend::Nft, rule)?;
    guest.must(&format!("ip netns exec other {}", Backend::Nft.command(rule)))?;
    guest.must("ip link add link eth0 name mirror0 type mirror && ip link set mirror0 netns other up")?;
    guest.open_port(0)?;
    guest.send(0, [wrapped(&[], &packet(1))])?;
    let other = guest.must("ip netns exec other cat /proc/net/xt_traffic/t")?;
    ensure!(other.lines().count() == 2 && table(guest, "t")?.lines().count() == 1, "{other}");
    // Deleting the namespace deletes the device, not the port.
    guest.must("ip netns delete other && ip link show eth0")?;
    guest.must("until ip -d link show eth0 | grep -q 'promiscuity 1 '; do :; done")?;
    guest.send(0, [wrapped(&[], &packet(2))])?;
    ensure!(table(guest, "t")?.contains("10.0.0.2\t"));
});

/// How long devices and rules change. `XT_TRAFFIC_CHANGES` sets another time, in seconds.
fn duration() -> Result<Duration> {
    let seconds = env::var("XT_TRAFFIC_CHANGES").map_or(Ok(3), |text| text.parse().context("XT_TRAFFIC_CHANGES"));
    seconds.map(Duration::from_secs)
}

guest_test!(devices_ports_and_rules_change_under_traffic, |guest| {
    // A bridge passes the frames on to a second port, which can be deleted.
    let setup = "ip link add br0 type bridge && ip link set br0 up && echo 0 >/sys/class/net/br0/bridge/multicast_snooping && \
                 ip link set eth0 master br0";
    guest.must(setup)?;
    guest.open_port(0)?;
    let port = "ip link add up0 type veth peer name down0 && ip link set up0 master br0 && \
                ip link set up0 up && ip link set down0 up";
    let device = "ip link add link down0 name mirror0 type mirror && ip link set mirror0 up && \
                  ethtool --set-priv-flags mirror0 sliced on && ip link set mirror0 down && ip link set mirror0 up";
    let examples = layer_examples();
    let to_everybody = Ethernet::new(ALICE, BROADCAST);
    let frame = |number| to_everybody.wrap_in(&examples[number as usize % examples.len()], IPV4, &packet(1));
    let (start, duration) = (Instant::now(), duration()?);
    let (mut changes, mut counted) = (0, 0);
    let sent = under_traffic_while(guest, frame, |guest| {
        guest.must(port)?;
        guest.must(device)?;
        ALL.iter().try_for_each(|rule| iptables_both(guest, rule))?;
        counted += statistics(guest, "mirror0")?.get("rx_ipv4_packets").unwrap_or(&0);
        // Each in turn: the device with its traffic, its port, the rules first.
        match changes % 3 {
            0 => guest.must("ip link del mirror0 && ip link del up0").map(drop)?,
            1 => guest.must("ip link del up0").map(drop)?,
            _ => {}
        }
        for program in ["iptables", "ip6tables"] {
            iptables_both(guest, &format!("{program} -F PROMISC"))?;
        }
        if changes % 3 == 2 {
            guest.must("ip link del down0")?;
        }
        changes += 1;
        Ok(changes < 3 || start.elapsed() < duration)
    })?;
    eprintln!("{changes} changes, {sent} frames were sent, {counted} of them passed through mirror devices");
    ensure!(counted > 0, "no frame has passed through a mirror device");
});
