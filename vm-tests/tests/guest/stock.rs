// SPDX-License-Identifier: GPL-2.0-only
//! Debian's own tools work on the patched kernel.

use anyhow::ensure;
use insta::assert_snapshot;
use traffic_model::frames::{ALICE, Ethernet, IPV4, Ip};
use vm_harness::guest::mac_of_port;
use vm_harness::replay::Backend;
use vm_tests::{BACKENDS, PROMISC, frame, guest_test, hooks, iptables, iptables_both, open_and_send, without_comments};

const ORDINARY: [&str; 6] = [
    "-A INPUT -p tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT",
    "-A FORWARD -i eth0 -o eth1 -j DROP",
    "-P FORWARD DROP",
    "-t nat -A POSTROUTING -s 10.0.0.0/8 -o eth1 -j MASQUERADE",
    "-t mangle -A PREROUTING -j MARK --set-mark 1",
    "-t raw -A PREROUTING -p udp -j ACCEPT",
];

// Adds, saves and restores rules with a tool of Debian.
guest_test!(stock_iptables, |guest, backend| {
    let tool = format!("/usr/sbin/iptables-{backend}");
    for rule in ORDINARY {
        guest.must(&format!("{tool} {rule}"))?;
    }
    let saved = guest.must(&format!("{tool}-save"))?;
    guest.must(&format!("{tool}-save >/tmp/rules && {tool}-restore </tmp/rules"))?;
    let again = guest.must(&format!("{tool}-save"))?;
    ensure!(without_comments(&saved) == without_comments(&again), "{saved}{again}");
    assert_snapshot!(format!("stock_{backend}"), without_comments(&saved));
});

guest_test!(rules_of_stock_iptables_put_nothing_on_the_hook, |guest, backend| {
    for rule in ORDINARY.iter().chain(&["-L", "-F", "-P FORWARD ACCEPT"]) {
        guest.must(&format!("/usr/sbin/iptables-{backend} {rule}"))?;
        let functions = hooks(guest, "", "ip", PROMISC)?;
        ensure!(functions.is_empty(), "{backend}: after {rule} the hook has {functions:?}");
    }
});

guest_test!(stock_nft, |guest| {
    const RULES: &str = r#"
        table inet box {
            set hosts { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2 } }
            chain input { type filter hook input priority filter; policy drop; ip saddr @hosts counter accept; ct state established accept; }
            chain pre { type filter hook prerouting priority raw; }
            chain ingress { type filter hook ingress device "eth0" priority filter; counter; }
        }
        table ip nat {
            chain post { type nat hook postrouting priority srcnat; masquerade; }
        }
    "#;
    guest.write("/tmp/rules", RULES.as_bytes())?;
    guest.must("nft -f /tmp/rules")?;
    guest.must("ip addr add 10.0.0.9/24 dev lo")?;
    guest.open_port(0)?;
    let packet = Ip::new([10, 0, 0, 1], [10, 0, 0, 9]).udp((1, 2), &[7; 72]);
    guest.send(0, [Ethernet::new(ALICE, mac_of_port(0)).wrap(IPV4, &packet)])?;
    assert_snapshot!("stock_nft_ruleset", guest.must("nft list ruleset")?);
    // Connections are tracked.
    ensure!(guest.must("conntrack -L 2>/dev/null")?.contains("src=10.0.0.1 dst=10.0.0.9"));
});

guest_test!(stock_iptables_legacy_shows_the_chain_as_prerouting, |guest| {
    iptables(guest, Backend::Legacy, "-A PROMISC -m traffic --traffic --net 10.0.0.0/8 --name t")?;
    assert_snapshot!("stock_legacy_shows", guest.must("/usr/sbin/iptables-legacy -S")?);
    open_and_send(guest, 0, [frame(1)])?;
    let listed = guest.must("/usr/sbin/iptables-legacy -L PREROUTING -v -x -n")?;
    let counts = listed.lines().nth(2).unwrap_or("").split_whitespace().take(2);
    ensure!(counts.eq(["1", "100"]), "{listed}");
});

guest_test!(stock_tools_manage_other_chains_while_promisc_has_a_rule, |guest| {
    iptables_both(guest, "-A PROMISC -m traffic --traffic --net 10.0.0.0/8 --name {backend}")?;
    for backend in BACKENDS {
        let tool = format!("/usr/sbin/iptables-{backend}");
        guest.must(&format!("{tool} -A INPUT -s 10.0.0.1 -j DROP"))?;
        guest.must(&format!("{tool} -t nat -A POSTROUTING -j MASQUERADE"))?;
        guest.must(&format!("{tool} -D INPUT -s 10.0.0.1 -j DROP"))?;
        guest.must(&format!("{tool} -P FORWARD DROP"))?;
        let rule = format!("-A PROMISC -m traffic --traffic --net 10.0.0.0/8 --name {backend}\n");
        let promisc = iptables(guest, backend, "-S PROMISC")?;
        ensure!(promisc.ends_with(&rule), "{backend}: {promisc}");
    }
    guest.must("nft list ruleset && nft -j list ruleset")?;
});
