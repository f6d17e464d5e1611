// SPDX-License-Identifier: GPL-2.0-only
//! Compares control fields, and those that name other packages relation by relation.

use std::collections::BTreeSet;

use super::{package::Package, pairs};

/// The fields that may differ freely.
const FREE: [&str; 3] = ["Installed-Size", "Maintainer", "Original-Maintainer"];
/// What packages depend on that need the chain, and so the one thing that we provide and Debian does not.
const PROMISC: &str = "iptables-promisc";
/// The fields that name other packages.
const RELATIONS: [&str; 9] =
    ["Breaks", "Conflicts", "Depends", "Enhances", "Pre-Depends", "Provides", "Recommends", "Replaces", "Suggests"];

/// Every difference between the fields of our package and those of Debian's; `family` are the names of all
/// packages of the source.
pub(super) fn differences(ours: &Package, debian: &Package, family: &BTreeSet<&str>) -> Vec<String> {
    let comparison = Comparison { ours, debian, family };
    let show = |value: Option<&String>| value.map_or("not there".to_owned(), |value| format!("\"{value}\""));
    pairs(&ours.fields, &debian.fields)
        .filter(|(name, ours, debian)| !FREE.contains(name) && !comparison.is_same_field(name, *ours, *debian))
        .map(|(name, ours, debian)| format!("the field {name} is {}, Debian's is {}", show(ours), show(debian)))
        .collect()
}

/// Our package and Debian's of the same name.
struct Comparison<'a> {
    ours: &'a Package,
    debian: &'a Package,
    /// The names of all packages of the source.
    family: &'a BTreeSet<&'a str>,
}

impl Comparison<'_> {
    fn is_same_field(&self, name: &str, ours: Option<&String>, debian: Option<&String>) -> bool {
        let (Some(ours), Some(debian)) = (ours, debian) else {
            return name == "Provides" && debian.is_none() && ours.is_some_and(|ours| ours == PROMISC);
        };
        match name {
            // Newer than Debian's, and older than what Debian makes next of the same release.
            "Version" => ours.strip_prefix(debian.as_str()).is_some_and(|rest| rest.starts_with("+")),
            // The long description may say what sets ours apart.
            "Description" => ours.lines().next() == debian.lines().next(),
            _ if RELATIONS.contains(&name) => self.are_same_relations(ours, debian),
            _ => ours == debian,
        }
    }

    fn are_same_relations(&self, ours: &str, debian: &str) -> bool {
        alike(&relations(ours), &relations(debian), |ours, debian| {
            alike(ours, debian, |our, their| self.is_same_relation(our, their))
        })
    }

    fn is_same_relation(&self, ours: &Relation<'_>, debian: &Relation<'_>) -> bool {
        if (ours.name, ours.operator) != (debian.name, debian.operator) {
            return false;
        }
        let is_family = self.family.contains(debian.name);
        if is_family && debian.version == self.debian.field("Version") {
            return ours.version == self.ours.field("Version");
        }
        // The least version of a library is computed from the symbols that a build uses.
        let is_computed = !is_family && debian.name.starts_with("lib") && debian.operator == ">=";
        is_computed || ours.version == debian.version
    }
}

/// Whether both are of one length, and `same` holds for each pair.
fn alike<T>(ours: &[T], debian: &[T], same: impl Fn(&T, &T) -> bool) -> bool {
    ours.len() == debian.len() && ours.iter().zip(debian).all(|(our, their)| same(our, their))
}

/// One package that a field names.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Relation<'a> {
    /// Its name, with the architecture if there is one.
    name: &'a str,
    operator: &'a str,
    version: &'a str,
}

/// The relations of a field, in order of names: one vector for each that must hold, with its alternatives.
fn relations(field: &str) -> Vec<Vec<Relation<'_>>> {
    let one = |text| {
        let (name, bound) = str::trim(text).split_once(" (").unwrap_or((text.trim(), ""));
        let (operator, version) = bound.trim_end_matches(')').split_once(' ').unwrap_or((bound, ""));
        Relation { name, operator, version }
    };
    let clauses = field.split(',').filter(|clause| !clause.trim().is_empty());
    let mut all: Vec<Vec<_>> = clauses.map(|clause| clause.split('|').map(one).collect()).collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::super::samples::{compare, debian, ours};

    #[test]
    fn a_wrong_field_is_told() {
        let cases = [
            ("Version", Some("1.8.11-2")),
            ("Version", Some("1.8.12-1")),
            ("Version", Some("1.8.11-20+promisc3")),
            ("Architecture", Some("all")),
            ("Multi-Arch", None),
            ("Essential", Some("yes")),
            ("Provides", Some("nftables")),
            ("Description", Some("other tools\nLong and\n.\nwide.")),
            ("Breaks", Some("libip4tc2 (<< 1.8.11-2+promisc3)")),
            ("Breaks", None),
        ];
        for (name, value) in cases {
            let mut ours = ours();
            match value {
                Some(value) => ours.fields.insert(name.into(), value.into()),
                None => ours.fields.remove(name),
            };
            if let ("Version", Some(version)) = (name, value) {
                // Only the version itself is to be wrong.
                let depends = ours.fields["Depends"].replace("1.8.11-2+promisc3", version);
                ours.fields.insert("Depends".into(), depends);
            }
            let found = compare(ours, debian());
            assert_eq!(found.len(), 1, "{name} {value:?}: {found:?}");
            assert!(found[0].starts_with(&format!("iptables: the field {name} is ")), "{found:?}");
        }
    }

    #[test]
    fn dependencies_have_the_same_form() {
        let own = "libip4tc2 (= 1.8.11-2+promisc3)";
        let right = [
            format!("{own}, netbase (>= 6.0), libc6 (>= 2.41), a | b (<< 2)"),
            format!("libc6 (>= 2.38), a | b (<< 2), netbase (>= 6.0), {own}"),
        ];
        let wrong = [
            format!("{own}, netbase (>= 6.5), libc6 (>= 2.38), a | b (<< 2)"),
            format!("{own}, netbase, libc6 (>= 2.38), a | b (<< 2)"),
            format!("{own}, netbase (>= 6.0), libc6 (= 2.38), a | b (<< 2)"),
            format!("{own}, netbase (>= 6.0), libc6, a | b (<< 2)"),
            format!("{own}, netbase (>= 6.0), libc6 (>= 2.38), a"),
            format!("{own}, netbase (>= 6.0), libc6 (>= 2.38), a | b (<< 3)"),
            format!("{own}, netbase (>= 6.0), libc6 (>= 2.38)"),
            format!("{own}, netbase (>= 6.0), libc6 (>= 2.38), a | b (<< 2), c"),
            "libip4tc2 (= 1.8.11-2), netbase (>= 6.0), libc6 (>= 2.38), a | b (<< 2)".into(),
            "libip4tc2 (= 1.8.11-2+promisc2), netbase (>= 6.0), libc6 (>= 2.38), a | b (<< 2)".into(),
            "libip4tc2 (>= 1.8.11-2+promisc3), netbase (>= 6.0), libc6 (>= 2.38), a | b (<< 2)".into(),
        ];
        let found = |depends: &String| {
            let mut ours = ours();
            ours.fields.insert("Depends".into(), depends.clone());
            compare(ours, debian())
        };
        for depends in &right {
            assert_eq!(found(depends), Vec::<String>::new(), "{depends}");
        }
        for depends in &wrong {
            let found = found(depends);
            assert_eq!(found.len(), 1, "{depends}: {found:?}");
            assert!(found[0].starts_with("iptables: the field Depends is "), "{found:?}");
        }
    }
}
