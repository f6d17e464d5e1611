// SPDX-License-Identifier: GPL-2.0-only
//! The kernel drops mirrored frames with the same reason as without the hook, independent of the
//! rules.

use anyhow::{Result, ensure};
use traffic_model::frames::{Ip, mirrored};
use vm_harness::guest::Guest;
use vm_tests::{BACKENDS, guest_test, iptables, refused};

const TRACING: &str = "/sys/kernel/tracing";

/// Sends frames and returns the drop reason of each IPv4 packet.
fn reasons(guest: &mut Guest, frames: &[Vec<u8>]) -> Result<Vec<String>> {
    guest.must(&format!("echo >{TRACING}/trace"))?;
    guest.send(0, frames)?;
    let trace = guest.must(&format!("cat {TRACING}/trace"))?;
    let drops = trace.lines().filter(|line| line.contains("kfree_skb:") && line.contains("protocol=2048"));
    Ok(drops.filter_map(|line| Some(line.split_once("reason: ")?.1.trim().to_owned())).collect())
}

guest_test!(the_reason_is_always_the_same, |guest| {
    // Different sources, so that GRO does not merge them.
    let frames = [1, 2].map(|host| mirrored(&Ip::new([10, 0, 0, host], [10, 0, 0, 9]).udp((1, 2), b"x")));
    guest.must(&format!("mount -t tracefs tracefs {TRACING}"))?;
    guest.must(&format!("echo 1 >{TRACING}/events/skb/kfree_skb/enable"))?;
    guest.open_port(0)?;
    let otherhost = ["OTHERHOST", "OTHERHOST"];
    ensure!(reasons(guest, &frames)? == otherhost, "without rules");
    for backend in BACKENDS {
        for rule in
            ["-A PROMISC -m traffic --traffic --net 0.0.0.0/0 --name t", "-P PROMISC DROP", "-A PROMISC -j DROP"]
        {
            iptables(guest, backend, rule)?;
            ensure!(reasons(guest, &frames)? == otherhost, "{backend}: after {rule}");
        }
        // A queue cannot give a frame back.
        let output = guest.run(&backend.command("-I PROMISC -j NFQUEUE --queue-num 1"))?;
        ensure!(refused(backend, &output), "{backend}: NFQUEUE: {output:?}");
        ensure!(reasons(guest, &frames)? == otherhost, "{backend}: after a refused rule");
    }
});
