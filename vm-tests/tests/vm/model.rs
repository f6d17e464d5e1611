// SPDX-License-Identifier: GPL-2.0
//! The kernel against the model, on thousands of frames that nobody has thought of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use traffic_model::frames::{Generator, Mac};
use traffic_model::model::{File, Rule, same_table};
use vm_harness::guest::{Guest, mac_of_port};
use vm_harness::replay::Backend;

use crate::support::{BACKENDS, counters, counters6, expected, in_guest, iptables, table};

const FRAMES: usize = 4000;

/// UDP endpoints that are silent for 30 seconds have ended their conversation. The model knows nothing of the
/// guest's clock, so no test may take so long for its frames.
const PATIENCE: f64 = 25.0;

/// Rules with different files, networks and options. Each has a table of its own.
const RULES: [&str; 10] = [
    "iptables -A PROMISC -m traffic --traffic --ipconn --portconn --net 0.0.0.0/0 --name all",
    "iptables -A PROMISC -m traffic --ipconn --net 172.20.0.0/28 --name net",
    "iptables -A PROMISC -m traffic --portconn --ipconn --netbase 172.20.0.0 --netmask 255.255.255.240 --nointernal \
     --name skip",
    "iptables -A PROMISC -m traffic --traffic --portconn --net 172.20.0.0/27 ! --nointernal --name only",
    "iptables -A PROMISC -m traffic --portconn --net 128.0.0.0/1 --nointernal --name half",
    "ip6tables -A PROMISC -m traffic --traffic --ipconn --portconn --net ::/0 --name all6",
    "ip6tables -A PROMISC -m traffic --ipconn --net 2001:db8::/124 --name net6",
    "ip6tables -A PROMISC -m traffic --portconn --net 2001:db8::/124 --nointernal --name skip6",
    "ip6tables -A PROMISC -m traffic --traffic --ipconn --net 2001:db8::/123 ! --nointernal --name only6",
    "ip6tables -A PROMISC -m traffic --traffic --net 8000::/1 --nointernal --name half6",
];

/// Rules that need no memory of flows.
const BYTES: [&str; 5] = [
    "iptables -A PROMISC -m traffic --traffic --net 0.0.0.0/0 --name all",
    "iptables -A PROMISC -m traffic --traffic --net 172.20.0.0/28 --name net",
    "iptables -A PROMISC -m traffic --traffic --netbase 172.20.0.0 --netmask 255.255.255.240 --nointernal --name skip",
    "iptables -A PROMISC -m traffic --traffic --net 172.20.0.0/27 ! --nointernal --name only",
    "iptables -A PROMISC -m traffic --traffic --net 128.0.0.0/1 --nointernal --name half",
];

/// Who talks: neighbours at the edges of the rules' networks, and addresses with a meaning.
fn people() -> Vec<IpAddr> {
    let four = (0..40).map(|n| Ipv4Addr::new(172, 20, 0, n)).chain([Ipv4Addr::new(192, 0, 2, 1)]);
    let six = (0..40).map(|n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n));
    let odd = ["::1", "::ffff:172.20.0.1", "fe80::1", "ff02::1"].map(|address| address.parse().expect("an address"));
    four.map(IpAddr::from).chain(six.chain(odd).map(IpAddr::from)).collect()
}

fn generated(seed: u64, box_mac: Mac) -> Vec<Vec<u8>> {
    Generator::new(seed, box_mac, people()).take(FRAMES).collect()
}

fn parse(command: &str) -> Result<(String, Rule)> {
    Rule::parse(command)?.with_context(|| format!("no rule: {command}"))
}

/// The rules, with both back ends. The name of a table is unique over both families.
fn add(guest: &mut Guest, rules: &[&str]) -> Result<()> {
    for backend in BACKENDS {
        for rule in rules {
            iptables(guest, backend, &format!("{rule}-{backend}"))?;
        }
    }
    Ok(())
}

/// Every file of every rule against the model.
fn check(guest: &mut Guest, rules: &[&str], frames: &[Vec<u8>]) -> Result<()> {
    for rule in rules {
        let (name, rule) = parse(rule)?;
        let expected = expected(&rule, frames);
        for (file, backend) in File::ALL.iter().flat_map(|file| BACKENDS.map(|backend| (file, backend))) {
            let name = file.name(&format!("{name}-{backend}"));
            if rule.files().any(|has| has == *file) {
                same_table(&name, &table(guest, &name)?, &expected.text_of(*file))?;
            } else {
                ensure!(table(guest, &name).is_err(), "nobody has asked for {name}");
            }
        }
    }
    Ok(())
}

/// The packet and byte counters of the rules themselves, which tell how often each has matched.
fn check_matches(guest: &mut Guest, rules: &[&str], frames: &[Vec<u8>]) -> Result<()> {
    let (mut four, mut six) = (vec![], vec![]);
    for rule in rules {
        let expected = expected(&parse(rule)?.1, frames);
        let family = if rule.starts_with("ip6tables") { &mut six } else { &mut four };
        family.push((expected.packets, expected.bytes));
    }
    for backend in BACKENDS {
        check_counters(backend, &counters(guest, backend, "PROMISC")?, &four)?;
        check_counters(backend, &counters6(guest, backend, "PROMISC")?, &six)?;
    }
    Ok(())
}

fn check_counters(backend: Backend, got: &[(u64, u64)], want: &[(u64, u64)]) -> Result<()> {
    ensure!(got == want, "{backend}: the rules have matched\n{got:?}\nthe model says\n{want:?}");
    Ok(())
}

/// Does something that takes the guest's time, and sees to it that it is not too much.
fn in_time(guest: &mut Guest, action: impl FnOnce(&mut Guest) -> Result<()>) -> Result<()> {
    let start = uptime(guest)?;
    action(guest)?;
    let seconds = uptime(guest)? - start;
    ensure!(seconds < PATIENCE, "the frames took {seconds} s: flows may have fallen silent");
    Ok(())
}

fn uptime(guest: &mut Guest) -> Result<f64> {
    let text = guest.read_text("/proc/uptime")?;
    text.split(' ').next().context("no uptime")?.parse().context(text.clone())
}

/// All rules in one guest, both back ends; the frames of one seed.
fn compare(guest: &mut Guest, rules: &[&str], frames: &[Vec<u8>]) -> Result<()> {
    add(guest, rules)?;
    guest.open_port(0)?;
    in_time(guest, |guest| guest.send(0, frames))?;
    check(guest, rules, frames)
}

/// The frames that start a connection, and the others. When several CPUs handle the frames, those of one flow can
/// change places, and who was first decides. So whoever must be first is sent alone.
fn starts_first(frames: Vec<Vec<u8>>) -> [Vec<Vec<u8>>; 2] {
    let mut first = vec![false; frames.len()];
    for rule in [Rule::everything(), Rule::everything6()] {
        for number in expected(&rule.with(&[File::Ipconn]), &frames).started {
            first[number] = true;
        }
    }
    let (starts, rest): (Vec<_>, Vec<_>) = frames.into_iter().zip(first).partition(|(_, first)| *first);
    [starts, rest].map(|part| part.into_iter().map(|(frame, _)| frame).collect())
}

#[test]
fn generated_frames_with_gro() {
    in_guest(|guest| compare(guest, &RULES, &generated(1, mac_of_port(0))));
}

#[test]
fn generated_frames_without_gro() {
    in_guest(|guest| {
        guest.must("ethtool -K eth0 gro off")?;
        let frames = generated(2, mac_of_port(0));
        compare(guest, &RULES, &frames)?;
        check_matches(guest, &RULES, &frames)
    });
}

/// Rules that match everything, so that nothing but the hook is asked.
#[test]
fn generated_frames_at_the_hook() {
    in_guest(|guest| {
        guest.must("ethtool -K eth0 gro off")?;
        for (program, backend) in ["iptables", "ip6tables"].iter().flat_map(|program| BACKENDS.map(|b| (program, b))) {
            iptables(guest, backend, &format!("{program} -A PROMISC"))?;
        }
        guest.open_port(0)?;
        let frames = generated(6, mac_of_port(0));
        guest.send(0, &frames)?;
        let all = |rule: Rule| expected(&rule, &frames);
        let [four, six] = [Rule::everything(), Rule::everything6()].map(|rule| (all(rule).packets, all(rule).bytes));
        for backend in BACKENDS {
            check_counters(backend, &counters(guest, backend, "PROMISC")?, &[four])?;
            check_counters(backend, &counters6(guest, backend, "PROMISC")?, &[six])?;
        }
        Ok(())
    });
}

#[test]
fn generated_frames_for_bytes_alone() {
    in_guest(|guest| compare(guest, &BYTES, &generated(3, mac_of_port(0))));
}

#[test]
fn generated_frames_spread_over_cpus() {
    in_guest(|guest| {
        // Receive packet steering hands packets from the CPU that took them to another one's backlog.
        guest.must("echo 1000000 >/proc/sys/net/core/netdev_max_backlog")?;
        guest.must("echo 3 >/sys/class/net/eth0/queues/rx-0/rps_cpus")?;
        let parts = starts_first(generated(4, mac_of_port(0)));
        add(guest, &RULES)?;
        guest.open_port(0)?;
        in_time(guest, |guest| parts.iter().try_for_each(|part| guest.send(0, part)))?;
        check(guest, &RULES, &parts.concat())
    });
}

/// Sends every other frame to the other port, to both at once.
fn send_to_both(guest: &mut Guest, frames: &[Vec<u8>]) -> Result<()> {
    let senders = [0, 1].map(|n| guest.sender(n));
    std::thread::scope(|scope| {
        let threads = [0, 1].map(|n| {
            let (sender, frames) = (&senders[n], frames.iter().skip(n).step_by(2));
            scope.spawn(move || frames.map(Vec::as_slice).try_for_each(|frame| sender.send(frame)))
        });
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })?;
    (0..2).try_for_each(|n| guest.await_frames(n))
}

/// Each port has its own CPU, and the two directions of a flow, repeats, and answers come at either.
#[test]
fn flows_on_two_ports_and_two_cpus() {
    // It belongs to nobody, so that a frame is for others at both ports.
    let nobody = [0x02, 0, 0, 0, 0, 0x99];
    in_guest(|guest| {
        guest.must("echo 1000000 >/proc/sys/net/core/netdev_max_backlog")?;
        for n in 0..2 {
            guest.must(&format!("echo {} >/sys/class/net/eth{n}/queues/rx-0/rps_cpus", 1 << n))?;
        }
        let parts = starts_first(generated(5, nobody));
        add(guest, &RULES)?;
        (0..2).try_for_each(|n| guest.open_port(n))?;
        in_time(guest, |guest| parts.iter().try_for_each(|part| send_to_both(guest, part)))?;
        check(guest, &RULES, &parts.concat())
    });
}
