// SPDX-License-Identifier: GPL-2.0-only
//! Compares the kernel with the model on thousands of generated frames.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use traffic_model::frames::{Generator, Mac};
use traffic_model::model::{File, Rule, same_table};
use vm_harness::guest::{Guest, mac_of_port};
use vm_tests::{BACKENDS, check_counters, expected, guest_test, iptables, iptables_both, send_to_both, table};

const FRAMES: usize = 4000;

/// The longest time in which the frames may arrive, in seconds. An idle UDP flow ends after 30
/// seconds, and the model does not know the guest's clock.
const TIME_LIMIT: f64 = 25.0;

/// Rules with different files, networks and options.
const RULES: [&str; 15] = [
    "iptables -A PROMISC -m traffic --traffic --ipconn --portconn --net 0.0.0.0/0 --name all",
    "iptables -A PROMISC -m traffic --ipconn --net 172.20.0.0/28 --name net",
    "iptables -A PROMISC -m traffic --portconn --ipconn --netbase 172.20.0.0 --netmask 255.255.255.240 --nointernal \
     --name skip",
    "iptables -A PROMISC -m traffic --traffic --portconn --net 172.20.0.0/27 ! --nointernal --name only",
    "iptables -A PROMISC -m traffic --portconn --net 128.0.0.0/1 --nointernal --name half",
    "iptables -A PROMISC -m traffic --traffic --ipconn --portconn --net 172.20.0.0/26 --prefix 30 --name prefix",
    "iptables -A PROMISC -m traffic --ipconn --traffic --net 0.0.0.0/0 --prefix 24 --nointernal --clearonread \
     --name prefix-skip",
    "ip6tables -A PROMISC -m traffic --traffic --ipconn --portconn --net ::/0 --name all6",
    "ip6tables -A PROMISC -m traffic --traffic --ipconn --portconn --net 2001:db8::/32 --prefix 126 --hashsize 2 \
     --name prefix6",
    "ip6tables -A PROMISC -m traffic --traffic --ipconn --net ::/0 --prefix 64 ! --nointernal --name prefix6-only",
    "ip6tables -A PROMISC -m traffic --ipconn --net ::/0 --prefix 0 --name prefix6-one",
    "ip6tables -A PROMISC -m traffic --ipconn --net 2001:db8::/124 --name net6",
    "ip6tables -A PROMISC -m traffic --portconn --net 2001:db8::/124 --nointernal --name skip6",
    "ip6tables -A PROMISC -m traffic --traffic --ipconn --net 2001:db8::/123 ! --nointernal --name only6",
    "ip6tables -A PROMISC -m traffic --traffic --net 8000::/1 --nointernal --name half6",
];

/// Rules that do not count connections.
const BYTES: [&str; 7] = [
    "iptables -A PROMISC -m traffic --traffic --net 0.0.0.0/0 --name all",
    "iptables -A PROMISC -m traffic --traffic --net 172.20.0.0/28 --name net",
    "iptables -A PROMISC -m traffic --traffic --netbase 172.20.0.0 --netmask 255.255.255.240 --nointernal --name skip",
    "iptables -A PROMISC -m traffic --traffic --net 172.20.0.0/27 ! --nointernal --name only",
    "iptables -A PROMISC -m traffic --traffic --net 128.0.0.0/1 --nointernal --name half",
    "iptables -A PROMISC -m traffic --traffic --net 172.20.0.0/26 --prefix 28 --name prefix",
    "ip6tables -A PROMISC -m traffic --traffic --net 2001:db8::/32 --prefix 125 --nointernal --name prefix6",
];

/// Addresses inside and outside the rules' networks, and special addresses.
fn addresses() -> Vec<IpAddr> {
    let ipv4 = (0..40).map(|n| Ipv4Addr::new(172, 20, 0, n)).chain([Ipv4Addr::new(192, 0, 2, 1)]);
    let ipv6 = (0..40).map(|n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n));
    let special =
        ["::1", "::ffff:172.20.0.1", "fe80::1", "ff02::1"].map(|address| address.parse().expect("an address"));
    ipv4.map(IpAddr::from).chain(ipv6.chain(special).map(IpAddr::from)).collect()
}

fn generated(seed: u64, port_mac: Mac) -> Vec<Vec<u8>> {
    Generator::new(seed, port_mac, addresses()).take(FRAMES).collect()
}

fn parse(command: &str) -> Result<(String, Rule)> {
    Rule::parse(command)?.with_context(|| format!("not a rule: {command}"))
}

/// Adds the rules with both back ends, each with its own tables.
fn add(guest: &mut Guest, rules: &[&str]) -> Result<()> {
    rules.iter().try_for_each(|rule| iptables_both(guest, &format!("{rule}-{{backend}}")))
}

/// Compares all files of all rules with the model.
fn check(guest: &mut Guest, rules: &[&str], frames: &[Vec<u8>]) -> Result<()> {
    for rule in rules {
        let (name, rule) = parse(rule)?;
        let expected = expected(&rule, frames);
        for (file, backend) in File::ALL.iter().flat_map(|file| BACKENDS.map(|backend| (file, backend))) {
            let name = file.name(&format!("{name}-{backend}"));
            if rule.files().any(|has| has == *file) {
                same_table(&name, &table(guest, &name)?, &expected.text_of(*file))?;
            } else {
                ensure!(table(guest, &name).is_err(), "{name} exists without its option");
            }
        }
    }
    Ok(())
}

/// Compares the packet and byte counters of the rules with the model.
fn check_matches(guest: &mut Guest, rules: &[&str], frames: &[Vec<u8>]) -> Result<()> {
    let (mut ipv4, mut ipv6) = (vec![], vec![]);
    for rule in rules {
        let expected = expected(&parse(rule)?.1, frames);
        let family = if rule.starts_with("ip6tables") { &mut ipv6 } else { &mut ipv4 };
        family.push((expected.packets, expected.bytes));
    }
    check_counters(guest, "iptables", "PROMISC", &ipv4)?;
    check_counters(guest, "ip6tables", "PROMISC", &ipv6)
}

/// Checks that an action stays within the time limit by the guest's clock.
fn in_time(guest: &mut Guest, action: impl FnOnce(&mut Guest) -> Result<()>) -> Result<()> {
    let start = uptime(guest)?;
    action(guest)?;
    let seconds = uptime(guest)? - start;
    ensure!(seconds < TIME_LIMIT, "the frames took {seconds} s: flows may have timed out");
    Ok(())
}

fn uptime(guest: &mut Guest) -> Result<f64> {
    let text = guest.read_text("/proc/uptime")?;
    text.split(' ').next().context("no uptime")?.parse().context(text.clone())
}

/// Sends frames and compares all tables with the model.
fn compare(guest: &mut Guest, rules: &[&str], frames: &[Vec<u8>]) -> Result<()> {
    add(guest, rules)?;
    guest.open_port(0)?;
    in_time(guest, |guest| guest.send(0, frames))?;
    check(guest, rules, frames)
}

/// Splits frames into those that start a connection and the others. When several CPUs process the
/// frames of a flow, their order can change, and the first one decides. So the first ones are sent
/// before the others.
fn starts_first(frames: Vec<Vec<u8>>) -> [Vec<Vec<u8>>; 2] {
    let mut first = vec![false; frames.len()];
    for rule in [Rule::ALL_IPV4, Rule::ALL_IPV6] {
        for number in expected(&rule.with(&[File::Ipconn]), &frames).started {
            first[number] = true;
        }
    }
    let (starts, rest): (Vec<_>, Vec<_>) = frames.into_iter().zip(first).partition(|(_, first)| *first);
    [starts, rest].map(|part| part.into_iter().map(|(frame, _)| frame).collect())
}

guest_test!(generated_frames_with_gro, |guest| {
    compare(guest, &RULES, &generated(1, mac_of_port(0)))?;
});

guest_test!(generated_frames_without_gro, |guest| {
    guest.must("ethtool -K eth0 gro off")?;
    let frames = generated(2, mac_of_port(0));
    compare(guest, &RULES, &frames)?;
    check_matches(guest, &RULES, &frames)?;
});

// The rules match all packets, so this tests the hook alone.
guest_test!(generated_frames_at_the_hook, |guest| {
    guest.must("ethtool -K eth0 gro off")?;
    for (program, backend) in ["iptables", "ip6tables"].iter().flat_map(|program| BACKENDS.map(|b| (program, b))) {
        iptables(guest, backend, &format!("{program} -A PROMISC"))?;
    }
    guest.open_port(0)?;
    let frames = generated(6, mac_of_port(0));
    guest.send(0, &frames)?;
    for (program, rule) in [("iptables", Rule::ALL_IPV4), ("ip6tables", Rule::ALL_IPV6)] {
        let expected = expected(&rule, &frames);
        check_counters(guest, program, "PROMISC", &[(expected.packets, expected.bytes)])?;
    }
});

guest_test!(generated_frames_with_rules_for_bytes_alone, |guest| {
    compare(guest, &BYTES, &generated(3, mac_of_port(0)))?;
});

guest_test!(generated_frames_spread_over_cpus, |guest| {
    // Receive packet steering distributes the packets to the backlogs of both CPUs.
    guest.extend_backlogs()?;
    guest.must("echo 3 >/sys/class/net/eth0/queues/rx-0/rps_cpus")?;
    let parts = starts_first(generated(4, mac_of_port(0)));
    add(guest, &RULES)?;
    guest.open_port(0)?;
    in_time(guest, |guest| parts.iter().try_for_each(|part| guest.send(0, part)))?;
    check(guest, &RULES, &parts.concat())?;
});

// Each port has its own CPU. Packets of one flow arrive at both ports.
guest_test!(flows_on_two_ports_and_two_cpus, |guest| {
    // Not the address of either port, so that all frames are for other hosts.
    let unused = [0x02, 0, 0, 0, 0, 0x99];
    guest.steer_ports_to_cpus()?;
    let parts = starts_first(generated(5, unused));
    add(guest, &RULES)?;
    (0..2).try_for_each(|n| guest.open_port(n))?;
    in_time(guest, |guest| {
        parts.iter().try_for_each(|part| send_to_both(guest, [0, 1].map(|n| part.iter().skip(n).step_by(2))))
    })?;
    check(guest, &RULES, &parts.concat())?;
});
