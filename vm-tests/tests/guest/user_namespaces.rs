// SPDX-License-Identifier: GPL-2.0-only
//! Any user can be root of a user namespace, and make rules and packets in a network namespace of
//! it. Extensions that look for a device or a route which a packet does not have must be refused,
//! or do no harm: <https://www.cve.org/CVERecord?id=CVE-2026-31424>

use std::time::Duration;

use anyhow::{Result, ensure};
use traffic_model::frames::{Ip, SYN, mirrored};
use vm_harness::guest::{Guest, Step};
use vm_tests::guest_test;

/// The scripts run hundreds of commands.
const TIMEOUT: Duration = Duration::from_secs(400);

/// Runs a script as root of a user namespace of the user `nobody`, in a network namespace with the
/// devices `lo`, `feed0` and `mirror0`. Its function `packets` makes packets on all hooks.
fn run_as_root_of_a_user_namespace(guest: &mut Guest, script: &str) -> Result<String> {
    const START: &str = r#"
        export PATH=/usr/local/sbin:/usr/sbin:/usr/bin
        export XTABLES_LOCKFILE=/tmp/lock-of-nobody
        ip link set lo up
        ip link add feed0 type veth peer name mirror0
        ip link set mirror0 promisc on up
        ip link set feed0 up
        until ip link show feed0 | grep -q LOWER_UP; do :; done
        for address in 10.9.0.1/24 2001:db8:9::1/64; do ip addr add $address dev feed0 nodad; done
        packets() {
            ping -c 1 -W 5 127.0.0.1 >/dev/null
            ping -c 1 -W 5 ::1 >/dev/null
            # Nothing listens there.
            for address in 127.0.0.1 ::1; do ! bash -c "echo >/dev/tcp/$address/9" 2>/dev/null || exit 1; done
            for address in 10.9.0.9 2001:db8:9::9; do bash -c "echo >/dev/udp/$address/9"; done
            /init play feed0 /tmp/frames >/dev/null
        }
    "#;
    let tcp = |source: &str, destination: &str| {
        let options = Ip::between(source, destination).tcp((1, 2), 7, SYN, &[]);
        mirrored(&options)
    };
    let frames = vec![tcp("192.0.2.1", "192.0.2.2"), tcp("2001:db8::1", "2001:db8::2")];
    guest.write("/tmp/frames", &Guest::script(&[Step::Send(frames)])?)?;
    guest.write("/tmp/script", format!("set -e\n{START}\n{script}").as_bytes())?;
    let line = r#"su -s /bin/sh nobody -c "unshare --user --map-root-user --net /bin/sh /tmp/script""#;
    guest.run_for(line, TIMEOUT)?.success(line)
}

/// Matches and targets, each with a place where it is valid. They read the output device, the input
/// device or the route of a packet.
const EXTENSIONS: &str = r#"
    mangle POSTROUTING -m policy --dir out --pol none
    mangle PREROUTING -m policy --dir in --pol none
    mangle POSTROUTING -m devgroup --dst-group 0
    mangle PREROUTING -m devgroup --src-group 0
    mangle POSTROUTING -m addrtype --src-type UNICAST --limit-iface-out
    mangle PREROUTING -m addrtype --src-type UNICAST --limit-iface-in
    mangle FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
"#;

guest_test!(rules_of_a_user_namespace_cannot_harm_the_kernel, |guest, backend| {
    // Each rule in a built-in chain, in a chain before a built-in one jumps to it, and after.
    let script = format!(
        r#"
        for program in iptables ip6tables; do
            tool=/usr/local/sbin/$program-{backend}
            n=0
            echo '{EXTENSIONS}' | while read -r table place extension; do
                test -n "$table" || continue
                # The control: the extension is valid there.
                $tool -t $table -A $place $extension
                for chain in mangle:PREROUTING mangle:POSTROUTING filter:PROMISC filter:INPUT filter:OUTPUT; do
                    t=${{chain%:*}} c=${{chain#*:}} n=$((n + 1))
                    $tool -t $t -N rule-first-$n
                    $tool -t $t -N jump-first-$n
                    $tool -t $t -A $c $extension 2>/dev/null && echo "$program $c $extension"
                    $tool -t $t -A rule-first-$n $extension 2>/dev/null
                    $tool -t $t -A $c -j rule-first-$n 2>/dev/null && echo "$program $c jump $extension"
                    $tool -t $t -A $c -j jump-first-$n
                    $tool -t $t -A jump-first-$n $extension 2>/dev/null && echo "$program $c late $extension"
                done
                true
            done
            # The last rules count.
            for chain in INPUT OUTPUT PROMISC; do $tool -A $chain -m comment --comment last; done
        done
        packets
        for program in iptables ip6tables; do
            /usr/local/sbin/$program-{backend}-save -c -t filter | grep last
        done
        "#
    );
    let output = run_as_root_of_a_user_namespace(guest, &script)?;
    for (chain, frames) in [("PROMISC", "[1:"), ("INPUT", "["), ("OUTPUT", "[")] {
        let last = output.lines().filter(|line| line.contains(&format!("-A {chain} ")));
        let counted = last.filter(|line| line.starts_with(frames) && !line.starts_with("[0:")).count();
        ensure!(counted == 2, "{backend}: packets have not passed through {chain}:\n{output}");
    }
    for extension in ["--dir out", "--dst-group 0", "--limit-iface-out", "--clamp-mss-to-pmtu"] {
        let accepted: Vec<_> =
            output.lines().filter(|line| line.contains(" PROMISC ") && line.contains(extension)).collect();
        ensure!(accepted.is_empty(), "{backend}: accepted in PROMISC: {accepted:?}");
    }
    // The control: they are accepted where they are valid.
    for line in ["OUTPUT -m policy --dir out --pol none", "OUTPUT late -m devgroup --dst-group 0"] {
        ensure!(output.contains(line), "{backend}: not accepted: {line}\n{output}");
    }
});

// The hooks of ARP have numbers that mean other hooks in IPv4: 0 is input, 1 is output.
guest_test!(matches_for_ip_hooks_in_chains_of_arp_cannot_harm_the_kernel, |guest| {
    // `struct xt_devgroup_info`: the bit for the group of the input device or of the output device,
    // then the group and the mask of each.
    let group = |bit: &str| format!("{bit}000000{:032}", 0);
    let (input, output) = (group("01"), group("04"));
    let script = format!(
        r#"
        for hook in 0 1; do
            /init chain arp filter on$hook $hook
            for devgroup in {input} {output}; do
                chain=user$hook$devgroup
                for order in first late; do nft add chain arp filter $order$chain; done
                echo "$hook: $(/init extension arp filter on$hook match devgroup 0 $devgroup)"
                nft add rule arp filter on$hook jump late$chain
                echo "$hook: $(/init extension arp filter first$chain match devgroup 0 $devgroup)"
                nft add rule arp filter on$hook jump first$chain || true
                echo "$hook: $(/init extension arp filter late$chain match devgroup 0 $devgroup)"
            done
            nft add rule arp filter on$hook counter
        done
        /usr/sbin/arptables-nft -A OUTPUT -j CLASSIFY --set-class 1:1 || true
        /usr/sbin/arptables-nft -A INPUT -j MARK --set-mark 1 || true
        packets
        nft list table arp filter
        # The control: the parameters are right.
        /usr/local/sbin/iptables-nft -A INPUT -m devgroup --src-group 0
        /init extension ip filter INPUT match devgroup 0 {input}
        "#
    );
    let output = run_as_root_of_a_user_namespace(guest, &script)?;
    ensure!(output.ends_with("ok\n"), "{output}");
    let lines = output.lines().map(str::trim);
    let counters = lines.filter(|line| line.starts_with("counter packets") && !line.contains("packets 0"));
    ensure!(counters.count() == 2, "no ARP packets have passed:\n{output}");
});
