// SPDX-License-Identifier: GPL-2.0-only
//! Mirrored packets pass through PROMISC and are dropped. The host does not receive, forward or
//! track them.

use anyhow::{Result, ensure};
use traffic_model::frames::{ALICE, BOB, Ethernet, ICMP, IPV4, IPV6, Ip, Mac, SYN};
use vm_harness::command::COMMAND_TIMEOUT;
use vm_harness::guest::{Guest, mac_of_port};
use vm_harness::replay::Backend;
use vm_tests::{
    check_counters, counters, enable_forwarding, guest_test, iptables, iptables_both, open_and_send, otherhost_dropped,
    table,
};

/// The guest's address in these tests.
const GUEST: [u8; 4] = [10, 9, 0, 1];
const PEER: [u8; 4] = [10, 9, 0, 2];

/// A SYN to port 80 of the guest, and an echo reply that a raw socket receives.
fn packets_to_guest(mac: Mac) -> Vec<Vec<u8>> {
    let ip = Ip::new(PEER, GUEST);
    let reply = [0, 0, 0xff, 0xfe, 0, 1, 0, 0];
    let packets = [ip.tcp((5000, 80), 1, SYN, b""), ip.packet(ICMP, &reply)];
    packets.iter().map(|packet| Ethernet::new(ALICE, mac).wrap(IPV4, packet)).collect()
}

/// A rule that counts everything.
const COUNT: &str = "-A PROMISC -m traffic --traffic --net 0.0.0.0/0 --name {backend}";

/// The TCP sockets with their states, and the receive queues of the raw sockets.
fn sockets(guest: &mut Guest) -> Result<[String; 2]> {
    let tcp = guest.must("sed 1d /proc/net/tcp | awk '{ print $2, $3, $4 }'")?;
    Ok([tcp, guest.must("sed 1d /proc/net/raw | awk '{ print $5 }'")?])
}

guest_test!(local_sockets_do_not_receive_mirrored_packets, |guest| {
    guest.must("ip addr add 10.9.0.1/32 dev lo")?;
    guest.must("httpd -p 10.9.0.1:80 -h /tmp")?;
    // A stopped ping does not read its raw socket, so packets stay in the queue.
    let ping = guest.start("exec ping 10.9.0.1 >/dev/null")?;
    guest.must("until sed 1d /proc/net/raw | grep -q .; do :; done; killall -STOP ping")?;
    iptables_both(guest, COUNT)?;
    guest.open_port(0)?;
    // A route for replies, without which the kernel refuses the SYN.
    guest.must("ip route add 10.9.0.2 dev eth0")?;
    let idle = sockets(guest)?;
    guest.send(0, packets_to_guest(BOB))?;
    ensure!(sockets(guest)? == idle, "a local socket has received a mirrored packet");
    // The sockets receive the same packets in frames to the guest.
    guest.send(0, packets_to_guest(mac_of_port(0)))?;
    let busy = sockets(guest)?;
    ensure!(busy[0] != idle[0] && busy[1] != idle[1], "a socket has received nothing: {idle:?}, then {busy:?}");
    guest.must("killall -KILL ping httpd")?;
    guest.finish_command(ping, COMMAND_TIMEOUT)?;
});

guest_test!(mirrored_packets_are_not_forwarded, |guest| {
    let frame = |mac| Ethernet::new(ALICE, mac).wrap(IPV4, &Ip::new([10, 7, 0, 2], [10, 8, 0, 2]).udp((1, 2), b"on"));
    enable_forwarding(guest, "10.7.0.1/24")?;
    iptables_both(guest, COUNT)?;
    iptables_both(guest, "-A FORWARD")?;
    open_and_send(guest, 0, vec![frame(BOB); 10])?;
    check_counters(guest, "iptables", "FORWARD", &[(0, 0)])?;
    guest.send(0, [frame(mac_of_port(0))])?;
    check_counters(guest, "iptables", "FORWARD", &[(1, 30)])?;
    let forwarded = guest
        .sent_by_guest(1)
        .into_iter()
        .filter(|frame| frame.len() >= 34 && frame[12..14] == [8, 0] && frame[30..34] == [10, 8, 0, 2]);
    ensure!(forwarded.count() == 1, "port 1 did not send one packet");
});

/// The IP and ICMP counters of the guest.
fn mib(guest: &mut Guest) -> Result<String> {
    Ok(guest.read_text("/proc/net/snmp")? + &guest.read_text("/proc/net/netstat")?)
}

guest_test!(mirrored_packets_do_not_change_the_ip_counters, |guest| {
    let datagram = Ip::new(PEER, GUEST).udp((5000, 5000), b"hello");
    let mut frames = vec![Ethernet::new(ALICE, BOB).wrap(IPV4, &datagram)];
    // These headers would count as errors in packets to the guest.
    let good = frames[0].clone();
    for (at, value) in [(14, 0x65), (14, 0x44), (17, 0xff), (24, 0)] {
        let mut bad = good.clone();
        bad[at] = value;
        frames.push(bad);
    }
    frames.push(good[..30].to_vec());
    iptables_both(guest, COUNT)?;
    guest.open_port(0)?;
    let before = mib(guest)?;
    for _ in 0..100 {
        guest.send(0, &frames)?;
    }
    let after = mib(guest)?;
    ensure!(before == after, "before:\n{before}after:\n{after}");
    ensure!(counters(guest, "iptables", Backend::Nft, "PROMISC")?[0].0 == 100, "the rule did not see the packets");
});

guest_test!(the_drop_counter_is_the_same_as_without_the_hook, |guest| {
    guest.must("ethtool -K eth0 gro off")?;
    guest.open_port(0)?;
    let mut frames = packets_to_guest(BOB);
    frames.push(frames[0][..30].to_vec());
    let mut dropped = otherhost_dropped(guest, 0)?;
    let cases: [(&[&str], &str); 5] = [
        (&[], "without rules"),
        (&[COUNT], "rules that count"),
        (&["-P PROMISC DROP"], "policy DROP"),
        (&["-I PROMISC -j DROP"], "verdict DROP"),
        (&["-F PROMISC", "-P PROMISC ACCEPT"], "after deleting the rules"),
    ];
    for (changes, when) in cases {
        changes.iter().try_for_each(|rule| iptables_both(guest, rule))?;
        guest.send(0, &frames)?;
        let now = otherhost_dropped(guest, 0)?;
        ensure!(now - dropped == 3, "{when}");
        dropped = now;
    }
});

guest_test!(verdicts_decide_what_later_rules_see, |guest| {
    let rule = |name: &str| format!("-A PROMISC -m traffic --traffic --net 0.0.0.0/0 --name {name}");
    iptables(guest, Backend::Legacy, &rule("before"))?;
    iptables(guest, Backend::Legacy, "-A PROMISC -p tcp -j DROP")?;
    iptables(guest, Backend::Legacy, "-A PROMISC -p icmp -j ACCEPT")?;
    iptables(guest, Backend::Legacy, &rule("after"))?;
    iptables(guest, Backend::Legacy, "-P PROMISC DROP")?;
    open_and_send(guest, 0, packets_to_guest(BOB))?;
    let [before, after] = [table(guest, "before")?, table(guest, "after")?];
    ensure!(before.lines().count() == 3, "before the verdicts:\n{before}");
    ensure!(after.lines().count() == 1, "after the verdicts:\n{after}");
});

guest_test!(mirrored_packets_are_not_tracked, |guest| {
    let tracked = "cat /proc/net/nf_conntrack";
    guest.must("ip addr add 10.9.0.1/32 dev lo")?;
    iptables_both(guest, COUNT)?;
    // These rules enable connection tracking.
    iptables_both(guest, "-A INPUT -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT")?;
    open_and_send(guest, 0, packets_to_guest(BOB))?;
    let entries = guest.must(tracked)?;
    ensure!(!entries.contains("src=10.9.0.2"), "a mirrored packet was tracked:\n{entries}");
    guest.send(0, packets_to_guest(mac_of_port(0)))?;
    let entries = guest.must(tracked)?;
    ensure!(entries.contains("src=10.9.0.2"), "a packet to the guest was not tracked:\n{entries}");
});

/// The IPv6 receive counters. (The send counters change at any time, for example with multicast
/// reports.)
fn received_over_ipv6(guest: &mut Guest) -> Result<String> {
    guest.must("grep -E '^(Ip6In|Icmp6In|Udp6In|Ip6Forw|Ip6OutForw)' /proc/net/snmp6")
}

guest_test!(ipv6_packets_pass_the_hook_and_are_dropped, |guest| {
    let good = Ip::between("2001:db8::2", "2001:db8::1").udp((5000, 5000), b"hello");
    let frame = |mac, packet: &[u8]| Ethernet::new(ALICE, mac).wrap(IPV6, packet);
    let mut bad_version = good.clone();
    bad_version[0] = 0x40;
    let mut too_long = good.clone();
    too_long[5] += 1;
    let frames = [frame(BOB, &good), frame(BOB, &bad_version), frame(BOB, &too_long), frame(BOB, &good[..39])];
    guest.must("ip addr add 2001:db8::1/128 dev lo && echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")?;
    iptables_both(guest, "ip6tables -A PROMISC -s 2001:db8::/32")?;
    iptables_both(guest, "ip6tables -A INPUT -s 2001:db8::/32")?;
    guest.open_port(0)?;
    let (before, dropped) = (received_over_ipv6(guest)?, otherhost_dropped(guest, 0)?);
    guest.send(0, &frames)?;
    let after = received_over_ipv6(guest)?;
    ensure!(before == after, "before:\n{before}after:\n{after}");
    ensure!(otherhost_dropped(guest, 0)? == dropped + 4, "the drop counter");
    guest.send(0, [frame(mac_of_port(0), &good)])?;
    check_counters(guest, "ip6tables", "PROMISC", &[(1, 53)])?;
    check_counters(guest, "ip6tables", "INPUT", &[(1, 53)])?;
});
