// SPDX-License-Identifier: GPL-2.0
//! A mirrored frame is dropped for the same reason as on any kernel, whatever the rules say.

use anyhow::{Result, ensure};
use traffic_model::frames::{Ipv4, mirrored};
use vm_harness::guest::Guest;

use crate::support::{BACKENDS, in_guest, iptables};

const TRACING: &str = "/sys/kernel/tracing";

/// The reasons for which IPv4 packets were dropped while `frames` were handled, one for each.
fn reasons(guest: &mut Guest, frames: &[Vec<u8>]) -> Result<Vec<String>> {
    guest.must(&format!("echo >{TRACING}/trace"))?;
    guest.send(0, frames)?;
    let trace = guest.must(&format!("cat {TRACING}/trace"))?;
    let drops = trace.lines().filter(|line| line.contains("kfree_skb:") && line.contains("protocol=2048"));
    Ok(drops.filter_map(|line| Some(line.split_once("reason: ")?.1.trim().to_owned())).collect())
}

#[test]
fn the_reason_is_always_the_same() {
    // GRO must not make one of two.
    let frames = [1, 2].map(|host| mirrored(&Ipv4::new([10, 0, 0, host], [10, 0, 0, 9]).udp((1, 2), b"x")));
    in_guest(|guest| {
        guest.must(&format!("mount -t tracefs tracefs {TRACING}"))?;
        guest.must(&format!("echo 1 >{TRACING}/events/skb/kfree_skb/enable"))?;
        guest.open_port(0)?;
        let otherhost = ["OTHERHOST", "OTHERHOST"];
        ensure!(reasons(guest, &frames)? == otherhost, "nothing is hooked");
        for backend in BACKENDS {
            iptables(guest, backend, "-A PROMISC -m traffic --traffic --net 0.0.0.0/0 --name t")?;
            ensure!(reasons(guest, &frames)? == otherhost, "{backend}: a rule counts");
            iptables(guest, backend, "-P PROMISC DROP")?;
            ensure!(reasons(guest, &frames)? == otherhost, "{backend}: policy DROP");
            iptables(guest, backend, "-A PROMISC -j DROP")?;
            ensure!(reasons(guest, &frames)? == otherhost, "{backend}: verdict DROP");
            iptables(guest, backend, "-I PROMISC -j NFQUEUE --queue-num 1")?;
            ensure!(reasons(guest, &frames)? == otherhost, "{backend}: verdict QUEUE");
        }
        Ok(())
    });
}
