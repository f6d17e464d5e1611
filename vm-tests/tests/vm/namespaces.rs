// SPDX-License-Identifier: GPL-2.0
//! Network namespaces: each has its own hook and its own tables.

use anyhow::{Result, ensure};
use insta::assert_snapshot;
use traffic_model::frames::{Ipv4, mirrored};
use vm_harness::guest::Guest;
use vm_harness::replay::{Backend, TABLES};

use crate::support::{BACKENDS, in_guest, iptables, table};

fn frame(host: u8) -> Vec<u8> {
    mirrored(&Ipv4::new([10, 0, 0, host], [192, 0, 2, 1]).udp((1, 2), &[7; 72]))
}

fn in_namespace(guest: &mut Guest, backend: Backend, rule: &str) -> Result<String> {
    guest.must(&format!("ip netns exec other {}", backend.command(rule)))
}

#[test]
fn two_namespaces_do_not_see_each_other() {
    in_guest(|guest| {
        guest.must("ip netns add other")?;
        guest.move_port(1, "other")?;
        for backend in BACKENDS {
            let rule = |net: &str| format!("-A PROMISC -m traffic --traffic --net {net} --name {backend}");
            iptables(guest, backend, &rule("10.0.0.0/24"))?;
            // The same name with other parameters: another namespace is another world.
            in_namespace(guest, backend, &rule("0.0.0.0/0"))?;
        }
        for (port, hosts) in [(0, [1, 2]), (1, [3, 4])] {
            guest.open_port(port)?;
            guest.send(port, hosts.map(frame))?;
        }
        for backend in BACKENDS {
            let here = table(guest, &backend.to_string())?;
            let there = guest.must(&format!("ip netns exec other cat {TABLES}/{backend}"))?;
            assert_snapshot!("two_namespaces", format!("==> here\n{here}==> there\n{there}"));
        }
        // A namespace that goes takes its tables along, with their rules still in place.
        guest.must("ip netns delete other")?;
        ensure!(guest.must(&format!("ls {TABLES}"))? == "legacy\nnft\n");
        Ok(())
    });
}

#[test]
fn a_virtual_port_between_namespaces() {
    in_guest(|guest| {
        // What enters at eth0 leaves through a bridge and a veth pair, towards a port in another namespace.
        guest.must(
            "ip netns add other && ip link add up0 type veth peer name down0 netns other && \
             ip link add br0 type bridge && ip link set eth0 master br0 && ip link set up0 master br0 && \
             ip link set br0 up && ip link set up0 up && ip -n other link set down0 promisc on up",
        )?;
        in_namespace(guest, Backend::Nft, "-A PROMISC -m traffic --traffic --net 10.0.0.0/24 --name veth")?;
        guest.open_port(0)?;
        // A bridge forwards (state 3) only after it has heard that the links are up.
        guest.must("while cat /sys/class/net/br0/brif/*/state | grep -qv 3; do :; done")?;
        guest.send(0, (1..=3).map(frame))?;
        assert_snapshot!("veth", guest.must(&format!("ip netns exec other cat {TABLES}/veth"))?);
        Ok(())
    });
}
