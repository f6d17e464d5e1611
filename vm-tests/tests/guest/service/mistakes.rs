// SPDX-License-Identifier: GPL-2.0-only
//! Mistakes in the configuration.

use anyhow::ensure;
use insta::assert_snapshot;
use vm_tests::guest_test;

use super::{configure, install, interfaces, port, report, rules};

/// The lines before an invalid line.
const GOOD: &str = "port eth0\ntunnel sw1 erspan\ntunnel aws vxlan id 7\ntable t 10.0.0.0/8 --traffic\n";

/// Invalid lines.
const MISTAKES: &[&str] = &[
    "prot eth0",
    "port",
    "port -i",
    "port all",
    "port eth/0",
    "port eth0 # again",
    "port an-interface-name",
    "port eth1 mtu",
    "port eth1 mtu 9k",
    "port eth1 fast",
    "port eth1 as",
    "port eth1 as eth0",
    "port m-eth0",
    "tunnel",
    "tunnel t1",
    "tunnel t1 gre",
    "tunnel fourteen-chars vxlan id 3",
    "tunnel eth0 gretap",
    "tunnel t1 erspan key",
    "tunnel t1 erspan key 1024",
    "tunnel t1 erspan local 2001:db8::1 key 1",
    "tunnel t1 erspan local 192.0.2 key 1",
    "tunnel t1 erspan local 192.0.2.256 key 1",
    "tunnel t1 erspan local 192.0.2.1",
    "tunnel t1 erspan version 1",
    "tunnel t1 erspan version 3",
    "tunnel t1 erspan version 0",
    "tunnel t1 erspan version 0 dev eth0",
    "tunnel t1 erspan version 0 local 192.0.2.1 key 1",
    "tunnel t1 erspan dstport 4789",
    "tunnel t1 ip6erspan version 0 local 2001:db8::1",
    "tunnel t1 ip6erspan local 192.0.2.1 key 1",
    "tunnel t1 gretap dev eth0",
    "tunnel t1 gretap key 4294967296",
    "tunnel t1 gretap key any remote 192.0.2.2",
    "tunnel t1 gretap key 1 dev eth0",
    "tunnel t1 gretap version 1",
    "tunnel t1 vxlan id 16777216",
    "tunnel t1 vxlan id any local 192.0.2.1",
    "tunnel t1 vxlan id 1 local 192.0.2.1 remote 2001:db8::1",
    "tunnel t1 vxlan id 1 dstport 0",
    "tunnel t1 vxlan id 1 dev",
    "tunnel t1 geneve id 1",
    "tunnel t1 geneve remote 192.0.2.1",
    "tunnel t1 geneve local 192.0.2.1",
    "tunnel t1 vxlan mtu 9k",
    "tunnel any1 vxlan",
    "tunnel any2 erspan",
    "table",
    "table a.b 10.0.0.0/8 --traffic",
    "table t 10.0.0.0/8 --traffic",
    "table new --traffic",
    "table new 10.0.0.0 --traffic",
    "table new 10.0.0.0/8",
    "table new 10.0.0.0/8 --trafic",
    "table new 10.0.0.0/8 --traffic --name other",
    "table new 10.0.0.0/8 --traffic --hashsize 0",
    "table new 10.0.0.0/8 --traffic --prefix 33",
    "table new 2001:db8::/32 --traffic --prefix 129",
    "table new 10.0.0.0/8 --traffic --prefix 7",
    "table new 10.0.0.0/8 ! --traffic",
    "table new 10.0.0.1/8 --traffic",
    "chains PROMISC OUTPUT",
];

guest_test!(mistakes_are_reported_with_their_line, in_guest_briefly, |guest| {
    install(guest, "")?;
    let before = [rules(guest)?, port(guest, "eth0")?, interfaces(guest)?];
    let mut messages = String::new();
    for mistake in MISTAKES {
        configure(guest, &format!("{GOOD}{mistake}\n"))?;
        let output = guest.run("xt-traffic start")?;
        ensure!(output.status == 2 && output.stdout.is_empty(), "{mistake}: {}", report(&output));
        ensure!(output.stderr.lines().count() == 1, "{mistake}: {}", output.stderr);
        messages += &format!("{mistake}\n    {}", output.stderr);
    }
    for half in ["port eth0", "table t 10.0.0.0/8 --traffic"] {
        configure(guest, half)?;
        messages += &format!("{half}\n    {}", guest.run("xt-traffic start")?.stderr);
    }
    assert_snapshot!("mistakes", messages);
    let after = [rules(guest)?, port(guest, "eth0")?, interfaces(guest)?];
    ensure!(after == before, "{}", after.join("\n"));
});

guest_test!(a_port_with_a_long_name_goes_on_working, in_guest_briefly, |guest| {
    guest.must("ip link add enx001122334455 type veth peer name far")?;
    install(guest, "port enx001122334455\ntable t 10.0.0.0/8 --traffic\n")?;
    let check = guest.run("xt-traffic check")?;
    let started = guest.run("xt-traffic start")?;
    assert_snapshot!("long_name", report(&check) + &report(&started));
    ensure!(port(guest, "enx001122334455")?.contains("PROMISC,UP"), "the port is not promiscuous");
    ensure!(rules(guest)?.contains("-i enx001122334455 "), "{}", rules(guest)?);
    configure(guest, "port enx001122334455 as lan\ntable t 10.0.0.0/8 --traffic\n")?;
    guest.must("xt-traffic check && xt-traffic reload")?;
    ensure!(interfaces(guest)?.contains("lan\n") && rules(guest)?.contains("-i lan "), "{}", rules(guest)?);
    guest.must("xt-traffic stop")?;
    ensure!(!interfaces(guest)?.contains("lan\n"));
});
