// SPDX-License-Identifier: GPL-2.0-only

//! Converts the options of a rule from text to parameters and back.

use crate::{
    abi::{self, XtTrafficMtinfo},
    address::{Family, is_contiguous, mask_of},
    catalogue::{Id, OPTIONS},
};
use std::fmt;

/// The reason why an option is refused, which says what is valid.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid(String);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn invalid<T>(why: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(why.into()))
}

/// A kind of address, with the texts for its error message.
struct AddressKind {
    /// The name of the kind in messages.
    what: &'static str,
    ipv4_example: &'static str,
    ipv6_example: &'static str,
}

const NETWORK: AddressKind =
    AddressKind { what: "network", ipv4_example: "193.11.176.0/20", ipv6_example: "2001:db8::/32" };
const ADDRESS: AddressKind = AddressKind { what: "address", ipv4_example: "193.11.176.0", ipv6_example: "2001:db8::" };
const MASK: AddressKind = AddressKind { what: "mask", ipv4_example: "255.255.240.0", ipv6_example: "ffff:ffff::" };

impl AddressKind {
    fn example(&self, family: Family) -> &'static str {
        match family {
            Family::Ipv4 => self.ipv4_example,
            Family::Ipv6 => self.ipv6_example,
        }
    }

    /// The error for a text that is not valid. If `address` is an address of the other family, the
    /// error names the program for that family.
    fn error(&self, family: Family, address: &str) -> Invalid {
        let (name, what, example) = (family.name(), self.what, self.example(family));
        let other = family.other();
        let hint = match other.parse(address) {
            Some(_) => format!("; for {} use {}", other.name(), other.program()),
            None => String::new(),
        };
        Invalid(format!("an {name} {what} is required, like {example}{hint}"))
    }

    fn parse(&self, family: Family, text: &str) -> Result<u128, Invalid> {
        family.parse(text).ok_or_else(|| self.error(family, text))
    }
}

/// Parses a number that consists of decimal digits only; `parse` would also accept a sign.
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// The set of options that were given, with one bit for each [`Id`]. libxtables collects them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given(pub u32);

impl Given {
    fn has(self, id: Id) -> bool {
        self.0 & (1 << id as u32) != 0
    }
}

/// The first option of each pair requires the second.
const REQUIRED_PAIRS: [(Id, Id); 2] = [(Id::Netbase, Id::Netmask), (Id::Netmask, Id::Netbase)];
/// The options of each pair exclude each other.
const EXCLUSIVE_PAIRS: [(Id, Id); 2] = [(Id::Net, Id::Netbase), (Id::Net, Id::Netmask)];

/// The name of an option in messages.
fn quoted(id: Id) -> String {
    format!("\"--{}\"", OPTIONS[id as usize].name.to_string_lossy())
}

impl XtTrafficMtinfo {
    /// Sets the parameter of one option on the command line. `inverted` means that `!` precedes it.
    pub fn set(&mut self, family: Family, id: Id, inverted: bool, value: &str) -> Result<(), Invalid> {
        match id {
            Id::Traffic => self.count |= abi::COUNT_TRAFFIC,
            Id::Ipconn => self.count |= abi::COUNT_IPCONN,
            Id::Portconn => self.count |= abi::COUNT_PORTCONN,
            Id::Net => self.set_net(family, value)?,
            Id::Netbase => self.netbase = ADDRESS.parse(family, value)?.to_be_bytes(),
            Id::Netmask => self.set_netmask(family, value)?,
            Id::Prefix => self.set_prefix(family, value)?,
            Id::Name => self.set_name(value)?,
            Id::Hashsize => self.set_hash_size(value)?,
            Id::Clearonread => self.clear_on_read = 1,
            Id::Nointernal if inverted => self.internal = abi::INTERNAL_ONLY,
            Id::Nointernal => self.internal = abi::INTERNAL_EXCLUDE,
        }
        Ok(())
    }

    fn set_net(&mut self, family: Family, text: &str) -> Result<(), Invalid> {
        let (address, length) = text.split_once('/').unwrap_or((text, ""));
        let base = NETWORK.parse(family, address)?;
        let length = number(length).filter(|length| *length <= family.width());
        let mask = mask_of(length.ok_or_else(|| NETWORK.error(family, ""))?);
        self.netbase = base.to_be_bytes();
        self.netmask = mask.to_be_bytes();
        self.check_base(family)
    }

    fn set_netmask(&mut self, family: Family, text: &str) -> Result<(), Invalid> {
        let mask = MASK.parse(family, text)?;
        if !is_contiguous(mask) {
            return invalid(format!("a contiguous mask is required, like {}", MASK.example(family)));
        }
        self.netmask = mask.to_be_bytes();
        Ok(())
    }

    /// The length of the addresses is the default. It is stored as if the option were not given.
    fn set_prefix(&mut self, family: Family, text: &str) -> Result<(), Invalid> {
        match number(text).and_then(|length| family.width().checked_sub(length)) {
            Some(bits) => {
                self.shared_bits = bits as u8;
                Ok(())
            }
            None => invalid(format!("a number from 0 to {} is required", family.width())),
        }
    }

    fn set_name(&mut self, text: &str) -> Result<(), Invalid> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        // One byte is for the closing NUL.
        let fits = (1..abi::NAME_SIZE).contains(&text.len());
        if !fits || !text.bytes().all(allowed) {
            return invalid("1 to 31 of the characters A-Z a-z 0-9 _ - are required");
        }
        self.name = [0; abi::NAME_SIZE];
        self.name[..text.len()].copy_from_slice(text.as_bytes());
        Ok(())
    }

    fn set_hash_size(&mut self, text: &str) -> Result<(), Invalid> {
        match number(text) {
            Some(size @ 1..=abi::MAX_HASH_SIZE) => {
                self.hash_size = size;
                Ok(())
            }
            _ => invalid(format!("a number from 1 to {} is required", abi::MAX_HASH_SIZE)),
        }
    }

    /// Checks the options together, after all of them are set.
    ///
    /// libxtables could check some of this, but its messages take two lines.
    pub fn check(&self, family: Family, given: Given) -> Result<(), Invalid> {
        if !given.has(Id::Name) {
            return invalid("option \"--name\" must be specified");
        }
        if ![Id::Traffic, Id::Ipconn, Id::Portconn].into_iter().any(|id| given.has(id)) {
            return invalid(
                "at least one of the options \"--traffic\", \"--ipconn\" and \"--portconn\" must be specified",
            );
        }
        check_network_options(given)?;
        if let Err(why) = self.check_base(family) {
            return invalid(format!("bad value for option \"--netbase\" with this \"--netmask\": {why}"));
        }
        let (shortest, longest) = (self.network().1.count_ones(), family.width());
        if u32::from(self.shared_bits) + shortest > longest {
            return invalid(format!(
                "bad value for option \"--prefix\" with this network: \
                 a number from {shortest} to {longest} is required"
            ));
        }
        Ok(())
    }

    /// Checks that a module with `revision`, the newest that both know, has the options in use.
    pub fn check_revision(&self, revision: u8) -> Result<(), Invalid> {
        if revision < abi::PREFIX_REVISION && self.shared_bits != 0 {
            return invalid("option \"--prefix\" requires a newer kernel module xt_traffic");
        }
        Ok(())
    }

    fn network(&self) -> (u128, u128) {
        (u128::from_be_bytes(self.netbase), u128::from_be_bytes(self.netmask))
    }

    fn check_base(&self, family: Family) -> Result<(), Invalid> {
        let (base, mask) = self.network();
        if base & !mask != 0 {
            let network = family.address(base & mask);
            let length = mask.count_ones();
            return invalid(format!("host bits are set; the network is {network}/{length}"));
        }
        Ok(())
    }

    /// The options of this rule, in the order of the help text. A space precedes each of them.
    pub fn to_options(&self, family: Family) -> String {
        let mut text = String::new();
        for (bit, option) in
            [(abi::COUNT_TRAFFIC, " --traffic"), (abi::COUNT_IPCONN, " --ipconn"), (abi::COUNT_PORTCONN, " --portconn")]
        {
            if self.count & bit != 0 {
                text += option;
            }
        }
        let (base, mask) = self.network();
        text += &format!(" --net {}/{}", family.address(base), mask.count_ones());
        if self.shared_bits != 0 {
            text += &format!(" --prefix {}", family.width().saturating_sub(self.shared_bits.into()));
        }
        let name = self.name.split(|byte| *byte == 0).next().unwrap_or_default();
        text += &format!(" --name {}", String::from_utf8_lossy(name));
        if self.hash_size != 0 {
            text += &format!(" --hashsize {}", self.hash_size);
        }
        if self.clear_on_read != 0 {
            text += " --clearonread";
        }
        text += match self.internal {
            abi::INTERNAL_EXCLUDE => " --nointernal",
            abi::INTERNAL_ONLY => " ! --nointernal",
            _ => "",
        };
        text
    }
}

/// Checks that a network is given, and only once.
fn check_network_options(given: Given) -> Result<(), Invalid> {
    for (one, other) in EXCLUSIVE_PAIRS {
        if given.has(one) && given.has(other) {
            return invalid(format!("option {} cannot be used together with {}", quoted(one), quoted(other)));
        }
    }
    for (one, other) in REQUIRED_PAIRS {
        if given.has(one) && !given.has(other) {
            return invalid(format!("option {} also requires {}", quoted(one), quoted(other)));
        }
    }
    if !given.has(Id::Net) && !given.has(Id::Netbase) {
        return invalid("option \"--net\", or \"--netbase\" and \"--netmask\", must be specified");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    fn empty() -> XtTrafficMtinfo {
        XtTrafficMtinfo {
            netbase: [0; 16],
            netmask: [0; 16],
            name: [0; abi::NAME_SIZE],
            count: 0,
            internal: abi::INTERNAL_ANY,
            clear_on_read: 0,
            shared_bits: 0,
            hash_size: 0,
        }
    }

    /// Parses the options of a command line in the same way as libxtables.
    fn parse(family: Family, line: &str) -> Result<XtTrafficMtinfo, Invalid> {
        let (mut info, mut given, mut inverted) = (empty(), Given::default(), false);
        let mut words = line.split_whitespace();
        while let Some(word) = words.next() {
            if word == "!" {
                inverted = true;
                continue;
            }
            let name = word.strip_prefix("--").unwrap();
            let option = OPTIONS.iter().find(|option| option.name.to_str() == Ok(name)).unwrap();
            let value = if option.has_argument { words.next().unwrap() } else { "" };
            info.set(family, option.id, inverted, value)?;
            given.0 |= 1 << option.id as u32;
            inverted = false;
        }
        info.check(family, given)?;
        Ok(info)
    }

    /// The error for one option with a bad value.
    fn refused(family: Family, id: Id, value: &str) -> String {
        let mut info = empty();
        match info.set(family, id, false, value) {
            Ok(()) => panic!("{id:?} accepts {value:?}"),
            Err(why) => why.to_string(),
        }
    }

    #[test]
    fn options_print_in_the_order_of_the_help() {
        let line =
            "--traffic --portconn --ipconn --netmask 255.255.240.0 --netbase 193.11.176.0 --nointernal --name RSN";
        let info = parse(Family::Ipv4, line).unwrap();
        let printed = " --traffic --ipconn --portconn --net 193.11.176.0/20 --name RSN --nointernal";
        assert_eq!(info.to_options(Family::Ipv4), printed);
    }

    /// Every combination of options prints in one order, and the printed options give the same
    /// parameters.
    #[test]
    fn a_rule_prints_as_its_options() {
        for (family, net, prefix) in
            [(Family::Ipv4, "193.11.176.0/20", " --prefix 24"), (Family::Ipv6, "2001:db8::/32", " --prefix 64")]
        {
            for choice in 0..1 << 6 {
                for internal in ["", " --nointernal", " ! --nointernal"] {
                    let chosen = |bit: u32, option| if choice & (1 << bit) != 0 { option } else { "" };
                    let counts = [chosen(0, " --traffic"), chosen(1, " --ipconn"), chosen(2, " --portconn")].concat();
                    if counts.is_empty() {
                        continue;
                    }
                    let rest = [chosen(3, " --hashsize 4096"), chosen(4, " --clearonread")].concat();
                    let prefix = chosen(5, prefix);
                    let options = format!("{counts} --net {net}{prefix} --name t{rest}{internal}");
                    let info = parse(family, &options).unwrap();
                    assert_eq!(info.to_options(family), options);
                    let mixed = format!("{internal}{rest} --name t{prefix} --net {net}{counts}");
                    assert_eq!(parse(family, &mixed).unwrap(), info);
                }
            }
        }
    }

    #[test]
    fn options_set_their_fields() {
        let rule = "--ipconn --net 2001:db8::/32 --prefix 56 --name x --hashsize 16777216 --clearonread ! --nointernal";
        let info = parse(Family::Ipv6, rule).unwrap();
        let mut expected = empty();
        expected.count = abi::COUNT_IPCONN;
        expected.netbase[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        expected.netmask[..4].copy_from_slice(&[0xff; 4]);
        expected.shared_bits = 72;
        expected.name[0] = b'x';
        expected.hash_size = abi::MAX_HASH_SIZE;
        expected.clear_on_read = 1;
        expected.internal = abi::INTERNAL_ONLY;
        assert_eq!(info, expected);
    }

    #[test]
    fn both_forms_of_a_network_give_the_same_parameters() {
        for (family, address) in [(Family::Ipv4, "192.168.255.255"), (Family::Ipv6, "2001:db8:ffff::ffff")] {
            let address = family.parse(address).unwrap();
            for length in 0..=family.width() {
                let mask = mask_of(length);
                let base = family.address(address & mask);
                let cidr = parse(family, &format!("--traffic --name t --net {base}/{length}")).unwrap();
                let mask = family.address(mask);
                let pair = parse(family, &format!("--traffic --name t --netbase {base} --netmask {mask}")).unwrap();
                assert_eq!(cidr, pair);
                assert_eq!(cidr.to_options(family), format!(" --traffic --net {base}/{length} --name t"));
            }
        }
    }

    #[test]
    fn ipv6_networks_print_in_one_form() {
        for (given, printed) in [
            ("2001:0DB8:0:0::/32", "2001:db8::/32"),
            ("0:0:0:0:0:0:0:0/0", "::/0"),
            ("::1/128", "::1/128"),
            ("2001:db8:0:1:0:0:0:0/064", "2001:db8:0:1::/64"),
            ("::ffff:10.0.0.0/104", "::ffff:10.0.0.0/104"),
        ] {
            let info = parse(Family::Ipv6, &format!("--traffic --name t --net {given}")).unwrap();
            assert!(info.to_options(Family::Ipv6).contains(&format!(" --net {printed} ")), "{given}");
        }
    }

    #[test]
    fn bad_networks_are_refused() {
        let ipv4 = ["", "/", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0/8"];
        for text in ipv4.into_iter().chain(["10.0.0.0/8/8", " 10.0.0.0/8", "a/8", "10.0.0.0/255.0.0.0"]) {
            assert_eq!(
                refused(Family::Ipv4, Id::Net, text),
                "an IPv4 network is required, like 193.11.176.0/20",
                "{text}"
            );
        }
        let ipv6 = ["", "/", "2001:db8::", "2001:db8::/", "::/129", "::/-1", "::/+8", "::/8/8", "::/ffff::", ":::/0"];
        for text in ipv6.into_iter().chain(["fe80::%eth0/64", "[::]/0", "::/4294967297", "a/8"]) {
            assert_eq!(
                refused(Family::Ipv6, Id::Net, text),
                "an IPv6 network is required, like 2001:db8::/32",
                "{text}"
            );
        }
    }

    #[test]
    fn host_bits_are_refused() {
        for (family, base, mask, length, network) in [
            (Family::Ipv4, "193.11.177.9", "255.255.240.0", 20, "193.11.176.0/20"),
            (Family::Ipv4, "0.0.0.1", "0.0.0.0", 0, "0.0.0.0/0"),
            (Family::Ipv6, "2001:db8::1", "ffff:ffff::", 32, "2001:db8::/32"),
            (Family::Ipv6, "8000::", "::", 0, "::/0"),
        ] {
            let why = format!("host bits are set; the network is {network}");
            assert_eq!(refused(family, Id::Net, &format!("{base}/{length}")), why);
            let rule = format!("--traffic --netbase {base} --netmask {mask} --name t");
            let error = parse(family, &rule).unwrap_err().to_string();
            assert_eq!(error, format!("bad value for option \"--netbase\" with this \"--netmask\": {why}"));
        }
    }

    #[test]
    fn bad_masks_and_bases_are_refused() {
        for text in ["255.0.255.0", "0.0.0.1", "0.255.255.255"] {
            let why = refused(Family::Ipv4, Id::Netmask, text);
            assert_eq!(why, "a contiguous mask is required, like 255.255.240.0");
        }
        for text in ["ffff::ffff", "::1", "7fff::", "ffff:ffff::ffff:0"] {
            let why = refused(Family::Ipv6, Id::Netmask, text);
            assert_eq!(why, "a contiguous mask is required, like ffff:ffff::");
        }
        for text in ["20", "/20", "", "255.255.255.256"] {
            assert_eq!(refused(Family::Ipv4, Id::Netmask, text), "an IPv4 mask is required, like 255.255.240.0");
        }
        for text in ["32", "/32", "", "ffff:ffff"] {
            assert_eq!(refused(Family::Ipv6, Id::Netmask, text), "an IPv6 mask is required, like ffff:ffff::");
        }
        for text in ["10", "10.0.0.0/8", "", "host"] {
            assert_eq!(refused(Family::Ipv4, Id::Netbase, text), "an IPv4 address is required, like 193.11.176.0");
        }
        for text in ["2001", "2001:db8::/32", "", "host"] {
            assert_eq!(refused(Family::Ipv6, Id::Netbase, text), "an IPv6 address is required, like 2001:db8::");
        }
    }

    #[test]
    fn addresses_of_the_other_family_are_refused() {
        for (family, id, text, why) in [
            (
                Family::Ipv4,
                Id::Net,
                "2001:db8::/32",
                "network is required, like 193.11.176.0/20; for IPv6 use ip6tables",
            ),
            (Family::Ipv4, Id::Netbase, "::", "address is required, like 193.11.176.0; for IPv6 use ip6tables"),
            (Family::Ipv4, Id::Netmask, "ffff::", "mask is required, like 255.255.240.0; for IPv6 use ip6tables"),
            (Family::Ipv6, Id::Net, "10.0.0.0/8", "network is required, like 2001:db8::/32; for IPv4 use iptables"),
            (Family::Ipv6, Id::Netbase, "10.0.0.0", "address is required, like 2001:db8::; for IPv4 use iptables"),
            (Family::Ipv6, Id::Netmask, "255.0.0.0", "mask is required, like ffff:ffff::; for IPv4 use iptables"),
        ] {
            assert_eq!(refused(family, id, text), format!("an {} {why}", family.name()));
        }
    }

    #[test]
    fn names_have_1_to_31_valid_characters() {
        for good in ["a", "RSN", "A-z_09", "-", &"x".repeat(31)] {
            let info = parse(Family::Ipv4, &format!("--traffic --net 10.0.0.0/8 --name {good}")).unwrap();
            assert!(info.to_options(Family::Ipv4).ends_with(&format!(" --name {good}")));
        }
        for bad in ["", "a b", "a/b", ".", "..", "a.ipconn", "\u{e4}", "\u{fffd}", "a\n", &"x".repeat(32)] {
            let why = refused(Family::Ipv4, Id::Name, bad);
            assert_eq!(why, "1 to 31 of the characters A-Z a-z 0-9 _ - are required");
        }
    }

    #[test]
    fn prefixes_have_at_least_the_length_of_the_network() {
        for (family, address, net) in [(Family::Ipv4, "10.0.0.0", 8), (Family::Ipv6, "2001:db8::", 32)] {
            for (net, address) in [(0, if net == 8 { "0.0.0.0" } else { "::" }), (net, address)] {
                let rule = |length: u32| format!("--traffic --prefix {length} --net {address}/{net} --name t");
                for length in net..family.width() {
                    let info = parse(family, &rule(length)).unwrap();
                    assert_eq!(u32::from(info.shared_bits), family.width() - length);
                    let printed = format!(" --traffic --net {address}/{net} --prefix {length} --name t");
                    assert_eq!(info.to_options(family), printed);
                }
                for length in 0..net {
                    let why = format!("with this network: a number from {net} to {} is required", family.width());
                    let error = parse(family, &rule(length)).unwrap_err().to_string();
                    assert_eq!(error, format!("bad value for option \"--prefix\" {why}"));
                }
            }
        }
    }

    #[test]
    fn a_prefix_as_long_as_an_address_is_the_default() {
        for (family, length) in FAMILIES.into_iter().zip([32, 128]) {
            let rule = format!("--traffic --net {} --name t", NETWORK.example(family));
            let without = parse(family, &rule).unwrap();
            assert_eq!(parse(family, &format!("{rule} --prefix {length}")).unwrap(), without);
        }
    }

    #[test]
    fn prefixes_are_decimal_numbers_in_range() {
        for (family, longest) in FAMILIES.into_iter().zip([32, 128]) {
            let too_long = (longest + 1).to_string();
            let bad = ["", "-1", "+1", "0x10", " 24", "24 ", "24.0", "/24", "255.255.255.0", "4294967296", "long"];
            for text in bad.into_iter().chain([too_long.as_str(), "256", "288"]) {
                let why = refused(family, Id::Prefix, text);
                assert_eq!(why, format!("a number from 0 to {longest} is required"), "{text}");
            }
        }
        let info = parse(Family::Ipv4, "--traffic --net 10.0.0.0/8 --name t --prefix 024").unwrap();
        assert!(info.to_options(Family::Ipv4).contains(" --prefix 24 "));
    }

    #[test]
    fn an_old_module_gets_no_prefix() {
        let info = |prefix| parse(Family::Ipv4, &format!("--traffic --net 10.0.0.0/8 --name t {prefix}")).unwrap();
        let error = info("--prefix 24").check_revision(0).unwrap_err().to_string();
        assert_eq!(error, "option \"--prefix\" requires a newer kernel module xt_traffic");
        assert_eq!(info("--prefix 24").check_revision(1), Ok(()));
        for revision in abi::REVISIONS {
            assert_eq!(info("").check_revision(revision), Ok(()));
            assert_eq!(info("--prefix 32").check_revision(revision), Ok(()));
        }
    }

    #[test]
    fn hash_sizes_are_decimal_numbers_in_range() {
        for (good, printed) in [("1", 1), ("7", 7), ("0010", 10), ("65536", 65536), ("16777216", 1 << 24)] {
            let info = parse(Family::Ipv4, &format!("--traffic --net 10.0.0.0/8 --name t --hashsize {good}")).unwrap();
            assert_eq!(info.hash_size, printed);
            assert!(info.to_options(Family::Ipv4).ends_with(&format!(" --hashsize {printed}")));
        }
        let bad = ["", "0", "00", "16777217", "4294967296", "4294967297", "99999999999999999999"];
        for bad in bad.into_iter().chain(["-1", "+1", "0x10", "1k", " 1", "1 ", "1.0", "many", "\u{0661}"]) {
            let why = refused(Family::Ipv4, Id::Hashsize, bad);
            assert_eq!(why, "a number from 1 to 16777216 is required", "{bad}");
        }
    }

    #[test]
    fn missing_and_conflicting_options_are_refused() {
        for (rule, why) in [
            ("", "option \"--name\" must be specified"),
            ("--traffic --net NET", "option \"--name\" must be specified"),
            (
                "--net NET --name t --clearonread --nointernal --hashsize 1",
                "at least one of the options \"--traffic\", \"--ipconn\" and \"--portconn\" must be specified",
            ),
            ("--ipconn --name t", "option \"--net\", or \"--netbase\" and \"--netmask\", must be specified"),
            ("--portconn --netbase BASE --name t", "option \"--netbase\" also requires \"--netmask\""),
            ("--traffic --netmask MASK --name t", "option \"--netmask\" also requires \"--netbase\""),
            (
                "--traffic --net NET --netbase BASE --name t",
                "option \"--net\" cannot be used together with \"--netbase\"",
            ),
            (
                "--traffic --netmask MASK --net NET --name t",
                "option \"--net\" cannot be used together with \"--netmask\"",
            ),
        ] {
            for family in FAMILIES {
                let rule = rule.replace("NET", NETWORK.example(family));
                let rule = rule.replace("BASE", ADDRESS.example(family)).replace("MASK", MASK.example(family));
                assert_eq!(parse(family, &rule).unwrap_err().to_string(), why, "{rule}");
            }
        }
    }

    #[test]
    fn invalid_parameters_from_the_kernel_can_be_printed() {
        let mut info = empty();
        info.netbase = [0xff; 16];
        info.netmask = [0xa5; 16];
        info.name = [0xff; abi::NAME_SIZE];
        info.internal = 9;
        info.shared_bits = u8::MAX;
        for family in FAMILIES {
            assert!(info.to_options(family).starts_with(" --net "));
        }
    }
}
