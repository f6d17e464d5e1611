// SPDX-License-Identifier: GPL-2.0-only
//! Each network namespace has its own hook and its own tables.

use anyhow::{Result, ensure};
use insta::assert_snapshot;
use vm_harness::guest::Guest;
use vm_harness::replay::{Backend, TABLES};
use vm_tests::{BACKENDS, frame, guest_test, iptables, open_and_send, table, table_files};

fn in_namespace(guest: &mut Guest, backend: Backend, rule: &str) -> Result<String> {
    guest.must(&format!("ip netns exec other {}", backend.command(rule)))
}

guest_test!(tables_of_two_namespaces_are_independent, |guest| {
    guest.must("ip netns add other")?;
    guest.move_port(1, "other")?;
    for backend in BACKENDS {
        let rule = |net: &str| format!("-A PROMISC -m traffic --traffic --net {net} --name {backend}");
        iptables(guest, backend, &rule("10.0.0.0/24"))?;
        // The same name with other parameters is allowed in another namespace.
        in_namespace(guest, backend, &rule("0.0.0.0/0"))?;
    }
    for (port, hosts) in [(0, [1, 2]), (1, [3, 4])] {
        open_and_send(guest, port, hosts.map(frame))?;
    }
    for backend in BACKENDS {
        let here = table(guest, &backend.to_string())?;
        let there = guest.must(&format!("ip netns exec other cat {TABLES}/{backend}"))?;
        assert_snapshot!("two_namespaces", format!("==> here\n{here}==> there\n{there}"));
    }
    // Deleting a namespace with rules deletes its tables.
    guest.must("ip netns delete other")?;
    ensure!(table_files(guest)? == "legacy\nnft\n");
});

guest_test!(frames_through_a_bridge_to_a_veth_in_a_namespace, |guest| {
    // From eth0 through a bridge and a veth pair to a port in another namespace.
    guest.must(
        "ip netns add other && ip link add up0 type veth peer name down0 netns other && \
         ip link add br0 type bridge && ip link set eth0 master br0 && ip link set up0 master br0 && \
         ip link set br0 up && ip link set up0 up && ip -n other link set down0 promisc on up",
    )?;
    in_namespace(guest, Backend::Nft, "-A PROMISC -m traffic --traffic --net 10.0.0.0/24 --name veth")?;
    guest.open_port(0)?;
    // Wait until both bridge ports forward (state 3).
    guest.must("while cat /sys/class/net/br0/brif/*/state | grep -qv 3; do :; done")?;
    guest.send(0, (1..=3).map(frame))?;
    assert_snapshot!("veth", guest.must(&format!("ip netns exec other cat {TABLES}/veth"))?);
});
