// SPDX-License-Identifier: GPL-2.0-only
//! iptables refuses invalid options with exit status 2 and a message that names the option. It
//! changes no rule.

use anyhow::{Result, ensure};
use insta::assert_snapshot;
use vm_harness::guest::Guest;
use vm_harness::replay::{Backend, TABLES};
use vm_tests::{BACKENDS, guest_test, iptables, table_files};

const PROGRAMS: [&str; 2] = ["iptables", "ip6tables"];

/// The message of a back end for a rule that it must refuse, without the version.
fn refusal(guest: &mut Guest, backend: Backend, program: &str, options: &str) -> Result<String> {
    let output = guest.run(&backend.command(&format!("{program} -A PROMISC -m traffic {options}")))?;
    ensure!(output.status == 2, "{backend}: {options}: {output:?}");
    ensure!(output.stdout.is_empty(), "{backend}: {options}: {output:?}");
    let version = format!("{program} v1.8.11 ({}): ", if backend == Backend::Nft { "nf_tables" } else { "legacy" });
    let message = output.stderr.strip_prefix(&version);
    Ok(message.unwrap_or(&output.stderr).to_owned())
}

/// Rules that both back ends must refuse with the same message.
fn refused(guest: &mut Guest, snapshot: &str, program: &str, rules: &[&str]) -> Result<()> {
    let mut messages = Vec::new();
    for options in rules {
        let nft = refusal(guest, Backend::Nft, program, options)?;
        let legacy = refusal(guest, Backend::Legacy, program, options)?;
        ensure!(nft == legacy, "{options}: nft prints {nft}, legacy prints {legacy}");
        messages.push(format!("{options}\n{nft}"));
    }
    for backend in BACKENDS {
        let rules = iptables(guest, backend, &format!("{program} -S PROMISC"))?;
        ensure!(rules == "-P PROMISC ACCEPT\n", "{backend}: the rules are\n{rules}");
    }
    assert_snapshot!(snapshot, messages.join("\n"));
    Ok(())
}

/// Defines a test for each list of rules of `iptables` or `ip6tables`.
macro_rules! refused {
    ($($name:ident: $program:ident $rules:expr;)*) => {
        $(guest_test!($name, in_guest_briefly, |guest| {
            refused(guest, stringify!($name), stringify!($program), &$rules)?;
        });)*
    };
}

refused! {
    nothing_to_count: iptables ["--net 10.0.0.0/8 --name t"];
    no_network: iptables ["--traffic --name t"];
    no_name: iptables ["--traffic --net 10.0.0.0/8"];
    no_options: iptables [""];
    base_without_mask: iptables ["--traffic --netbase 10.0.0.0 --name t"];
    mask_without_base: iptables ["--traffic --netmask 255.0.0.0 --name t"];
    two_networks: iptables ["--traffic --net 10.0.0.0/8 --netbase 10.0.0.0 --netmask 255.0.0.0 --name t"];
    mask_with_holes: iptables ["--traffic --netbase 10.0.0.0 --netmask 255.0.255.0 --name t"];
    base_with_host_bits: iptables ["--traffic --netbase 10.0.0.1 --netmask 255.0.0.0 --name t"];
    net_with_host_bits: iptables ["--traffic --net 10.0.0.1/8 --name t"];
    net_without_length: iptables ["--traffic --net 10.0.0.0 --name t"];
    net_with_long_length: iptables ["--traffic --net 10.0.0.0/33 --name t"];
    net_with_a_word: iptables ["--traffic --net everything --name t"];
    base_with_a_word: iptables ["--traffic --netbase here --netmask 255.0.0.0 --name t"];
    mask_with_a_word: iptables ["--traffic --netbase 10.0.0.0 --netmask wide --name t"];
    name_is_empty: iptables ["--traffic --net 10.0.0.0/8 --name ''"];
    name_is_too_long: iptables ["--traffic --net 10.0.0.0/8 --name a123456789b123456789c123456789de"];
    name_has_a_dot: iptables ["--traffic --net 10.0.0.0/8 --name a.b"];
    name_has_a_slash: iptables ["--traffic --net 10.0.0.0/8 --name ../x"];
    name_has_a_space: iptables ["--traffic --net 10.0.0.0/8 --name 'a b'"];
    name_has_a_newline: iptables ["--traffic --net 10.0.0.0/8 --name \"$(printf 'a\\nb')\""];
    name_is_not_ascii: iptables ["--traffic --net 10.0.0.0/8 --name å"];
    traffic_inverted: iptables ["! --traffic --net 10.0.0.0/8 --name t"];
    net_inverted: iptables ["--traffic ! --net 10.0.0.0/8 --name t"];
    name_inverted: iptables ["--traffic --net 10.0.0.0/8 ! --name t"];
    traffic_twice: iptables ["--traffic --traffic --net 10.0.0.0/8 --name t"];
    name_twice: iptables ["--traffic --net 10.0.0.0/8 --name t --name u"];
    unknown_option: iptables ["--traffic --net 10.0.0.0/8 --name t --colour red"];
    arguments_that_are_not_there: iptables [
        "--traffic --net 10.0.0.0/8 --name t --hashsize",
        "--traffic --net 10.0.0.0/8 --name",
        "--traffic --name t --net",
    ];
    once_and_not_inverted: iptables [
        "--ipconn --ipconn --net 10.0.0.0/8 --name t",
        "! --ipconn --net 10.0.0.0/8 --name t",
        "--portconn --portconn --net 10.0.0.0/8 --name t",
        "! --portconn --net 10.0.0.0/8 --name t",
        "--traffic --net 10.0.0.0/8 --name t --hashsize 16 --hashsize 16",
        "--traffic --net 10.0.0.0/8 --name t ! --hashsize 16",
        "--traffic --net 10.0.0.0/8 --name t --clearonread --clearonread",
        "--traffic --net 10.0.0.0/8 --name t ! --clearonread",
        "--traffic --net 10.0.0.0/8 --name t --nointernal ! --nointernal",
    ];
    modifiers_alone_count_nothing: iptables [
        "--clearonread --hashsize 16 --nointernal --net 10.0.0.0/8 --name t",
    ];
    prefixes: iptables [
        "--traffic --net 10.0.0.0/8 --name t --prefix 7",
        "--traffic --prefix 16 --netbase 10.0.0.0 --netmask 255.255.128.0 --name t",
        "--traffic --net 10.0.0.0/8 --name t --prefix 33",
        "--traffic --net 10.0.0.0/8 --name t --prefix -1",
        "--traffic --net 10.0.0.0/8 --name t --prefix /24",
        "--traffic --net 10.0.0.0/8 --name t --prefix ''",
        "--traffic --net 10.0.0.0/8 --name t --prefix",
        "--traffic --net 10.0.0.0/8 --name t --prefix 24 --prefix 24",
        "--traffic --net 10.0.0.0/8 --name t ! --prefix 24",
        "--net 10.0.0.0/8 --name t --prefix 24",
        "--traffic --name t --prefix 24",
    ];
    prefixes6: ip6tables [
        "--traffic --net 2001:db8::/32 --name t --prefix 31",
        "--traffic --net 2001:db8::/32 --name t --prefix 129",
        "--traffic --net 2001:db8::/32 --name t --prefix 2001:db8::",
    ];
    ipv6_in_iptables: iptables [
        "--traffic --net 2001:db8::/32 --name t",
        "--traffic --netbase 2001:db8:: --netmask 255.0.0.0 --name t",
        "--traffic --netbase 10.0.0.0 --netmask ffff:ffff:: --name t",
    ];
    ipv4_in_ip6tables: ip6tables [
        "--traffic --net 10.0.0.0/8 --name t",
        "--traffic --netbase 10.0.0.0 --netmask ffff:: --name t",
        "--traffic --netbase 2001:db8:: --netmask 255.0.0.0 --name t",
    ];
    ip6tables_refuses: ip6tables [
        "",
        "--net 2001:db8::/32 --name t",
        "--traffic --name t",
        "--traffic --net 2001:db8::/32",
        "--traffic --netbase 2001:db8:: --name t",
        "--traffic --netmask ffff:ffff:: --name t",
        "--traffic --net 2001:db8::/32 --netbase 2001:db8:: --netmask ffff:ffff:: --name t",
        "--traffic --netbase 2001:db8:: --netmask ffff:0:ffff:: --name t",
        "--traffic --netbase 2001:db8::1 --netmask ffff:ffff:: --name t",
        "--traffic --net 2001:db8::1/32 --name t",
        "--traffic --net 2001:db8:: --name t",
        "--traffic --net 2001:db8::/129 --name t",
        "--traffic --net everything --name t",
        "--traffic --netbase here --netmask ffff:ffff:: --name t",
        "--traffic --netbase 2001:db8:: --netmask wide --name t",
        "--traffic --netbase 2001:db8:: --netmask 32 --name t",
        "--traffic --net fe80::%eth0/64 --name t",
        "--traffic --net 2001:db8::/32 --name a.b",
        "--traffic --net 2001:db8::/32 --name t --hashsize 0",
        "--traffic --traffic --net 2001:db8::/32 --name t",
        "--traffic ! --net 2001:db8::/32 --name t",
    ];
}

guest_test!(hash_sizes, in_guest_briefly, |guest| {
    let rest = "--traffic --net 10.0.0.0/8 --name t";
    let sizes = ["0", "16777217", "4294967297", "-1", "+1", "0x10", "1k", "many", "''"];
    let rules: Vec<String> = sizes.iter().map(|size| format!("{rest} --hashsize {size}")).collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    refused(guest, "hash_sizes", "iptables", &rules)?;
});

guest_test!(names_with_31_characters_are_accepted, in_guest_briefly, |guest| {
    for (backend, letter) in BACKENDS.into_iter().zip(["a", "b"]) {
        let name = letter.repeat(31);
        guest.must(&backend.command(&format!("-A PROMISC -m traffic --traffic --net 10.0.0.0/8 --name {name}")))?;
        guest.must(&format!("test -f /proc/net/xt_traffic/{name}"))?;
    }
});

guest_test!(help_lists_the_options, in_guest_briefly, |guest| {
    for backend in BACKENDS {
        for program in PROGRAMS {
            let help = iptables(guest, backend, &format!("{program} -m traffic -h"))?;
            let ours = help.find("traffic match options").map(|start| &help[start..]);
            assert_snapshot!("help", ours.unwrap_or("nothing"));
        }
    }
});

guest_test!(a_table_has_a_file_for_each_of_its_options, in_guest_briefly, |guest| {
    // With the legacy back end, as nf_tables frees rules asynchronously.
    for (program, net) in PROGRAMS.into_iter().zip(["10.0.0.0/8", "2001:db8::/32"]) {
        for choice in 1..8 {
            let all = [("--traffic", "t\n"), ("--ipconn", "t.ipconn\n"), ("--portconn", "t.portconn\n")];
            let chosen: Vec<_> = (0..).zip(all).filter(|(bit, _)| choice & (1 << bit) != 0).collect();
            let (options, files): (Vec<&str>, Vec<&str>) = chosen.into_iter().map(|(_, each)| each).unzip();
            let rule = format!("PROMISC -m traffic {} --net {net} --name t", options.join(" "));
            iptables(guest, Backend::Legacy, &format!("{program} -A {rule}"))?;
            let found = table_files(guest)?;
            ensure!(found == files.concat(), "{program} {rule}: the files are\n{found}");
            iptables(guest, Backend::Legacy, &format!("{program} -D {rule}"))?;
            let found = table_files(guest)?;
            ensure!(found.is_empty(), "{program} {rule}: files remain\n{found}");
        }
    }
});

guest_test!(only_root_can_read_the_files, in_guest_briefly, |guest| {
    let rule = "-A PROMISC -m traffic --traffic --ipconn --portconn --net 10.0.0.0/8 --name t";
    iptables(guest, Backend::Nft, rule)?;
    for file in ["t", "t.ipconn", "t.portconn"] {
        let mode = guest.must(&format!("stat -c '%a %u %g %F' {TABLES}/{file}"))?;
        ensure!(mode == "440 0 0 regular empty file\n" || mode == "440 0 0 regular file\n", "{file}: {mode}");
        ensure!(guest.run(&format!("echo x >{TABLES}/{file}"))?.status != 0, "{file} is writable");
    }
});
