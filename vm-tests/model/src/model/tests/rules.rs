// SPDX-License-Identifier: GPL-2.0-only
//! Networks, `--nointernal`, and the parser of rules.

use super::*;

fn packets(rule: Rule, frames: &[Vec<u8>]) -> u64 {
    Expected::of(&rule, PORT, frames).packets
}

#[test]
fn internal_traffic() {
    let ipv4 = [(A, B), (A, FAR), (FAR, A), (FAR, [193, 0, 0, 1])].map(|(from, to)| Ip::new(from, to));
    let ipv6 = [(A6, B6), (A6, FAR6), (FAR6, A6), (FAR6, Ipv6Addr::LOCALHOST)].map(|(from, to)| Ip::new(from, to));
    for (internal, expected) in [(Internal::Count, 3), (Internal::Skip, 2), (Internal::Only, 1)] {
        for (ips, rule) in [(&ipv4, Rule::new(A, 8, internal)), (&ipv6, Rule::new(A6, 32, internal))] {
            let frames = ips.each_ref().map(|ip| mirrored(&ip.udp((1, 2), b"")));
            assert_eq!(packets(rule, &frames), expected, "{rule:?}");
        }
    }
}

#[test]
fn a_rule_counts_only_its_own_family() {
    let frames = [Ip::new(A, B), Ip::new(A6, B6)].map(|ip| mirrored(&ip.udp((1, 2), b"")));
    for rule in [Rule::ALL_IPV4, Rule::ALL_IPV6, inside(), inside6()] {
        assert_eq!(packets(rule, &frames), 1, "{rule:?}");
    }
    // An IPv4-mapped address is an IPv6 address.
    let mapped = Ip::new(Ipv4Addr::from(A).to_ipv6_mapped(), Ipv4Addr::from(B).to_ipv6_mapped());
    assert_eq!(packets(inside(), &[mirrored(&mapped.udp((1, 2), b""))]), 0);
}

#[test]
fn first_and_last_address_of_a_network() {
    for length in [32, 64, 127, 128] {
        let host = u128::MAX.checked_shr(length).unwrap_or(0);
        let [first, last] = [A6.to_bits() & !host, A6.to_bits() | host].map(Ipv6Addr::from_bits);
        let rule = Rule::new(first, length, Internal::Count);
        let neighbours = [first.to_bits() - 1, last.to_bits() + 1].map(Ipv6Addr::from_bits);
        for (address, inside) in [(first, true), (last, true), (neighbours[0], false), (neighbours[1], false)] {
            let seen = rule.counts_packet(address.into(), FAR6.into());
            assert_eq!(seen.is_some(), inside, "{address} in {first}/{length}");
        }
    }
}

#[test]
fn rules_are_parsed() {
    let parse = |command: &str| Rule::parse(command).unwrap();
    let rule = |command: &str| parse(command).unwrap();
    assert_eq!(parse("ip6tables -P PROMISC DROP"), None);
    assert_eq!(parse(""), None);
    assert_eq!(
        rule("-A PROMISC -m traffic --traffic --net 10.0.0.0/8 --name t"),
        ("t".to_owned(), Rule::new([10, 0, 0, 0], 8, Internal::Count))
    );
    let rsn = "iptables -A PROMISC -m traffic --traffic --portconn --ipconn --netmask 255.255.240.0 \
               --netbase 193.11.176.0 --nointernal --hashsize 16 --clearonread --name RSN";
    let network = Rule::new([193, 11, 176, 0], 20, Internal::Skip);
    assert_eq!(rule(rsn), ("RSN".to_owned(), network.with(&File::ALL)));
    assert_eq!(
        rule("ip6tables -A PROMISC -m traffic --portconn --net 2001:db8::/32 ! --nointernal --name six").1,
        Rule::new("2001:db8::".parse::<Ipv6Addr>().unwrap(), 32, Internal::Only).with(&[File::Portconn])
    );
    assert_eq!(rule("ip6tables -A PROMISC -m traffic --traffic --net ::/0 --name x").1, Rule::ALL_IPV6);
}

#[test]
fn prefixes_are_parsed() {
    let rule =
        |rest: &str| Rule::parse(&format!("-A PROMISC -m traffic --traffic --name t {rest}")).unwrap().unwrap().1;
    let network = Rule::new([10, 0, 0, 0], 8, Internal::Count);
    assert_eq!(rule("--prefix 24 --net 10.0.0.0/8"), network.with_prefix(24));
    assert_ne!(network.with_prefix(24), network);
    assert_eq!(rule("--net 10.0.0.0/8 --prefix 32"), network);
}

#[test]
fn a_row_is_the_network_of_an_address() {
    let row = |prefix| inside().with_prefix(prefix).row([10, 1, 2, 255].into()).to_string();
    assert_eq!([8, 16, 24, 31, 32].map(row), ["10.0.0.0", "10.1.0.0", "10.1.2.0", "10.1.2.254", "10.1.2.255"]);
    assert_eq!(Rule::ALL_IPV4.with_prefix(0).row(FAR.into()).to_string(), "0.0.0.0");
    let address: Ipv6Addr = "2001:db8:1:2:3:4:5:6".parse().unwrap();
    let row = |prefix| inside6().with_prefix(prefix).row(address.into()).to_string();
    assert_eq!([32, 64, 128].map(row), ["2001:db8::", "2001:db8:1:2::", "2001:db8:1:2:3:4:5:6"]);
    assert_eq!(Rule::ALL_IPV6.with_prefix(0).row(address.into()).to_string(), "::");
}

#[test]
fn unsupported_rules_are_refused() {
    for rest in [
        "--traffic --net 10.0.0.0/8",
        "--traffic --name t",
        "--traffic --net 10.0.0.0/33 --name t",
        "--traffic --net 2001:db8::/32 --name t",
        "--traffic --net 10.0.0.0/8 --netbase 10.0.0.0 --name t",
        "--traffic --netmask 255.0.0.0 --net 10.0.0.0/8 --name t",
        "--traffic --netbase 10.0.0.0 --netmask ff00:: --name t",
        "--traffic --net 10.0.0.0/8 --name t -s 10.0.0.1",
        "--traffic --net 10.0.0.0/8 --name t -j ACCEPT",
        "--traffic --net 10.0.0.0/8 --name",
        "--traffic --net 10.0.0.0/8 --name t --prefix 7",
        "--traffic --net 10.0.0.0/8 --name t --prefix 33",
        "-m limit --traffic --net 10.0.0.0/8 --name t",
    ] {
        assert!(Rule::parse(&format!("-A PROMISC -m traffic {rest}")).is_err(), "{rest}");
    }
    assert!(Rule::parse("-A FORWARD -m traffic --traffic --net 10.0.0.0/8 --name t").is_err());
}
