// SPDX-License-Identifier: GPL-2.0-only
//! Our iptables packages beside Debian's: what they put where, what they ask of other packages and what
//! their maintainer scripts do must be the same, so that apt can go from one to the other and back.
//!
//! Each package is read and its scripts are tried out; then two packages of the same name are compared:
//! [`fields`], [`files`], the other [`members`] of the control archive, and what the [`scripts`] do.

mod fields;
mod files;
mod members;
mod package;
#[cfg(test)]
mod samples;
mod scripts;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};

use self::{package::Package, scripts::Stage};
use crate::{builds::root::BuildRoot, workspace::Workspace};

/// The packages of one source, by name.
type Set = BTreeMap<String, Package>;

/// Compares the packages `ours` with `debian`, all of one source; an error that tells every difference.
pub fn check(ws: &Workspace, root: &BuildRoot, ours: &[PathBuf], debian: &[PathBuf]) -> Result<()> {
    let folder = ws.temporary()?;
    let sandbox = root.sandbox().bind_rw(folder.path(), "out");
    let stage = Stage::set(folder, "/out", |words| sandbox.command("", words))?;
    let read = |debs: &[PathBuf]| -> Result<Set> {
        let packages = debs.iter().map(|deb| {
            let mut package = Package::read(deb).with_context(|| format!("cannot read {}", deb.display()))?;
            package.deeds = stage.rehearse(&package)?;
            Ok((package.field("Package").to_owned(), package))
        });
        packages.collect()
    };
    let found = between(&read(ours)?, &read(debian)?);
    ensure!(found.is_empty(), "our packages differ from Debian's:\n    {}", found.join("\n    "));
    Ok(())
}

/// Every difference between two sets of packages that may not be, a line each.
fn between(ours: &Set, debian: &Set) -> Vec<String> {
    let family: BTreeSet<&str> = debian.keys().map(String::as_str).collect();
    let mut found = Vec::new();
    for (name, our, their) in pairs(ours, debian) {
        match (our, their) {
            (Some(our), Some(their)) => {
                found.extend(differences(our, their, &family).into_iter().map(|what| format!("{name}: {what}")));
            }
            (None, _) => found.push(format!("{name}: the package is missing")),
            (_, None) => found.push(format!("{name}: Debian has no such package")),
        }
    }
    found
}

/// Every difference between our package and Debian's of the same name; `family` are the names of all
/// packages of the source.
fn differences(ours: &Package, debian: &Package, family: &BTreeSet<&str>) -> Vec<String> {
    let aspects = [
        fields::differences(ours, debian, family),
        files::differences(&ours.files, &debian.files),
        members::differences(&ours.members, &debian.members),
        scripts::differences(&ours.deeds, &debian.deeds),
    ];
    aspects.concat()
}

/// What either map has, side by side.
fn pairs<'a, T>(
    ours: &'a BTreeMap<String, T>,
    debian: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = (&'a str, Option<&'a T>, Option<&'a T>)> {
    let names: BTreeSet<&String> = ours.keys().chain(debian.keys()).collect();
    names.into_iter().map(|name| (name.as_str(), ours.get(name), debian.get(name)))
}

/// What differs between two texts, lines in their order, without comments and empty lines. `name` is
/// what they are called.
fn differing_lines(name: &str, ours: &str, debian: &str) -> Vec<String> {
    fn lines(text: &str) -> Vec<&str> {
        text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
    }
    let (ours, debian) = (lines(ours), lines(debian));
    let missing = debian.iter().filter(|line| !ours.contains(line));
    let added = ours.iter().filter(|line| !debian.contains(line));
    let missing = missing.map(|line| format!("{name} lacks Debian's \"{line}\""));
    let added = added.map(|line| format!("{name} has \"{line}\", which Debian's has not"));
    let mut found: Vec<String> = missing.chain(added).collect();
    if found.is_empty() && ours != debian {
        found.push(format!("{name} has Debian's lines, but in another order or number"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{
        samples::{compare, debian, ours},
        scripts::IDLE,
        *,
    };

    #[test]
    fn what_may_differ_may_differ() {
        let mut ours = ours();
        ours.fields.insert("Original-Maintainer".into(), "Somebody".into());
        let triggers = "# Triggers added by dh_makeshlibs/13.24\nactivate-noawait ldconfig\n";
        ours.members.insert("triggers".into(), triggers.into());
        // An own script without effect on an occasion that Debian has none for.
        ours.deeds.insert("postrm 'purge'".into(), IDLE.into());
        assert_eq!(compare(ours, debian()), Vec::<String>::new());
    }

    #[test]
    fn a_package_too_few_or_too_many_is_told() {
        let set: Set = [("iptables".into(), debian())].into();
        assert_eq!(between(&Set::new(), &set), ["iptables: the package is missing"]);
        assert_eq!(between(&set, &Set::new()), ["iptables: Debian has no such package"]);
    }
}
