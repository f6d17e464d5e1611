// SPDX-License-Identifier: GPL-2.0-only
//! A frame from a program of the same machine, through a veth pair. When it arrives, it is a frame
//! from the network: it belongs to no socket.

use anyhow::{Result, bail, ensure};
use traffic_model::frames::{Ip, mirrored};
use vm_harness::guest::{Guest, INNER_PORT, Step};
use vm_harness::replay::Backend;
use vm_tests::{BACKENDS, counters, guest_test, iptables};

/// A program of iptables, nft's name of its family, our address, that of another host, and the
/// length of its prefix.
const FAMILIES: [(&str, &str, &str, &str, u8); 2] =
    [("iptables", "ip", "10.9.0.1", "10.9.0.2", 24), ("ip6tables", "ip6", "2001:db8:9::1", "2001:db8:9::2", 64)];

/// Opens the inner port. UDP datagrams to the other host arrive at it, for another MAC address.
fn open_inner_port(guest: &mut Guest) -> Result<()> {
    guest.open_inner_port()?;
    for (_, _, ours, other, length) in FAMILIES {
        guest.must(&format!("ip addr add {ours}/{length} dev feed0 nodad"))?;
        guest.must(&format!("ip neigh add {other} lladdr 02:02:02:02:02:02 dev feed0"))?;
    }
    Ok(())
}

fn send_datagram(guest: &mut Guest, other: &str) -> Result<()> {
    guest.must(&format!("bash -c 'echo datagram >/dev/udp/{other}/9'"))?;
    // Waits until the frame has arrived.
    guest.play(&[Step::Send(Vec::new())]).map(drop)
}

/// The line of the kernel log with a prefix.
fn logged(guest: &mut Guest, prefix: &str) -> Result<String> {
    let log = guest.kernel_log()?;
    let lines: Vec<_> = log.lines().filter(|line| line.contains(&format!(" {prefix}:IN="))).collect();
    let [line] = lines[..] else { bail!("the kernel log has {lines:?} for {prefix}") };
    Ok(line.to_owned())
}

guest_test!(a_mirrored_frame_has_no_user, |guest| {
    open_inner_port(guest)?;
    for (program, _, ours, other, _) in FAMILIES {
        for backend in BACKENDS {
            let name = format!("{program}-{backend}");
            let log = |prefix: &str| format!("-p udp -d {other} -j LOG --log-uid --log-prefix {prefix}-{name}:");
            iptables(guest, backend, &format!("{program} -A OUTPUT {}", log("sent")))?;
            iptables(guest, backend, &format!("{program} -A PROMISC -i {INNER_PORT} {}", log("mirrored")))?;
            send_datagram(guest, other)?;
            let (sent, arrived) =
                (logged(guest, &format!("sent-{name}"))?, logged(guest, &format!("mirrored-{name}"))?);
            ensure!(sent.contains(" UID=0 GID=0"), "LOG does not know the sender: {sent}");
            ensure!(!arrived.contains("UID="), "LOG knows a user of a mirrored frame: {arrived}");
            iptables(guest, backend, &format!("{program} -F"))?;
            // From a packet socket.
            iptables(guest, backend, &format!("{program} -A PROMISC -i {INNER_PORT} {}", log("packet")))?;
            guest.play(&[Step::Send(vec![mirrored(&Ip::between(ours, other).udp((1, 2), b"x"))])])?;
            let arrived = logged(guest, &format!("packet-{name}"))?;
            ensure!(!arrived.contains("UID="), "LOG knows a user of a mirrored frame: {arrived}");
            iptables(guest, backend, &format!("{program} -F"))?;
        }
    }
});

guest_test!(expressions_of_nft_find_no_socket_of_a_mirrored_frame, |guest| {
    open_inner_port(guest)?;
    for (program, family, _, other, _) in FAMILIES {
        iptables(guest, Backend::Nft, &format!("{program} -A OUTPUT -d {other}"))?;
        iptables(guest, Backend::Nft, &format!("{program} -A PROMISC -d {other}"))?;
        for chain in ["OUTPUT", "PROMISC"] {
            for expression in ["meta skuid 0", "meta skgid 0"] {
                let rule = format!("{family} filter {chain} {family} daddr {other} {expression} counter");
                guest.must(&format!("nft add rule {rule}"))?;
            }
        }
        send_datagram(guest, other)?;
        let text = guest.must(&format!("nft list chain {family} filter OUTPUT"))?;
        ensure!(text.matches("counter packets 1").count() == 3, "{text}");
        let text = guest.must(&format!("nft list chain {family} filter PROMISC"))?;
        ensure!(text.matches("counter packets 1").count() == 1, "{text}");
        ensure!(text.matches("counter packets 0").count() == 2, "{text}");
    }
});

// The frame of a sender in one namespace passes through PROMISC of another one.
guest_test!(a_frame_of_another_namespace_has_no_user, |guest| {
    guest.must("ip netns add other")?;
    open_inner_port(guest)?;
    guest.must(&format!("ip link set {INNER_PORT} netns other && ip -n other link set {INNER_PORT} promisc on up"))?;
    let (program, _, _, other, _) = FAMILIES[0];
    for backend in BACKENDS {
        let rule = format!("{program} -A PROMISC -d {other}");
        guest.must(&format!("ip netns exec other {}", backend.command(&rule)))?;
    }
    guest.must("until ip link show feed0 | grep -q LOWER_UP; do :; done")?;
    send_datagram(guest, other)?;
    for backend in BACKENDS {
        let text = guest.must(&format!("ip netns exec other /usr/local/sbin/{program}-{backend}-save -c"))?;
        ensure!(text.contains("[1:37] -A PROMISC"), "{text}");
    }
    ensure!(counters(guest, program, Backend::Nft, "PROMISC")?.is_empty());
});
