// SPDX-License-Identifier: GPL-2.0-only
//! Control fields, and the differences in them that are allowed.
//! <https://www.debian.org/doc/debian-policy/ch-controlfields.html>

use std::collections::{BTreeMap, BTreeSet};

/// Fields that are not compared. `Version` is compared by [`version_difference`].
const IGNORED: [&str; 4] = ["Installed-Size", "Maintainer", "Original-Maintainer", "Version"];
/// The virtual package that only our packages provide: packages that need the chain depend on it.
pub(super) const PROMISC: &str = "iptables-promisc";
/// The fields that name other packages.
/// <https://www.debian.org/doc/debian-policy/ch-relationships.html>
const RELATIONS: [&str; 9] =
    ["Breaks", "Conflicts", "Depends", "Enhances", "Pre-Depends", "Provides", "Recommends", "Replaces", "Suggests"];

/// The fields of a package, in a form that must be the same in ours and Debian's. `family` contains
/// the names of all packages of the source package.
pub(super) fn comparable(fields: &BTreeMap<String, String>, family: &BTreeSet<&str>) -> BTreeMap<String, String> {
    let version = fields.get("Version").map_or("", String::as_str);
    let compared = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).filter(|(name, value)| {
        let is_ours_only = (*name, *value) == ("Provides", PROMISC);
        !IGNORED.contains(name) && !is_ours_only
    });
    let form = |(name, value): (&str, &str)| {
        let value = match name {
            // Only the long description explains how ours differs.
            "Description" => value.lines().next().unwrap_or_default().to_owned(),
            _ if RELATIONS.contains(&name) => relations(value, |one| relation(one, version, family)),
            _ => value.to_owned(),
        };
        (format!("the field {name}"), value)
    };
    compared.map(form).collect()
}

/// Reports a version that is not Debian's with a suffix that begins with `+`. Such a version is
/// higher than Debian's and lower than that of Debian's next release.
/// <https://www.debian.org/doc/debian-policy/ch-controlfields.html#version>
pub(super) fn version_difference(ours: &str, debian: &str) -> Option<String> {
    let is_suffixed = ours.strip_prefix(debian).is_some_and(|suffix| suffix.starts_with('+'));
    (!is_suffixed).then(|| format!("the field Version is \"{ours}\", which is not \"{debian}+...\""))
}

/// The relations of a field, sorted, each in the form that `form` gives it.
fn relations(field: &str, form: impl Fn(&str) -> String) -> String {
    let alternatives = |clause: &str| clause.split('|').map(|one| form(one.trim())).collect::<Vec<_>>().join(" | ");
    let clauses = field.split(',').filter(|clause| !clause.trim().is_empty());
    let mut all: Vec<_> = clauses.map(alternatives).collect();
    all.sort();
    all.join(", ")
}

/// A relation without the version if that may differ.
fn relation(text: &str, version: &str, family: &BTreeSet<&str>) -> String {
    let (name, bound) = text.split_once(" (").unwrap_or((text, ""));
    let (operator, bound) = bound.trim_end_matches(')').split_once(' ').unwrap_or((bound, ""));
    let is_family = family.contains(name);
    if is_family && bound == version {
        return format!("{name} ({operator} the same version)");
    }
    // dpkg-shlibdeps computes the lowest version of a library from the symbols that are used.
    if !is_family && name.starts_with("lib") && operator == ">=" {
        return format!("{name} (>= any version)");
    }
    text.to_owned()
}
