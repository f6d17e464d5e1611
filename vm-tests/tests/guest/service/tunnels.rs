// SPDX-License-Identifier: GPL-2.0-only
//! The tunnels of the service, which receive remote mirrors.

use anyhow::ensure;
use insta::assert_snapshot;
use traffic_model::frames::{ALICE, Ethernet, GRE, IPV4, IPV6, Ip};
use vm_harness::guest::mac_of_port;
use vm_tests::{frame, guest_test, table};

use super::{configure, install, interfaces, program, report, rules};

/// The EtherType of ERSPAN in GRE, types I and II, and of type III.
/// <https://datatracker.ietf.org/doc/html/draft-foschiano-erspan-03>
const ERSPAN: u16 = 0x88be;
const ERSPAN_III: u16 = 0x22eb;
/// The EtherType of a frame of Ethernet in GRE and in GENEVE.
const BRIDGING: u16 = 0x6558;

/// A GRE header (RFC 2890) with these flags and optional fields.
fn gre(flags: u16, protocol: u16, fields: &[u32]) -> Vec<u8> {
    let fields: Vec<_> = fields.iter().flat_map(|field| field.to_be_bytes()).collect();
    [&flags.to_be_bytes()[..], &protocol.to_be_bytes(), &fields].concat()
}

fn erspan_1() -> Vec<u8> {
    gre(0, ERSPAN, &[])
}

/// All packets have the same sequence number, as those of several switches can.
fn erspan_2(session: u32) -> Vec<u8> {
    gre(0x1000, ERSPAN, &[1, 1 << 28 | session, 0])
}

fn erspan_3(session: u32) -> Vec<u8> {
    gre(0x1000, ERSPAN_III, &[1, 2 << 28 | session, 0, 0])
}

/// <https://www.rfc-editor.org/rfc/rfc7348#section-5>
fn vxlan(id: u32) -> Vec<u8> {
    [0x0800_0000, id << 8].map(u32::to_be_bytes).concat()
}

/// <https://www.rfc-editor.org/rfc/rfc8926#section-3.4>
fn geneve(id: u32) -> Vec<u8> {
    [u32::from(BRIDGING), id << 8].map(u32::to_be_bytes).concat()
}

/// A header for a packet without an Ethernet header.
fn geneve_of(protocol: u16) -> Vec<u8> {
    [u32::from(protocol), 0].map(u32::to_be_bytes).concat()
}

/// A frame for the host, from 192.0.2.`sender` or 2001:db8:ff::9, with the headers of a tunnel and
/// the mirrored frame of 10.0.0.`host`.
struct Mirrored {
    host: u8,
}

impl Mirrored {
    fn in_gre(&self, sender: u8, header: &[u8]) -> Vec<u8> {
        let packet = Ip::new([192, 0, 2, sender], [192, 0, 2, 1]).packet(GRE, &[header, &frame(self.host)].concat());
        Ethernet::new(ALICE, mac_of_port(0)).wrap(IPV4, &packet)
    }

    fn in_gre_over_ipv6(&self, header: &[u8]) -> Vec<u8> {
        let ip = Ip::between("2001:db8:ff::9", "2001:db8:ff::1");
        Ethernet::new(ALICE, mac_of_port(0)).wrap(IPV6, &ip.packet(GRE, &[header, &frame(self.host)].concat()))
    }

    fn in_udp(&self, sender: u8, port: u16, header: &[u8]) -> Vec<u8> {
        let ip = Ip::new([192, 0, 2, sender], [192, 0, 2, 1]);
        Ethernet::new(ALICE, mac_of_port(0)).wrap(IPV4, &ip.udp((5000, port), &[header, &frame(self.host)].concat()))
    }

    fn without_ethernet(&self, sender: u8, port: u16, header: &[u8]) -> Vec<u8> {
        let ip = Ip::new([192, 0, 2, sender], [192, 0, 2, 1]);
        let packet = &frame(self.host)[14..];
        Ethernet::new(ALICE, mac_of_port(0)).wrap(IPV4, &ip.udp((5000, port), &[header, packet].concat()))
    }
}

/// The hosts whose frames were counted.
fn counted(text: &str) -> Vec<u8> {
    text.lines().filter_map(|line| line.strip_prefix("10.0.0.")?.split('\t').next()?.parse().ok()).collect()
}

/// The port eth0 receives the packets of all tunnels.
const ADDRESSES: &str = "ip addr add 192.0.2.1/24 dev eth0 && ip addr add 2001:db8:ff::1/64 dev eth0 nodad";

const TABLE: &str = "table t 10.0.0.0/24 --traffic\n";

guest_test!(tunnels_of_each_type_count_what_they_accept, |guest| {
    guest.must(ADDRESSES)?;
    let before = [interfaces(guest)?, rules(guest)?];
    let lines = "tunnel type1 erspan version 0 local 192.0.2.1\n\
                 tunnel type2 erspan local 192.0.2.1 remote 192.0.2.9 key 5 # a session of one switch\n\
                 tunnel type3 erspan version 2 id 6 as span3 sliced mtu 9000\n\
                 tunnel six ip6erspan key 7 local 2001:db8:ff::1 dev eth0\n\
                 tunnel tap gretap remote 192.0.2.9\n\
                 tunnel key gretap key 4000000000\n\
                 tunnel aws vxlan id 8\n\
                 tunnel gen geneve id 9 remote 192.0.2.9 dstport 6082\n\
                 tunnel gcp geneve innerprotoinherit\n";
    install(guest, &format!("{lines}{TABLE}"))?;
    assert_snapshot!("check", program(guest, "check")?);
    ensure!([interfaces(guest)?, rules(guest)?] == before, "check makes something");
    program(guest, "start")?;
    guest.open_port(0)?;
    let of = |host| Mirrored { host };
    let accepted = [
        of(1).in_gre(9, &erspan_1()),
        of(2).in_gre(9, &erspan_2(5)),
        of(3).in_gre(77, &erspan_3(6)),
        of(4).in_gre_over_ipv6(&erspan_2(7)),
        of(5).in_gre(9, &gre(0, BRIDGING, &[])),
        of(6).in_gre(77, &gre(0x2000, BRIDGING, &[4_000_000_000])),
        of(7).in_udp(77, 4789, &vxlan(8)),
        of(8).in_udp(9, 6082, &geneve(9)),
        of(10).without_ethernet(77, 6081, &geneve_of(IPV4)),
    ];
    let mut cut = of(9).in_gre(77, &erspan_3(6));
    let ip = Ip::new([192, 0, 2, 77], [192, 0, 2, 1]);
    cut = Ethernet::new(ALICE, mac_of_port(0)).wrap(IPV4, &ip.packet(GRE, &cut[34..cut.len() - 40]));
    let others = [
        of(20).in_gre(77, &erspan_2(5)),
        of(21).in_gre(9, &erspan_2(4)),
        of(22).in_gre_over_ipv6(&erspan_2(8)),
        of(23).in_gre(77, &gre(0, BRIDGING, &[])),
        of(24).in_gre(77, &gre(0x2000, BRIDGING, &[1])),
        of(25).in_udp(77, 4789, &vxlan(9)),
        of(26).in_udp(77, 6082, &geneve(9)),
    ];
    guest.send(0, accepted.iter().chain([&cut]).chain(&others))?;
    let text = table(guest, "t")?;
    ensure!(counted(&text) == (1..=10).collect::<Vec<_>>(), "{text}");
    assert_snapshot!("status", program(guest, "status")?);
    // The host sends nothing from the tunnels. On eth0 it refuses the other packets.
    let devices = ["type1", "type2", "type3", "six", "tap", "key", "aws", "gen"];
    for device in devices {
        let sent = guest.must(&format!("cat /sys/class/net/{device}/statistics/tx_packets"))?;
        ensure!(sent == "0\n", "{device} has sent {sent}");
    }
    program(guest, "stop")?;
    ensure!([interfaces(guest)?, rules(guest)?] == before, "{}", interfaces(guest)?);
});

guest_test!(tunnels_without_a_key_accept_all, |guest| {
    guest.must(ADDRESSES)?;
    let before = interfaces(guest)?;
    let lines = "tunnel switches erspan\ntunnel six ip6erspan\ntunnel tap gretap\ntunnel tap6 ip6gretap key any\n\
                 tunnel aws vxlan id any\ntunnel gen geneve\n";
    install(guest, &format!("{lines}{TABLE}"))?;
    program(guest, "start")?;
    guest.open_port(0)?;
    let of = |host| Mirrored { host };
    guest.send(
        0,
        [
            of(1).in_gre(9, &erspan_1()),
            of(2).in_gre(8, &erspan_2(5)),
            of(3).in_gre(9, &erspan_3(6)),
            of(4).in_gre_over_ipv6(&erspan_2(7)),
            of(5).in_gre_over_ipv6(&erspan_3(9)),
            of(6).in_gre(9, &gre(0, BRIDGING, &[])),
            of(7).in_gre(8, &gre(0x2000, BRIDGING, &[1])),
            of(8).in_gre_over_ipv6(&gre(0, BRIDGING, &[])),
            of(9).in_udp(9, 4789, &vxlan(8)),
            of(10).in_udp(8, 4789, &vxlan(9)),
            of(11).in_udp(9, 6081, &geneve(9)),
        ],
    )?;
    let text = table(guest, "t")?;
    ensure!(counted(&text) == (1..=11).collect::<Vec<_>>(), "{text}");
    program(guest, "stop")?;
    ensure!(interfaces(guest)? == before, "{}", interfaces(guest)?);
});

guest_test!(a_changed_tunnel_is_made_again, in_guest_briefly, |guest| {
    guest.must(ADDRESSES)?;
    install(guest, &format!("tunnel sw1 erspan key 5\n{TABLE}"))?;
    program(guest, "start")?;
    guest.open_port(0)?;
    let of = |host| Mirrored { host };
    guest.send(0, [of(1).in_gre(9, &erspan_2(5))])?;
    let index = guest.must("cat /sys/class/net/sw1/ifindex")?;
    program(guest, "reload")?;
    ensure!(guest.must("cat /sys/class/net/sw1/ifindex")? == index, "an unchanged tunnel was made again");
    configure(guest, &format!("tunnel sw1 erspan key 6\n{TABLE}"))?;
    program(guest, "reload")?;
    guest.send(0, [of(2).in_gre(9, &erspan_2(5)), of(3).in_gre(9, &erspan_2(6))])?;
    let text = table(guest, "t")?;
    ensure!(counted(&text) == [1, 3], "{text}");
    // A port of this name is no tunnel.
    configure(guest, &format!("port sw1\n{TABLE}"))?;
    let missing = program(guest, "reload")?;
    ensure!(missing.contains("port sw1 does not exist yet") && !interfaces(guest)?.contains("sw1"), "{missing}");
});

guest_test!(a_tunnel_waits_for_its_interface, in_guest_briefly, |guest| {
    install(guest, &format!("tunnel sw1 erspan key 5 dev late\n{TABLE}"))?;
    ensure!(program(guest, "ports")? == "late\n");
    let said = program(guest, "start")?;
    ensure!(said.starts_with("xt-traffic: port late does not exist yet"), "{said}");
    let status = guest.run("xt-traffic status")?;
    ensure!(
        status.status == 1 && status.stdout.starts_with("tunnel sw1              does not exist\n"),
        "{}",
        report(&status)
    );
    guest.must("ip link add late type veth peer name far && ip link set dev late up && ip link set dev far up")?;
    program(guest, "port late")?;
    program(guest, "status")?;
    program(guest, "stop")?;
    ensure!(!interfaces(guest)?.contains("sw1"), "{}", interfaces(guest)?);
});
