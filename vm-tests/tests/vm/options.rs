// SPDX-License-Identifier: GPL-2.0
//! What iptables says about options that are wrong: exit status 2, one line that names the option, and nothing
//! changed.

use anyhow::ensure;
use insta::assert_snapshot;
use vm_tests::replay::Backend;

use crate::support::{BACKENDS, in_guest_briefly};

/// A rule that must be refused by both back ends with the same words.
fn refused(snapshot: &str, options: &str) {
    in_guest_briefly(|guest| {
        let mut said = Vec::new();
        for backend in BACKENDS {
            let output = guest.run(&backend.command(&format!("-A PROMISC -m traffic {options}")))?;
            ensure!(output.status == 2, "{backend}: {output:?}");
            ensure!(output.stdout.is_empty(), "{backend}: {output:?}");
            let version =
                format!("iptables v1.8.11 ({}): ", if backend == Backend::Nft { "nf_tables" } else { "legacy" });
            let message = output.stderr.strip_prefix(&version);
            said.push(message.unwrap_or(&output.stderr).to_owned());
            let rules = guest.must(&backend.command("-S PROMISC"))?;
            ensure!(rules == "-P PROMISC ACCEPT\n", "{backend}: it has changed\n{rules}");
        }
        ensure!(said[0] == said[1], "nft says {}, legacy says {}", said[0], said[1]);
        assert_snapshot!(snapshot, format!("{options}\n{}", said[0]));
        Ok(())
    });
}

/// A test for each.
macro_rules! refused {
    ($($name:ident: $options:expr;)*) => {
        $(#[test]
        fn $name() {
            refused(stringify!($name), $options);
        })*
    };
}

refused! {
    nothing_to_count: "--net 10.0.0.0/8 --name t";
    no_network: "--traffic --name t";
    no_name: "--traffic --net 10.0.0.0/8";
    no_options: "";
    base_without_mask: "--traffic --netbase 10.0.0.0 --name t";
    mask_without_base: "--traffic --netmask 255.0.0.0 --name t";
    two_networks: "--traffic --net 10.0.0.0/8 --netbase 10.0.0.0 --netmask 255.0.0.0 --name t";
    mask_with_holes: "--traffic --netbase 10.0.0.0 --netmask 255.0.255.0 --name t";
    base_with_host_bits: "--traffic --netbase 10.0.0.1 --netmask 255.0.0.0 --name t";
    net_with_host_bits: "--traffic --net 10.0.0.1/8 --name t";
    net_without_length: "--traffic --net 10.0.0.0 --name t";
    net_with_long_length: "--traffic --net 10.0.0.0/33 --name t";
    net_with_a_word: "--traffic --net everything --name t";
    base_with_a_word: "--traffic --netbase here --netmask 255.0.0.0 --name t";
    mask_with_a_word: "--traffic --netbase 10.0.0.0 --netmask wide --name t";
    name_is_empty: "--traffic --net 10.0.0.0/8 --name ''";
    name_is_too_long: "--traffic --net 10.0.0.0/8 --name a123456789b123456789c123456789de";
    name_has_a_dot: "--traffic --net 10.0.0.0/8 --name a.b";
    name_has_a_slash: "--traffic --net 10.0.0.0/8 --name ../x";
    name_has_a_space: "--traffic --net 10.0.0.0/8 --name 'a b'";
    name_is_not_ascii: "--traffic --net 10.0.0.0/8 --name å";
    traffic_inverted: "! --traffic --net 10.0.0.0/8 --name t";
    net_inverted: "--traffic ! --net 10.0.0.0/8 --name t";
    name_inverted: "--traffic --net 10.0.0.0/8 ! --name t";
    traffic_twice: "--traffic --traffic --net 10.0.0.0/8 --name t";
    name_twice: "--traffic --net 10.0.0.0/8 --name t --name u";
    unknown_option: "--traffic --net 10.0.0.0/8 --name t --colour red";
}

#[test]
fn the_longest_name_is_a_name() {
    in_guest_briefly(|guest| {
        for (backend, letter) in BACKENDS.into_iter().zip(["a", "b"]) {
            let name = letter.repeat(31);
            guest.must(&backend.command(&format!("-A PROMISC -m traffic --traffic --net 10.0.0.0/8 --name {name}")))?;
            guest.must(&format!("test -f /proc/net/xt_traffic/{name}"))?;
        }
        Ok(())
    });
}

#[test]
fn help_lists_the_options() {
    in_guest_briefly(|guest| {
        for backend in BACKENDS {
            let help = guest.must(&backend.command("-m traffic -h"))?;
            let ours = help.find("traffic match options").map(|start| &help[start..]);
            assert_snapshot!("help", ours.unwrap_or("nothing"));
        }
        Ok(())
    });
}

#[test]
fn files_are_for_root_alone() {
    in_guest_briefly(|guest| {
        guest.must(&Backend::Nft.command("-A PROMISC -m traffic --traffic --net 10.0.0.0/8 --name t"))?;
        let mode = guest.must("stat -c '%a %u %g %F' /proc/net/xt_traffic/t")?;
        ensure!(mode == "440 0 0 regular empty file\n" || mode == "440 0 0 regular file\n", "{mode}");
        ensure!(guest.run("echo x >/proc/net/xt_traffic/t")?.status != 0, "it can be written");
        Ok(())
    });
}
