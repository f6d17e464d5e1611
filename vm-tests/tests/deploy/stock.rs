// SPDX-License-Identifier: GPL-2.0
//! Debian's own kernel under the patched iptables: everything works but PROMISC, which says why.

use anyhow::{Result, ensure};

use crate::scene::Scene;

/// What the patched iptables says on a kernel without the hook.
const MESSAGE: &str = "running kernel lacks the PROMISC hook";

/// Ordinary rules, for each of the tools.
const RULES: [&str; 5] = [
    "-A INPUT -p tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT",
    "-A FORWARD -i eth0 -o eth1 -j DROP",
    "-P FORWARD DROP",
    "-t nat -A POSTROUTING -o eth1 -j MASQUERADE",
    "-t mangle -A PREROUTING -j MARK --set-mark 1",
];

/// Boots it and tries.
pub fn run(scene: &mut Scene) -> Result<()> {
    let kernel = scene.stock_kernel.clone();
    let entry = format!("Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux {kernel}");
    scene.machine.must(&format!("grub-reboot '{entry}'"))?;
    scene.reboot()?;
    let booted = scene.machine.must("uname -r")?;
    ensure!(booted.trim() == kernel, "the machine has booted {booted}");
    service(scene)?;
    for tool in ["iptables", "ip6tables"] {
        for backend in ["nft", "legacy"] {
            ordinary(scene, &format!("{tool}-{backend}"))?;
            lacks_promisc(scene, &format!("{tool}-{backend}"))?;
        }
    }
    nft_and_conntrack(scene)
}

/// The service fails, says why, and nothing else does.
fn service(scene: &mut Scene) -> Result<()> {
    scene.await_running("degraded")?;
    let failed = scene.machine.must("systemctl --failed --plain --no-legend")?;
    ensure!(failed.lines().count() == 1 && failed.starts_with("xt-traffic.service "), "{failed}");
    let journal = scene.machine.must("journalctl --boot --unit=xt-traffic --output=cat")?;
    ensure!(journal.contains(MESSAGE), "the journal does not say why");
    Ok(())
}

/// Rules that have nothing to do with us: added, listed, saved, restored, flushed.
fn ordinary(scene: &mut Scene, tool: &str) -> Result<()> {
    for rule in RULES {
        scene.machine.must(&format!("{tool} {rule}"))?;
    }
    let listed = scene.machine.must(&format!("{tool} -S"))?;
    ensure!(!listed.contains("PROMISC"), "{listed}");
    let saved = scene.machine.quietly(&format!("{tool}-save | grep -v '^#'"))?;
    ensure!(saved.contains("--set-xmark") && saved.contains("MASQUERADE"), "{saved}");
    scene.machine.must(&format!("{tool}-save >/tmp/rules && {tool}-restore </tmp/rules"))?;
    let again = scene.machine.quietly(&format!("{tool}-save | grep -v '^#'"))?;
    ensure!(without_counters(&saved) == without_counters(&again), "saved:\n{saved}restored:\n{again}");
    for flush in ["-P FORWARD ACCEPT", "-F", "-t nat -F", "-t mangle -F"] {
        scene.machine.quietly(&format!("{tool} {flush}"))?;
    }
    Ok(())
}

fn without_counters(saved: &str) -> Vec<&str> {
    saved.lines().map(|line| line.split(" [").next().unwrap_or(line)).collect()
}

/// Each way of naming the chain fails with the message.
fn lacks_promisc(scene: &mut Scene, tool: &str) -> Result<()> {
    let network = if tool.starts_with("ip6") { "2001:db8::/32" } else { "192.0.2.0/24" };
    let counting = format!("-A PROMISC -m traffic --traffic --net {network} --name RSN");
    for rule in [counting.as_str(), "-A PROMISC -j ACCEPT", "-P PROMISC DROP", "-L PROMISC"] {
        let output = scene.machine.run(&format!("{tool} {rule}"))?;
        ensure!(output.status != 0 && output.text.contains(MESSAGE), "{tool} {rule}: {output:?}");
    }
    Ok(())
}

fn nft_and_conntrack(scene: &mut Scene) -> Result<()> {
    scene.machine.must("nft add table inet box")?;
    scene.machine.must("nft 'add chain inet box input { type filter hook input priority filter; policy accept; }'")?;
    scene.machine.must("nft add rule inet box input ct state new counter accept")?;
    // Something that is tracked: an echo to ourselves.
    scene.machine.must("ping -q -c 1 127.0.0.1")?;
    let tracked = scene.machine.must("conntrack -L")?;
    ensure!(tracked.contains("src=127.0.0.1 dst=127.0.0.1"), "{tracked}");
    let rules = scene.machine.must("nft list table inet box")?;
    ensure!(rules.contains("ct state new counter packets"), "{rules}");
    scene.machine.must("nft delete table inet box").map(drop)
}
