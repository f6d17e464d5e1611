// SPDX-License-Identifier: GPL-2.0-only
//! Compares the control members that dpkg itself reads: lists of symbols, triggers, configuration files and
//! the like.

use std::collections::BTreeMap;

use super::{differing_lines, pairs};

/// The members that are not compared as texts: fields are compared one by one, scripts by what they do, and
/// checksums follow from the contents of files.
const FREE: [&str; 6] = ["control", "md5sums", "preinst", "postinst", "prerm", "postrm"];

/// Every difference between the members of our package and those of Debian's.
pub(super) fn differences(ours: &BTreeMap<String, String>, debian: &BTreeMap<String, String>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, ours, debian) in pairs(ours, debian).filter(|(name, ..)| !FREE.contains(name)) {
        match (ours, debian) {
            (Some(ours), Some(debian)) => found.extend(differing_lines(name, ours, debian)),
            (None, _) => found.push(format!("the control file {name} is missing")),
            (_, None) => found.push(format!("the control file {name} is not in Debian's package")),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::samples::{compare, debian, ours};

    #[test]
    fn a_wrong_control_file_is_told() {
        let symbols = debian().members["symbols"].clone();
        let cases = [
            ("symbols", Some(symbols.replace(" two@Base 1\n", "")), "symbols lacks Debian's \" two@Base 1\""),
            ("symbols", Some(format!("{symbols} three@Base 1\n")), "symbols has \" three@Base 1\""),
            (
                "symbols",
                Some(format!("{symbols} one@Base 1\n")),
                "symbols has Debian's lines, but in another order or number",
            ),
            ("triggers", None, "the control file triggers is missing"),
            ("conffiles", Some("/etc/ethertypes\n".into()), "the control file conffiles is not in Debian's"),
        ];
        for (name, change, told) in cases {
            let mut ours = ours();
            match change {
                Some(text) => ours.members.insert(name.into(), text),
                None => ours.members.remove(name),
            };
            let found = compare(ours, debian());
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            assert!(found[0].contains(told), "{found:?}");
        }
    }
}
