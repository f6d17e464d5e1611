// SPDX-License-Identifier: GPL-2.0-only
//! Debian's kernel with the patched iptables: all works except PROMISC, which fails with a message.

use anyhow::{Result, ensure};

use crate::deploy_test::DeployTest;

/// The message of the patched iptables on a kernel without the hook.
const MESSAGE: &str = "running kernel lacks the PROMISC hook";

/// Rules without PROMISC.
const RULES: [&str; 5] = [
    "-A INPUT -p tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT",
    "-A FORWARD -i eth0 -o eth1 -j DROP",
    "-P FORWARD DROP",
    "-t nat -A POSTROUTING -o eth1 -j MASQUERADE",
    "-t mangle -A PREROUTING -j MARK --set-mark 1",
];

/// The tools whose chain PROMISC is empty on the kernel with the hook: the service uses the others.
const UNUSED: [&str; 2] = ["iptables-legacy", "ip6tables-legacy"];

/// Boots Debian's kernel and runs the tools.
pub fn run(test: &mut DeployTest) -> Result<()> {
    for tool in UNUSED {
        test.vm.must(&format!("{tool} -A INPUT -p tcp --dport 22 -j ACCEPT"))?;
        test.vm.must(&format!("{tool}-save >/root/{tool}.rules"))?;
    }
    let kernel = test.stock_kernel.clone();
    test.reboot_once(&kernel)?;
    service(test)?;
    for tool in ["iptables", "ip6tables"] {
        for backend in ["nft", "legacy"] {
            ordinary(test, &format!("{tool}-{backend}"))?;
            lacks_promisc(test, &format!("{tool}-{backend}"))?;
        }
    }
    for tool in UNUSED {
        saved_on_the_kernel_with_the_hook(test, tool)?;
    }
    nft_and_conntrack(test)
}

/// Only our service fails, with the message.
fn service(test: &mut DeployTest) -> Result<()> {
    test.await_running("degraded")?;
    let failed = test.vm.must("systemctl --failed --plain --no-legend")?;
    ensure!(failed.lines().count() == 1 && failed.starts_with("xt-traffic.service "), "{failed}");
    let journal = test.vm.must("journalctl --boot --unit=xt-traffic --output=cat")?;
    ensure!(journal.contains(MESSAGE), "the journal does not have the message");
    Ok(())
}

/// Restores rules that were saved on the kernel with the hook and do not use it.
fn saved_on_the_kernel_with_the_hook(test: &mut DeployTest, tool: &str) -> Result<()> {
    test.vm.must(&format!("{tool}-restore </root/{tool}.rules && rm /root/{tool}.rules"))?;
    let listed = test.vm.must(&format!("{tool} -S INPUT"))?;
    ensure!(listed.contains("--dport 22 -j ACCEPT"), "{listed}");
    test.vm.must(&format!("{tool} -F")).map(drop)
}

/// Adds, lists, saves, restores and flushes rules without PROMISC.
fn ordinary(test: &mut DeployTest, tool: &str) -> Result<()> {
    for rule in RULES {
        test.vm.must(&format!("{tool} {rule}"))?;
    }
    let listed = test.vm.must(&format!("{tool} -S"))?;
    ensure!(!listed.contains("PROMISC"), "{listed}");
    let saved = test.vm.quietly(&format!("{tool}-save | grep -v '^#'"))?;
    ensure!(saved.contains("--set-xmark") && saved.contains("MASQUERADE"), "{saved}");
    test.vm.must(&format!("{tool}-save >/tmp/rules && {tool}-restore </tmp/rules"))?;
    let again = test.vm.quietly(&format!("{tool}-save | grep -v '^#'"))?;
    ensure!(without_counters(&saved) == without_counters(&again), "saved:\n{saved}restored:\n{again}");
    for flush in ["-P FORWARD ACCEPT", "-F", "-t nat -F", "-t mangle -F"] {
        test.vm.quietly(&format!("{tool} {flush}"))?;
    }
    Ok(())
}

/// The saved rules without the counters of the policies.
fn without_counters(saved: &str) -> Vec<&str> {
    saved.lines().map(|line| line.split(" [").next().unwrap_or(line)).collect()
}

/// Each command with the chain fails with the message.
fn lacks_promisc(test: &mut DeployTest, tool: &str) -> Result<()> {
    let network = if tool.starts_with("ip6") { "2001:db8::/32" } else { "192.0.2.0/24" };
    let counting = format!("-A PROMISC -m traffic --traffic --net {network} --name RSN");
    for rule in [counting.as_str(), "-A PROMISC -j ACCEPT", "-P PROMISC DROP", "-L PROMISC"] {
        let output = test.vm.run(&format!("{tool} {rule}"))?;
        ensure!(output.status != 0 && output.stdout.contains(MESSAGE), "{tool} {rule}: {output:?}");
    }
    Ok(())
}

fn nft_and_conntrack(test: &mut DeployTest) -> Result<()> {
    test.vm.must("nft add table inet test")?;
    test.vm.must("nft 'add chain inet test input { type filter hook input priority filter; policy accept; }'")?;
    test.vm.must("nft add rule inet test input ct state new counter accept")?;
    // An echo request to the VM itself, which is tracked.
    test.vm.must("ping -q -c 1 127.0.0.1")?;
    let tracked = test.vm.must("conntrack -L")?;
    ensure!(tracked.contains("src=127.0.0.1 dst=127.0.0.1"), "{tracked}");
    let rules = test.vm.must("nft list table inet test")?;
    ensure!(rules.contains("ct state new counter packets"), "{rules}");
    test.vm.must("nft delete table inet test").map(drop)
}
