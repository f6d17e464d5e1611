// SPDX-License-Identifier: GPL-2.0-only

//! The list of options, and the help text.
//!
//! The manual page, `libxt_traffic.8`, describes the options as well. The tests below check that
//! the list, the help text and the manual page agree.

use std::ffi::CStr;

/// The text that `iptables -m traffic -h` and `ip6tables -m traffic -h` print.
pub const HELP: &str = "\
traffic match options:
    --traffic              Count bytes per address (TCP, UDP, OTHER)
    --ipconn               Count connections per address
                           (TCP, UDP, ICMP, OTHER)
    --portconn             Count connections per port
                           (TCP, UDP, ICMP, OTHER)
    --net address/length   The network to account for
    --netbase address      Instead of --net: the network's first address
    --netmask mask         Instead of --net: the network's mask
    --prefix length        One row for each network of this length,
                           instead of one for each address
    --name name            Name of the table and of its files below
                           /proc/net/xt_traffic: 1 to 31 of A-Z a-z 0-9 _ -
    --hashsize number      Size of the hash, 1 to 16777216;
                           the default depends on the size of the network
    --clearonread          Clear the counts that a read returns
[!] --nointernal           Do not count traffic inside the network;
                           with !, count nothing else
";

/// The number of an option: its index in [`OPTIONS`], and its bit in [`crate::options::Given`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Id {
    Traffic,
    Ipconn,
    Portconn,
    Net,
    Netbase,
    Netmask,
    Prefix,
    Name,
    Hashsize,
    Clearonread,
    Nointernal,
}

/// An option.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub id: Id,
    /// The name without the dashes.
    pub name: &'static CStr,
    pub has_argument: bool,
    /// Whether `!` may precede the option.
    pub invert: bool,
}

const fn flag(id: Id, name: &'static CStr) -> Entry {
    Entry { id, name, has_argument: false, invert: false }
}

const fn value(id: Id, name: &'static CStr) -> Entry {
    Entry { has_argument: true, ..flag(id, name) }
}

/// All options, in the order of the help text.
pub const OPTIONS: [Entry; 11] = [
    flag(Id::Traffic, c"traffic"),
    flag(Id::Ipconn, c"ipconn"),
    flag(Id::Portconn, c"portconn"),
    value(Id::Net, c"net"),
    value(Id::Netbase, c"netbase"),
    value(Id::Netmask, c"netmask"),
    value(Id::Prefix, c"prefix"),
    value(Id::Name, c"name"),
    value(Id::Hashsize, c"hashsize"),
    flag(Id::Clearonread, c"clearonread"),
    Entry { invert: true, ..flag(Id::Nointernal, c"nointernal") },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi;
    use std::collections::BTreeSet;

    const MAN: &str = include_str!("../libxt_traffic.8");

    /// An option as the help text or the manual page describes it.
    #[derive(Debug, PartialEq)]
    struct Described {
        invert: bool,
        name: String,
        argument: Option<String>,
        meaning: String,
    }

    impl Described {
        /// Parses a synopsis of the form `[!] --name argument`.
        fn new(synopsis: &str, meaning: String) -> Self {
            let (invert, rest) = match synopsis.trim().strip_prefix("[!] ") {
                Some(rest) => (true, rest),
                None => (false, synopsis.trim()),
            };
            let mut words = rest.split(' ');
            let name = words.next().and_then(|word| word.strip_prefix("--"));
            let name = name.unwrap_or_else(|| panic!("not an option: {synopsis}")).to_owned();
            let argument = words.next().map(str::to_owned);
            assert_eq!(words.next(), None, "{synopsis}");
            Self { invert, name, argument, meaning }
        }
    }

    /// The options of the help text. The meaning begins in column 27, and so do its further lines.
    fn in_help() -> Vec<Described> {
        const COLUMN: usize = 27;
        let mut found: Vec<(String, String)> = Vec::new();
        for line in HELP.lines().skip(1) {
            let (left, right) = line.split_at(COLUMN);
            match left.trim() {
                "" => {
                    let (_, meaning) = found.last_mut().unwrap();
                    *meaning += &format!(" {right}");
                }
                synopsis => found.push((synopsis.to_owned(), right.to_owned())),
            }
        }
        found.iter().map(|(synopsis, meaning)| Described::new(synopsis, meaning.clone())).collect()
    }

    /// The lines of a section of the manual page, without escapes for fonts and dashes.
    fn section(title: &str) -> Vec<String> {
        let lines = MAN.lines().skip_while(|line| *line != format!(".SH {title}"));
        let text = lines.skip(1).take_while(|line| !line.starts_with(".SH"));
        let plain =
            |line: &str| ["\\fB", "\\fI", "\\fP"].iter().fold(line.replace("\\-", "-"), |l, e| l.replace(e, ""));
        text.map(plain).collect()
    }

    /// The options of the manual page. Each has a `.TP`, then the option, then its meaning.
    fn in_manual() -> Vec<Described> {
        let lines = section("OPTIONS");
        assert!(!lines.is_empty(), "the manual page has no section OPTIONS");
        let entries = lines.split(|line| line == ".TP").skip(1);
        entries.map(|entry| Described::new(&entry[0], entry[1..].join(" "))).collect()
    }

    fn names(options: &[Described]) -> Vec<&str> {
        options.iter().map(|option| option.name.as_str()).collect()
    }

    #[test]
    fn numbers_are_indexes() {
        for (index, option) in OPTIONS.iter().enumerate() {
            assert_eq!(option.id as usize, index, "{option:?}");
        }
    }

    #[test]
    fn help_and_manual_list_the_options() {
        let all: Vec<&str> = OPTIONS.iter().map(|option| option.name.to_str().unwrap()).collect();
        let (help, manual) = (in_help(), in_manual());
        assert_eq!(names(&help), all, "the help and the options");
        assert_eq!(names(&manual), all, "the manual page and the options");
        for ((option, help), manual) in OPTIONS.iter().zip(&help).zip(&manual) {
            assert_eq!((help.invert, help.argument.is_some()), (option.invert, option.has_argument), "{help:?}");
            assert_eq!((manual.invert, &manual.argument), (help.invert, &help.argument), "{manual:?}");
        }
    }

    #[test]
    fn help_and_manual_have_the_same_text() {
        for (help, manual) in in_help().iter().zip(&in_manual()) {
            let text = format!("{}.", help.meaning);
            assert!(manual.meaning.starts_with(&text), "the help has\n{text}\nthe manual\n{}", manual.meaning);
        }
    }

    #[test]
    fn synopsis_has_every_option() {
        assert_eq!(options_in(&section("SYNOPSIS").join(" ")), all_but(&[]));
    }

    /// The names after two dashes in a text.
    fn options_in(text: &str) -> BTreeSet<String> {
        let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '-');
        words.filter_map(|word| word.strip_prefix("--")).map(str::to_owned).collect()
    }

    fn all_but(names: &[&str]) -> BTreeSet<String> {
        let all = OPTIONS.iter().map(|option| option.name.to_str().unwrap());
        all.filter(|name| !names.contains(name)).map(str::to_owned).collect()
    }

    /// The text between two others.
    fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
        let (_, rest) = text.split_once(begin).unwrap_or_else(|| panic!("no text {begin}"));
        rest.split_once(end).unwrap_or_else(|| panic!("no text {end} after {begin}")).0
    }

    #[test]
    fn readme_and_reference_list_the_options() {
        for text in [include_str!("../../README.md"), include_str!("../../docs/reference.md")] {
            assert_eq!(options_in(between(text, "| option | meaning |\n| --- | --- |\n", "\n\n")), all_but(&[]));
        }
    }

    /// In the service's configuration the name and the network have no dashes.
    #[test]
    fn the_service_knows_every_option() {
        let script = include_str!("../../xtask/deb/xt-traffic/root/usr/share/xt-traffic/configuration.sh");
        let read_table = between(script, "\nread_table() {", "\n}\n");
        assert_eq!(
            options_in(between(read_table, "case $1 in", "esac")),
            all_but(&["net", "netbase", "netmask", "name"])
        );
        let manual = include_str!("../../xtask/deb/xt-traffic/root/usr/share/man/man5/xt-traffic.conf.5");
        let table = between(manual, "\\fBtable\\fP", ".TP").replace("\\-", "-");
        assert_eq!(options_in(&table), all_but(&["net", "netbase", "netmask", "name"]));
    }

    #[test]
    fn help_has_the_limits_of_the_abi() {
        assert!(HELP.contains(&format!("1 to {};", abi::MAX_HASH_SIZE)), "the largest hash size");
        assert!(HELP.contains(&format!("1 to {} of", abi::NAME_SIZE - 1)), "the longest name");
    }

    #[test]
    fn help_fits_80_columns() {
        assert!(HELP.lines().all(|line| line.len() < 80));
    }
}
