// SPDX-License-Identifier: GPL-2.0-only
//! A mirror device of a device that terminates a remote mirror.

use anyhow::{Context, Result, ensure};
use insta::assert_snapshot;
use traffic_model::frames::{ALICE, Ethernet, Ip, Tunnel, padded, wrapped};
use traffic_model::model::{Expected, Rule, same_table};
use vm_harness::guest::{Guest, mac_of_port};
use vm_tests::mirror::{MIRROR, layer_examples};
use vm_tests::{BACKENDS, guest_test, iptables_both, row_after, table, text_after};

/// The words of `ip link add` after `type`, what the device terminates, and whether that travels in
/// IPv6. With `oseq` instead of `seq`, the device accepts sequence numbers in any order.
const REMOTE: [(&str, Tunnel, bool); 8] = [
    ("gretap local 192.0.2.1 remote 192.0.2.9", Tunnel::Gretap, false),
    ("erspan erspan_ver 0 local 192.0.2.1 remote 192.0.2.9", Tunnel::Erspan { version: 0, session: 0 }, false),
    (
        "erspan erspan_ver 1 oseq key 11 local 192.0.2.1 remote 192.0.2.9",
        Tunnel::Erspan { version: 1, session: 11 },
        false,
    ),
    (
        "erspan erspan_ver 2 oseq key 12 local 192.0.2.1 remote 192.0.2.9",
        Tunnel::Erspan { version: 2, session: 12 },
        false,
    ),
    (
        "ip6erspan erspan_ver 1 oseq key 13 local 2001:db8::1 remote 2001:db8::9",
        Tunnel::Erspan { version: 1, session: 13 },
        true,
    ),
    (
        "ip6erspan erspan_ver 2 oseq key 14 local 2001:db8::1 remote 2001:db8::9",
        Tunnel::Erspan { version: 2, session: 14 },
        true,
    ),
    ("vxlan id 15 local 192.0.2.1 dstport 4789", Tunnel::Vxlan(15), false),
    ("geneve id 16 remote 192.0.2.9 dstport 6081", Tunnel::Geneve(16), false),
];

const RULES: [&str; 2] = [
    "iptables -A PROMISC -m traffic --traffic --net 10.0.0.0/8 --name four-{backend}",
    "ip6tables -A PROMISC -m traffic --traffic --net 2001:db8:1::/48 --name six-{backend}",
];

/// Adds the devices, each with a mirror device.
fn open_tunnels(guest: &mut Guest) -> Result<()> {
    guest.open_port(0)?;
    guest.must("ip addr add 192.0.2.1/24 dev eth0 && ip addr add 2001:db8::1/64 dev eth0 nodad")?;
    for (number, (words, ..)) in REMOTE.iter().enumerate() {
        guest.must(&format!(
            "ip link add tunnel{number} type {words} && ip link add link tunnel{number} name mirror{number} type mirror && \
             ip link set tunnel{number} up && ip link set mirror{number} up"
        ))?;
    }
    Ok(())
}

/// The frame of the remote mirror that carries a mirrored frame.
fn carried(tunnel: Tunnel, over_ipv6: bool, frame: &[u8]) -> Vec<u8> {
    let ip = if over_ipv6 { Ip::between("2001:db8::9", "2001:db8::1") } else { Ip::between("192.0.2.9", "192.0.2.1") };
    Ethernet::new(ALICE, mac_of_port(0)).wrap(ip.ethertype(), &tunnel.packet(&ip, frame))
}

guest_test!(each_kind_of_remote_mirror_is_counted, |guest| {
    RULES.iter().try_for_each(|rule| iptables_both(guest, rule))?;
    open_tunnels(guest)?;
    let (mut frames, mut inner) = (Vec::new(), Vec::new());
    for (number, &(_, tunnel, over_ipv6)) in REMOTE.iter().enumerate() {
        for (layers, host) in layer_examples().iter().zip(1..) {
            let packet = Ip::new([10, 0, number as u8, host], [10, 1, 0, 1]).udp((1, 2), &[7; 72]);
            let packet6 =
                Ip::between(&format!("2001:db8:1::{number:x}:{host:x}"), "2001:db8:2::1").udp((1, 2), &[7; 52]);
            inner.extend([packet, packet6].map(|packet| padded(wrapped(layers, &packet))));
        }
        let first = frames.len();
        frames.extend(inner[first..].iter().map(|frame| carried(tunnel, over_ipv6, frame)));
    }
    guest.send(0, &frames)?;
    for rule in RULES {
        for backend in BACKENDS {
            let parsed = Rule::parse(&rule.replace("{backend}", &backend.to_string()))?;
            let (name, rule) = parsed.context("no table")?;
            same_table(&name, &table(guest, &name)?, &Expected::of(&rule, MIRROR, &inner).text())?;
        }
    }
    let devices = (0..REMOTE.len()).map(|number| {
        let link = guest.must(&format!("ethtool -S mirror{number} | grep -v ': 0$'"))?;
        Ok(format!("{}\n{link}", REMOTE[number].0))
    });
    let text = devices.collect::<Result<String>>()?;
    assert_snapshot!("devices", text);
});

guest_test!(packets_without_an_ethernet_header_are_counted, in_guest_briefly, |guest| {
    RULES.iter().try_for_each(|rule| iptables_both(guest, rule))?;
    guest.open_port(0)?;
    guest.must("ip addr add 192.0.2.1/24 dev eth0")?;
    guest.must(
        "ip link add gcp1 type geneve external innerprotoinherit dstport 6081 && \
         ip link add link gcp1 name mirror0 type mirror && ip link set gcp1 up && ip link set mirror0 up",
    )?;
    let packets = |host: u8| {
        let packet = Ip::new([10, 0, 0, host], [198, 51, 100, 1]).udp((1, 2), &[7; 72]);
        let packet6 = Ip::between(&format!("2001:db8:1::{host:x}"), "2001:db8:2::1").udp((1, 2), &[7; 52]);
        [packet, packet6]
    };
    let carried = |packet: &Vec<u8>| carried(Tunnel::GenevePacket, false, packet);
    let cut = packets(3).map(|packet| packet[..60].to_vec());
    let mut broken = packets(4)[0].clone();
    broken[10] ^= 1;
    let frames: Vec<_> = [packets(1), packets(2), cut].iter().flatten().chain([&broken]).map(carried).collect();
    guest.send(0, &frames)?;
    for backend in BACKENDS {
        let four = table(guest, &format!("four-{backend}"))?;
        ensure!(four == text_after(1) + &row_after(2, 1), "{four}");
        let six = table(guest, &format!("six-{backend}"))?;
        let rows = [1, 2].map(|host| format!("2001:db8:1::{host}\t100\t0\t0\t0\t100\t0\t0\t0\n"));
        ensure!(six.ends_with(&rows.concat()), "{six}");
    }
    let sizes: usize = packets(1).iter().chain(&packets(2)).map(Vec::len).sum();
    let link = "ip -d link show mirror0 | grep -o 'link/[a-z]*'";
    assert_snapshot!("without_ethernet", guest.must(&format!("{link}; ethtool -S mirror0 | grep -v ': 0$'"))?);
    // The sizes have no Ethernet header.
    let bytes = guest.must("ethtool -S mirror0 | awk '/rx_ipv._bytes/ { sum += $2 } END { print sum }'")?;
    ensure!(bytes.trim() == sizes.to_string(), "{bytes}");
});
