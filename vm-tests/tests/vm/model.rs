// SPDX-License-Identifier: GPL-2.0
//! The kernel against the model, on thousands of frames that nobody has thought of.

use std::net::Ipv4Addr;

use anyhow::Result;
use vm_tests::frames::Generator;
use vm_tests::guest::{Guest, mac_of_port};
use vm_tests::model::{Internal, Rule};

use crate::support::{BACKENDS, expected, in_guest, iptables, same_table, table};

const FRAMES: usize = 6000;

/// Rules with different networks and options, each with a name.
fn rules() -> Vec<(&'static str, &'static str, Rule)> {
    let base = Ipv4Addr::new(172, 20, 0, 0);
    vec![
        ("all", "--net 0.0.0.0/0", Rule::everything()),
        ("net", "--net 172.20.0.0/28", Rule::new(base, 28, Internal::Count)),
        ("skip", "--netbase 172.20.0.0 --netmask 255.255.255.240 --nointernal", Rule::new(base, 28, Internal::Skip)),
        ("only", "--net 172.20.0.0/27 ! --nointernal", Rule::new(base, 27, Internal::Only)),
        ("half", "--net 128.0.0.0/1 --nointernal", Rule::new(Ipv4Addr::new(128, 0, 0, 0), 1, Internal::Skip)),
    ]
}

/// All rules in one guest, both back ends; the frames of one seed.
fn compare(guest: &mut Guest, seed: u64) -> Result<()> {
    let addresses = (0..40).map(|n| Ipv4Addr::new(172, 20, 0, n)).chain([Ipv4Addr::new(192, 0, 2, 1)]).collect();
    let frames: Vec<_> = Generator::new(seed, mac_of_port(0), addresses).take(FRAMES).collect();
    for backend in BACKENDS {
        for (name, options, _) in rules() {
            iptables(guest, backend, &format!("-A PROMISC -m traffic --traffic {options} --name {name}-{backend}"))?;
        }
    }
    guest.open_port(0)?;
    guest.send(0, &frames)?;
    for backend in BACKENDS {
        for (name, _, rule) in rules() {
            let name = format!("{name}-{backend}");
            same_table(&name, &table(guest, &name)?, &expected(&rule, &frames).text())?;
        }
    }
    Ok(())
}

#[test]
fn generated_frames_with_gro() {
    in_guest(|guest| compare(guest, 1));
}

#[test]
fn generated_frames_without_gro() {
    in_guest(|guest| {
        guest.must("ethtool -K eth0 gro off")?;
        compare(guest, 2)
    });
}

#[test]
fn generated_frames_spread_over_cpus() {
    in_guest(|guest| {
        // Receive packet steering hands packets from the CPU that took them to another one's backlog.
        guest.must("echo 1000000 >/proc/sys/net/core/netdev_max_backlog")?;
        guest.must("echo 3 >/sys/class/net/eth0/queues/rx-0/rps_cpus")?;
        compare(guest, 3)
    });
}
