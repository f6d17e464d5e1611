// SPDX-License-Identifier: GPL-2.0-only
//! Other matches and targets in the chain PROMISC: which ones are refused, and what the others do.

use anyhow::{Result, bail, ensure};
use traffic_model::frames::{Ip, SYN, mirrored};
use vm_harness::guest::Guest;
use vm_harness::replay::Backend;
use vm_tests::{counters, guest_test, iptables, refused};

const PROGRAMS: [&str; 2] = ["iptables", "ip6tables"];

/// Extensions that have no meaning for a frame to another host, because they need a route, a
/// socket, a connection or an effective verdict. Each has a table and a chain that accepts it, so
/// that a test cannot take an unknown extension or a wrong option for a refusal.
const REFUSED: [(&str, &str, &str); 34] = [
    ("filter", "INPUT", "-j REJECT"),
    ("filter", "INPUT", "-p tcp -j REJECT --reject-with tcp-reset"),
    ("filter", "INPUT", "-j NFQUEUE --queue-num 1"),
    ("filter", "INPUT", "-j NFQUEUE --queue-num 1 --queue-bypass"),
    ("filter", "INPUT", "-j NFQUEUE --queue-balance 1:2"),
    ("filter", "INPUT", "-j TEE --gateway ADDRESS"),
    ("filter", "INPUT", "-p tcp -j SYNPROXY --mss 1460"),
    ("filter", "OUTPUT", "-j CLASSIFY --set-class 1:1"),
    ("filter", "INPUT", "-j CONNMARK --set-mark 1"),
    ("filter", "INPUT", "-j CONNMARK --restore-mark"),
    ("filter", "FORWARD", "-p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu"),
    ("mangle", "PREROUTING", "-p tcp -j TPROXY --on-port 80"),
    ("raw", "PREROUTING", "-j CT --notrack"),
    ("nat", "PREROUTING", "-j DNAT --to-destination ADDRESS"),
    ("nat", "PREROUTING", "-p tcp -j REDIRECT --to-ports 80"),
    ("nat", "POSTROUTING", "-j SNAT --to-source ADDRESS"),
    ("nat", "POSTROUTING", "-j MASQUERADE"),
    ("nat", "PREROUTING", "-j NETMAP --to ADDRESS"),
    ("filter", "INPUT", "-m socket"),
    ("filter", "INPUT", "-m socket --transparent"),
    ("filter", "OUTPUT", "-m owner --uid-owner 0"),
    ("filter", "INPUT", "-m conntrack --ctstate NEW"),
    ("filter", "INPUT", "-m state --state INVALID"),
    ("filter", "INPUT", "-m connlimit --connlimit-above 10"),
    ("filter", "INPUT", "-m connmark --mark 1"),
    ("filter", "INPUT", "-m connlabel --label 1"),
    ("filter", "INPUT", "-m connbytes --connbytes 10 --connbytes-dir both --connbytes-mode bytes"),
    ("filter", "INPUT", "-m helper --helper ftp"),
    ("filter", "INPUT", "-m cluster --cluster-total-nodes 2 --cluster-local-node 1 --cluster-hash-seed 1"),
    ("filter", "OUTPUT", "-m policy --dir out --pol none"),
    ("filter", "OUTPUT", "-m devgroup --dst-group 0"),
    ("filter", "OUTPUT", "-m addrtype --dst-type UNICAST --limit-iface-out"),
    ("raw", "PREROUTING", "-m rpfilter"),
    ("raw", "PREROUTING", "-m rpfilter --invert"),
];
/// As [`REFUSED`], for extensions of `iptables` alone.
const REFUSED_IPV4: [(&str, &str, &str); 1] = [("filter", "INPUT", "-m realm --realm 1")];

/// The extensions that a program must refuse in PROMISC.
fn refused_by(program: &str) -> impl Iterator<Item = (&'static str, &'static str, String)> {
    let (address, more) = match program {
        "iptables" => ("10.0.0.9", &REFUSED_IPV4[..]),
        _ => ("2001:db8::9", &[][..]),
    };
    REFUSED.iter().chain(more).map(move |(table, chain, rule)| (*table, *chain, rule.replace("ADDRESS", address)))
}

/// Runs commands of iptables. Returns those that were not refused, with their output.
fn not_refused(guest: &mut Guest, backend: Backend, commands: impl IntoIterator<Item = String>) -> Result<Vec<String>> {
    let mut others = Vec::new();
    for command in commands {
        let output = guest.run(&backend.command(&command))?;
        if !refused(backend, &output) {
            others.push(format!("{command}: {output:?}"));
        }
    }
    Ok(others)
}

fn check_none(backend: Backend, not_refused: &[String]) -> Result<()> {
    ensure!(not_refused.is_empty(), "{backend}: not refused:\n{}", not_refused.join("\n"));
    Ok(())
}

/// The rules of the table filter of both families.
fn saved(guest: &mut Guest, backend: Backend) -> Result<String> {
    let mut text = String::new();
    for program in PROGRAMS {
        text += &guest.must(&format!("/usr/local/sbin/{program}-{backend}-save -t filter | grep -v '^#'"))?;
    }
    Ok(text)
}

guest_test!(extensions_without_a_meaning_for_mirrored_frames_are_refused_in_promisc, |guest, backend| {
    // The control also makes all tables.
    for program in PROGRAMS {
        for (table, chain, rule) in refused_by(program) {
            iptables(guest, backend, &format!("{program} -t {table} -A {chain} {rule}"))?;
            iptables(guest, backend, &format!("{program} -t {table} -D {chain} {rule}"))?;
        }
    }
    let before = saved(guest, backend)?;
    for program in PROGRAMS {
        let rules = refused_by(program).map(|(_, _, rule)| format!("{program} -A PROMISC {rule}"));
        check_none(backend, &not_refused(guest, backend, rules)?)?;
    }
    let after = saved(guest, backend)?;
    ensure!(before == after, "{backend}: refused rules change the rule set:\n{before}{after}");
});

guest_test!(extensions_are_refused_in_a_chain_that_promisc_jumps_to, |guest, backend| {
    for program in PROGRAMS {
        // There are two jumps from PROMISC to `inner`.
        for rule in ["-N outer", "-N inner", "-A outer -j inner", "-A PROMISC -j outer"] {
            iptables(guest, backend, &format!("{program} {rule}"))?;
        }
        let before = saved(guest, backend)?;
        let rules = refused_by(program).map(|(_, _, rule)| format!("{program} -A inner {rule}"));
        check_none(backend, &not_refused(guest, backend, rules)?)?;
        let after = saved(guest, backend)?;
        ensure!(before == after, "{backend}: refused rules change the rule set:\n{before}{after}");
    }
});

guest_test!(a_jump_from_promisc_to_a_chain_with_a_refused_extension_is_refused, |guest, backend| {
    for program in PROGRAMS {
        for rule in ["-N outer", "-N inner", "-A outer -j inner"] {
            iptables(guest, backend, &format!("{program} {rule}"))?;
        }
        let before = saved(guest, backend)?;
        // The table filter refuses the extensions of other tables in all of its chains.
        for (_, _, rule) in refused_by(program).filter(|(table, _, _)| *table == "filter") {
            iptables(guest, backend, &format!("{program} -A inner {rule}"))?;
            let jumps = ["-A PROMISC -j inner", "-A PROMISC -g outer"].map(|jump| format!("{program} {jump}"));
            let others = not_refused(guest, backend, jumps)?;
            ensure!(others.is_empty(), "{backend}: not refused with {rule} in the chain:\n{}", others.join("\n"));
            iptables(guest, backend, &format!("{program} -F inner"))?;
        }
        let after = saved(guest, backend)?;
        ensure!(before == after, "{backend}: refused jumps change the rule set:\n{before}{after}");
    }
});

guest_test!(a_restored_rule_set_with_a_refused_extension_changes_nothing, |guest, backend| {
    iptables(guest, backend, "-A PROMISC -s 10.0.0.1")?;
    let before = saved(guest, backend)?;
    for rule in ["-j REJECT", "-j NFQUEUE", "-m socket", "-m conntrack --ctstate NEW"] {
        for rules in [format!("-A PROMISC {rule}"), format!(":u - [0:0]\n-A PROMISC -j u\n-A u {rule}")] {
            guest.write("/tmp/rules", format!("*filter\n:PROMISC DROP [0:0]\n{rules}\nCOMMIT\n").as_bytes())?;
            let output = guest.run(&format!("/usr/local/sbin/iptables-{backend}-restore </tmp/rules"))?;
            ensure!(output.status != 0, "{backend}: {rules}: {output:?}");
            let after = saved(guest, backend)?;
            ensure!(before == after, "{backend}: {rules}:\n{before}{after}");
        }
    }
});

/// Rules that do nothing but count, and how many of the frames of [`frames`] each must count.
/// `ADDRESS` stands for the source of all.
const ACCEPTED: [(&str, u64); 30] = [
    ("-m mac --mac-source 02:a1:ce:00:00:01", 6),
    ("-m mac --mac-source 02:a1:ce:00:00:09", 0),
    ("-m comment --comment mirrored", 6),
    ("-m addrtype --dst-type LOCAL", 1),
    ("-m addrtype ! --dst-type LOCAL --limit-iface-in", 6),
    ("-p udp -m multiport --dports 1,53", 3),
    ("-m length --length 0:99", 1),
    ("-m limit --limit 1/hour --limit-burst 2", 2),
    ("-m hashlimit --hashlimit-upto 1/hour --hashlimit-burst 3 --hashlimit-name h", 3),
    ("-m statistic --mode nth --every 2 --packet 0", 3),
    ("-m string --algo bm --string needle", 1),
    ("-m pkttype --pkt-type otherhost", 6),
    ("-m pkttype --pkt-type host", 0),
    ("-m quota --quota 300", 2),
    ("-m recent --name r --set", 6),
    ("-m recent --name r --rcheck --hitcount 6", 1),
    ("-m iprange --src-range ADDRESS-ADDRESS", 6),
    ("-m dscp --dscp 0", 6),
    ("-m cpu ! --cpu 100", 6),
    ("-m time --datestart 1970-01-01", 6),
    ("-m devgroup --src-group 0", 6),
    ("-p tcp --tcp-flags SYN,ACK SYN", 1),
    ("-p tcp -m tcpmss --mss 1460", 0),
    // Each target returns to the next rule.
    ("-m mark --mark 7", 0),
    ("-j MARK --set-mark 7", 6),
    ("-m mark --mark 7", 6),
    ("-p tcp -j LOG --log-prefix PREFIX --log-tcp-options --log-ip-options --log-macdecode", 1),
    ("-j NFLOG --nflog-group 1 --nflog-prefix x", 6),
    ("-p udp --dport 53 -j SET --add-set SETNAME src", 2),
    ("-m set --match-set SETNAME src", 4),
];

/// Six frames in the order in which they are sent: five packets of 100 bytes or more, one of less,
/// from one source.
fn frames(program: &str) -> Vec<Vec<u8>> {
    let (source, destination, local) = match program {
        "iptables" => ("10.0.0.1", "192.0.2.1", "10.0.0.9"),
        _ => ("2001:db8::1", "2001:db8:1::1", "2001:db8::9"),
    };
    let (ip, to_local) = (Ip::between(source, destination), Ip::between(source, local));
    let fill = |text: &str| [text.as_bytes(), &[7; 72][text.len()..]].concat();
    let packets = [
        to_local.udp((9, 1), &fill("")),
        ip.tcp((9, 80), 1, SYN, &fill("")),
        ip.udp((9, 53), &fill("a needle here")),
        ip.udp((9, 53), &fill("")),
        ip.udp((9, 2), &fill("")),
        ip.udp((9, 3), b""),
    ];
    packets.iter().map(|packet| mirrored(packet)).collect()
}

guest_test!(the_other_extensions_work_in_promisc, |guest, backend| {
    guest.must("ip addr add 10.0.0.9/32 dev lo && ip addr add 2001:db8::9/128 dev lo nodad")?;
    guest.open_port(0)?;
    for program in PROGRAMS {
        let (family, address) = match program {
            "iptables" => ("inet", "10.0.0.1"),
            _ => ("inet6", "2001:db8::1"),
        };
        for chain in ["PROMISC", "user"] {
            if chain == "user" {
                iptables(guest, backend, &format!("{program} -N user"))?;
                iptables(guest, backend, &format!("{program} -A PROMISC -j user"))?;
            }
            let prefix = format!("{program}-{chain}:");
            let names = [("ADDRESS", address), ("PREFIX", &prefix), ("SETNAME", "seen")];
            guest.must(&format!("ipset create seen hash:ip family {family}"))?;
            for (rule, _) in ACCEPTED {
                let rule = names.iter().fold(rule.to_owned(), |rule, (from, to)| rule.replace(from, to));
                iptables(guest, backend, &format!("{program} -A {chain} {rule}"))?;
            }
            guest.send(0, frames(program))?;
            let got = counters(guest, program, backend, chain)?;
            for ((rule, want), (packets, _)) in ACCEPTED.iter().zip(&got) {
                ensure!(packets == want, "{program}-{backend} {chain}: {rule}: {packets} frames, not {want}");
            }
            ensure!(got.len() == ACCEPTED.len(), "{program}-{backend} {chain}: {got:?}");
            let set = guest.must("ipset list seen")?;
            ensure!(set.ends_with(&format!("Members:\n{address}\n")), "{set}");
            let log = guest.kernel_log()?;
            let lines: Vec<_> = log.lines().filter(|line| line.contains(&format!("{prefix}IN=eth0 OUT= "))).collect();
            let [line] = lines[..] else { bail!("{program}-{backend} {chain}: LOG printed {lines:?}") };
            ensure!(line.contains("PROTO=TCP") && line.contains("MACDST=02:b0:b0:00:00:02"), "{line}");
            for rule in ["-F", "-X"] {
                iptables(guest, backend, &format!("{program} {rule}"))?;
            }
            guest.must("ipset destroy seen")?;
        }
    }
});

/// Expressions of nft that have no meaning for a frame to another host. Each has a type and a hook
/// of a chain that accepts it.
const REFUSED_EXPRESSIONS: [(&str, &str); 15] = [
    ("filter hook input", "reject"),
    ("filter hook input", "queue to 1"),
    ("filter hook input", "dup to ADDRESS"),
    ("filter hook input", "socket transparent 1"),
    ("filter hook input", "ct state new"),
    ("filter hook input", "ct mark set 1"),
    ("filter hook input", "ct count over 10"),
    ("filter hook input", "meta l4proto tcp synproxy mss 1460 wscale 7"),
    ("filter hook prerouting", "meta l4proto tcp tproxy to :80"),
    ("filter hook prerouting", "fib saddr oif exists"),
    ("filter hook prerouting", "notrack"),
    ("filter hook prerouting", "meta pkttype set unicast"),
    ("filter hook forward", "tcp flags syn tcp option maxseg size set rt mtu"),
    ("nat hook postrouting", "masquerade"),
    ("nat hook prerouting", "dnat to ADDRESS"),
];

// Debian's nft does not know the name of the hook, but it adds rules to an existing chain.
guest_test!(expressions_of_nft_without_a_meaning_for_mirrored_frames_are_refused_in_promisc, |guest| {
    for (family, program, address) in [("ip", "iptables", "10.0.0.9"), ("ip6", "ip6tables", "2001:db8::9")] {
        for rule in ["-N inner", "-A PROMISC -j inner"] {
            iptables(guest, Backend::Nft, &format!("{program} {rule}"))?;
        }
        let before = saved(guest, Backend::Nft)?;
        let mut accepted = String::new();
        for (place, expression) in REFUSED_EXPRESSIONS {
            let expression = expression.replace("ADDRESS", address);
            guest.write(
                "/tmp/control",
                format!("table {family} control {{ chain c {{ type {place} priority 0; {expression}; }}; }}")
                    .as_bytes(),
            )?;
            guest.must(&format!("nft -f /tmp/control && nft delete table {family} control"))?;
            for chain in ["PROMISC", "inner"] {
                let output = guest.run(&format!("nft add rule {family} filter {chain} {expression}"))?;
                if output.status != 1 || !output.stderr.contains("Operation not supported") {
                    accepted += &format!("{family} {chain} {expression}: {output:?}\n");
                }
            }
        }
        ensure!(accepted.is_empty(), "not refused:\n{accepted}");
        let after = saved(guest, Backend::Nft)?;
        ensure!(before == after, "refused rules change the rule set:\n{before}{after}");
    }
});

// `ct count` is the only expression of a set that has no meaning here. The rule, the set or an
// element can have it.
guest_test!(sets_with_ct_count_are_refused_or_do_not_match_in_promisc, |guest| {
    guest.open_port(0)?;
    for (family, program, kind) in [("ip", "iptables", "ipv4_addr"), ("ip6", "ip6tables", "ipv6_addr")] {
        iptables(guest, Backend::Nft, &format!("{program} -A PROMISC"))?;
        let table = format!("{family} filter");
        let set = format!("type {kind}; size 100; flags dynamic;");
        for (name, more) in [("plain", ""), ("counting", "ct count over 0;"), ("other", "")] {
            guest.must(&format!("nft 'add set {table} {name} {{ {set} {more} }}'"))?;
        }
        guest.must(&format!("nft 'add chain {table} control {{ type filter hook input priority 0; }}'"))?;
        let rules = [
            format!("add @plain {{ {family} saddr ct count over 0 }}"),
            format!("add @counting {{ {family} saddr }}"),
            format!("{family} saddr @counting"),
        ];
        for rule in rules {
            guest.must(&format!("nft 'add rule {table} control {rule}'"))?;
            let output = guest.run(&format!("nft 'add rule {table} PROMISC {rule}'"))?;
            let refused = output.status == 1 && output.stderr.contains("Operation not supported");
            ensure!(refused, "{family}: {rule}: {output:?}");
        }
        // The kernel accepts an element with an expression of its own.
        let address = if family == "ip" { "10.0.0.1" } else { "2001:db8::1" };
        guest.must(&format!("nft 'add element {table} other {{ {address} ct count over 0 }}'"))?;
        for (rule, name) in
            [(format!("{family} saddr @other"), "matched"), (format!("{family} saddr {address}"), "arrived")]
        {
            guest.must(&format!(
                "nft 'add counter {table} {name}; add rule {table} PROMISC {rule} counter name {name}'"
            ))?;
        }
        let frames = frames(program);
        let sent = frames.len();
        guest.send(0, frames)?;
        for (name, want) in [("matched", 0), ("arrived", sent)] {
            let counter = guest.must(&format!("nft list counter {table} {name}"))?;
            ensure!(counter.contains(&format!("packets {want} ")), "{family}: {name}: not {want} packets: {counter}");
        }
    }
});

/// Extensions for another table than filter: the table, the options of iptables, and the kernel's
/// structure: the kind, the name, the revision, the first bytes in hexadecimal digits, and how many
/// digits there are.
const OF_OTHER_TABLES: [(&str, &str, (&str, &str, usize)); 3] = [
    // `struct xt_tproxy_target_info_v1`: its last member is the port.
    (
        "mangle",
        "-p tcp -j TPROXY --on-port 80",
        ("target TPROXY 1", "0000000000000000000000000000000000000000000000000050", 56),
    ),
    // `struct xt_ct_target_info`: its first member has the bit for "not tracked".
    ("raw", "-j CT --notrack", ("target CT 0", "01", 80)),
    // `struct xt_rpfilter_info`
    ("raw", "-m rpfilter", ("match rpfilter 0", "00", 2)),
];

// Some extensions are valid in tables with a certain name. In nf_tables any table can have it.
guest_test!(extensions_of_other_tables_are_refused_in_any_table_on_the_hook_promisc, |guest| {
    let accepted = |answer: &str| answer == "ok\n";
    let refused = |answer: &str| ["errno 22\n", "errno 95\n"].contains(&answer);
    for (family, program) in [("ip", "iptables"), ("ip6", "ip6tables")] {
        for (table, rule, (name, digits, length)) in OF_OTHER_TABLES {
            let extension = format!("{name} {digits:0<length$}");
            let add = |guest: &mut Guest, chain: &str| {
                guest.must(&format!("/init extension {family} {table} {chain} {extension}"))
            };
            // The controls: a chain with the extension, which PREROUTING jumps to.
            for rule in ["-N with", &format!("-A with {rule}"), "-A PREROUTING -j with"] {
                iptables(guest, Backend::Nft, &format!("{program} -t {table} {rule}"))?;
            }
            let answer = add(guest, "with")?;
            ensure!(accepted(&answer), "{family} {table} {name}: {answer}");
            let answer = guest.must(&format!("/init chain {family} {table} mirrored 6"))?;
            ensure!(accepted(&answer), "{family} {table}: {answer}");
            // In the chain on the hook, in the order rule and jump, and in the order jump and rule.
            let before = guest.must("nft list ruleset")?;
            let answer = add(guest, "mirrored")?;
            ensure!(refused(&answer), "{family} {table} {name}: {answer}");
            let output = guest.run(&format!("nft add rule {family} {table} mirrored jump with"))?;
            ensure!(output.status == 1, "{family} {table} {name}: {output:?}");
            guest.must(&format!("nft add chain {family} {table} empty"))?;
            guest.must(&format!("nft add rule {family} {table} mirrored jump empty"))?;
            let answer = add(guest, "empty")?;
            ensure!(refused(&answer), "{family} {table} {name}: {answer}");
            guest.must(&format!("nft flush chain {family} {table} mirrored"))?;
            guest.must(&format!("nft delete chain {family} {table} empty"))?;
            ensure!(guest.must("nft list ruleset")? == before, "{family} {table} {name}: a rule was added");
            guest.must(&format!("nft delete table {family} {table}"))?;
        }
    }
});
