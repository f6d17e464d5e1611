// SPDX-License-Identifier: GPL-2.0-only
//! Compares what two packages install: paths, kinds, modes, owners and where links lead. Contents are what
//! a patch changes.

use std::collections::BTreeMap;

use super::{package::Entry, pairs};

/// Every difference between the files of our package and those of Debian's.
pub(super) fn differences(ours: &BTreeMap<String, Entry>, debian: &BTreeMap<String, Entry>) -> Vec<String> {
    let told = |(path, ours, debian): (&str, Option<&Entry>, Option<&Entry>)| match (ours, debian) {
        (Some(ours), Some(debian)) if ours == debian => None,
        (Some(ours), Some(debian)) => Some(format!("{path} is \"{ours}\", Debian's is \"{debian}\"")),
        (None, _) => Some(format!("{path} is missing")),
        (_, None) => Some(format!("{path} is not in Debian's package")),
    };
    pairs(ours, debian).filter_map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::samples::{compare, debian, entry, ours},
        *,
    };

    #[test]
    fn a_wrong_file_is_told() {
        let multi = "/usr/sbin/multi";
        let link = "/usr/sbin/iptables-nft";
        let cases: [(&str, Option<Entry>, &str); 7] = [
            (multi, None, "is missing"),
            (multi, Some(entry('-', 0o4755, None)), "is \"-4755 root(0)/root(0)\", Debian's is \"-0755"),
            (multi, Some(entry('d', 0o755, None)), "is \"d0755"),
            (multi, Some(Entry { owner: "daemon(1)/root(0)".into(), ..entry('-', 0o755, None) }), "daemon(1)"),
            (link, Some(entry('l', 0o777, Some("other"))), "-> other\", Debian's is"),
            (link, Some(entry('h', 0o777, Some("multi"))), "is \"h0777"),
            ("/usr/bin/multi", Some(entry('-', 0o755, None)), "is not in Debian's package"),
        ];
        for (path, change, told) in cases {
            let mut ours = ours();
            match change {
                Some(entry) => ours.files.insert(path.into(), entry),
                None => ours.files.remove(path),
            };
            let found = compare(ours, debian());
            assert_eq!(found.len(), 1, "{path}: {found:?}");
            assert!(found[0].starts_with(&format!("iptables: {path} ")) && found[0].contains(told), "{found:?}");
        }
    }
}
