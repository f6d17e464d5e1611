// SPDX-License-Identifier: GPL-2.0-only
//! Compares our iptables packages with Debian's. The files, the relations to other packages and the
//! actions of the maintainer scripts must be the same, so that apt can replace one by the other.

mod fields;
mod package;
mod scripts;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use self::{package::Package, scripts::DryRun};
use super::PackageBuilder;
use crate::stamp::{Recipe, remove_if_exists};

/// The source of this check, an input of its stamp.
const SOURCE: &str = "xtask/src/packages/reference";

/// The packages of one source package, by name.
type Packages = BTreeMap<String, Package>;

/// Compares the packages `ours` with `debian`, whose version is `version`, unless these files were
/// compared before.
///
/// # Errors
/// If they differ; the error lists every difference.
pub fn check(builder: &PackageBuilder<'_>, ours: &[PathBuf], debian: &[PathBuf], version: &str) -> Result<()> {
    let (ws, root) = (builder.ws, builder.root);
    let mut recipe = Recipe::new("comparison").text("root", root.stamp().as_str()).folder(&ws.repo().join(SOURCE))?;
    for deb in ours.iter().chain(debian) {
        recipe = recipe.file(deb)?;
    }
    let (stamp, stamp_file) = (recipe.stamp(), builder.folder.join(".comparison.stamp"));
    if stamp.is_in(&stamp_file) {
        return Ok(());
    }
    remove_if_exists(&stamp_file)?;
    let step = ws.step("deb-comparison", "comparing the iptables packages with Debian's")?;
    let folder = ws.temporary()?;
    let sandbox = root.sandbox().bind_rw(folder.path(), "out");
    let dry_run = DryRun::new(folder, "/out", version, |words| sandbox.command("", words))?;
    let read = |debs: &[PathBuf]| -> Result<Packages> {
        let packages = debs.iter().map(|deb| {
            let mut package = Package::read(deb).with_context(|| format!("cannot read {}", deb.display()))?;
            package.contents.extend(dry_run.actions(&package)?);
            Ok((package.field("Package").to_owned(), package))
        });
        packages.collect()
    };
    let found = differences(&read(ours)?, &read(debian)?);
    ensure!(found.is_empty(), "our packages differ from Debian's:\n    {}", found.join("\n    "));
    step.finish();
    stamp.write(&stamp_file)
}

/// The forbidden differences between two sets of packages, one a line.
fn differences(ours: &Packages, debian: &Packages) -> Vec<String> {
    let family: BTreeSet<&str> = debian.keys().map(String::as_str).collect();
    compare(ours, debian, |name, our, their| {
        let properties = |package: &Package| {
            let mut all = package.contents.clone();
            all.extend(fields::comparable(&package.fields, &family));
            all
        };
        let mut found =
            compare(&properties(our), &properties(their), |key, our, their| text_differences(key, our, their));
        found.extend(fields::version_difference(our.field("Version"), their.field("Version")));
        found.iter().map(|difference| format!("{name}: {difference}")).collect()
    })
}

/// Compares the values of each key with `compare_values`, and reports keys that only one map has.
fn compare<T>(
    ours: &BTreeMap<String, T>,
    debian: &BTreeMap<String, T>,
    compare_values: impl Fn(&str, &T, &T) -> Vec<String>,
) -> Vec<String> {
    let keys: BTreeSet<&String> = ours.keys().chain(debian.keys()).collect();
    let differences = |key: &String| match (ours.get(key), debian.get(key)) {
        (Some(our), Some(their)) => compare_values(key, our, their),
        (None, _) => vec![format!("{key} is missing")],
        (_, None) => vec![format!("{key} does not exist in Debian")],
    };
    keys.into_iter().flat_map(differences).collect()
}

/// The differences between two texts that are called `name`. Lines are compared in their order,
/// without comments and empty lines.
fn text_differences(name: &str, ours: &str, debian: &str) -> Vec<String> {
    fn lines(text: &str) -> Vec<&str> {
        text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
    }
    let (ours, debian) = (lines(ours), lines(debian));
    if let ([our], [their]) = (&ours[..], &debian[..]) {
        return if our == their { vec![] } else { vec![format!("{name} is \"{our}\", Debian's is \"{their}\"")] };
    }
    let missing = debian.iter().filter(|line| !ours.contains(line));
    let added = ours.iter().filter(|line| !debian.contains(line));
    let missing = missing.map(|line| format!("{name} lacks Debian's line \"{line}\""));
    let added = added.map(|line| format!("{name} has the line \"{line}\", which Debian's does not have"));
    let mut found: Vec<String> = missing.chain(added).collect();
    if found.is_empty() && ours != debian {
        found.push(format!("{name} has Debian's lines in another order or number"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{fields::PROMISC, package::fields, scripts::NO_ACTION, *};

    pub(super) const CONTROL: &str = "\
Package: iptables
Version: 1.8.11-2
Architecture: amd64
Maintainer: Somebody <a@b.example>
Installed-Size: 2406
Depends: libip4tc2 (= 1.8.11-2), netbase (>= 6.0), libc6 (>= 2.38), a | b (<< 2)
Breaks: libip4tc2 (<< 1.8.4-2)
Multi-Arch: foreign
Description: administration tools
 Long and
 .
 wide.
";
    const CONTENTS: [(&str, &str); 8] = [
        ("/usr/sbin", "Directory 0755 root(0)/root(0)"),
        ("/usr/sbin/multi", "Regular 0755 root(0)/root(0)"),
        ("/usr/sbin/iptables-nft", "Symlink 0777 root(0)/root(0) -> multi"),
        ("the control file triggers", "# Triggers added by dh_makeshlibs/13.20\nactivate-noawait ldconfig\n"),
        ("the control file symbols", "lib.so.2 lib2 #MINVER#\n* Build-Depends-Package: x\n one@Base 1\n two@Base 1\n"),
        ("postinst configure ''", "calls update-alternatives [--install] [a]\nexit status: 0"),
        ("postinst triggered", NO_ACTION),
        ("postrm purge", NO_ACTION),
    ];

    fn debian() -> Package {
        let contents = CONTENTS.map(|(name, text)| (name.to_owned(), text.to_owned()));
        Package { fields: fields(CONTROL), contents: contents.into(), ..Package::default() }
    }

    /// As built: differs from Debian's package only in what may differ.
    fn ours() -> Package {
        let control = CONTROL
            .replace("1.8.11-2\n", "1.8.11-2+promisc3\n")
            .replace("1.8.11-2)", "1.8.11-2+promisc3)")
            .replace("Somebody", "Somebody else")
            .replace("2406", "2407")
            .replace("Breaks:", &format!("Original-Maintainer: Somebody\nProvides: {PROMISC}\nBreaks:"))
            .replace("Long and", "Longer and");
        let mut ours = Package { fields: fields(&control), ..debian() };
        let triggers = "# Triggers added by dh_makeshlibs/13.24\nactivate-noawait ldconfig\n";
        ours.contents.insert("the control file triggers".into(), triggers.into());
        ours
    }

    /// Sets or removes a value.
    fn change(map: &mut BTreeMap<String, String>, key: &str, value: Option<&str>) {
        match value {
            Some(value) => map.insert(key.into(), value.into()),
            None => map.remove(key),
        };
    }

    /// The differences of `ours` and Debian's package, each in a set with the libip4tc2 on which it
    /// depends.
    fn differences_of(ours: Package) -> Vec<String> {
        let set = |iptables: Package, version: &str| {
            let fields = [("Version".into(), version.into())].into();
            let library = Package { fields, ..Package::default() };
            Packages::from([("iptables".into(), iptables), ("libip4tc2".into(), library)])
        };
        differences(&set(ours, "1.8.11-2+promisc3"), &set(debian(), "1.8.11-2"))
    }

    #[test]
    fn allowed_differences_are_not_reported() {
        assert_eq!(differences_of(ours()), [""; 0]);
    }

    #[test]
    fn a_missing_or_additional_package_is_reported() {
        let packages = Packages::from([("iptables".to_owned(), debian())]);
        assert_eq!(differences(&Packages::new(), &packages), ["iptables is missing"]);
        assert_eq!(differences(&packages, &Packages::new()), ["iptables does not exist in Debian"]);
    }

    #[test]
    fn different_contents_are_reported() {
        let [.., (symbols, text), (configure, actions), (triggered, _), (purge, _)] = CONTENTS;
        let multi = "/usr/sbin/multi";
        let link = "/usr/sbin/iptables-nft";
        let one_less = text.replace(" two@Base 1\n", "");
        let one_more = format!("{text} three@Base 1\n");
        let repeated = format!("{text} one@Base 1\n");
        let other_call = actions.replace("[a]", "[b]");
        let other_status = actions.replace("status: 0", "status: 1");
        let twice = format!("{actions}\n{actions}");
        let output = format!("prints boo\n{NO_ACTION}");
        let removal = format!("calls rm [-rf] [/etc/x]\n{NO_ACTION}");
        let cases: [(&str, Option<&str>, &[&str]); 18] = [
            (multi, None, &["is missing"]),
            (
                multi,
                Some("Regular 4755 root(0)/root(0)"),
                &["is \"Regular 4755 root(0)/root(0)\", Debian's is \"Regular 0755"],
            ),
            (multi, Some("Directory 0755 root(0)/root(0)"), &["is \"Directory 0755"]),
            (multi, Some("Regular 0755 daemon(1)/root(0)"), &["daemon(1)"]),
            (link, Some("Symlink 0777 root(0)/root(0) -> other"), &["-> other\", Debian's is"]),
            (link, Some("Link 0777 root(0)/root(0) -> multi"), &["is \"Link 0777"]),
            ("/usr/bin/multi", Some("Regular 0755 root(0)/root(0)"), &["does not exist in Debian"]),
            (symbols, Some(&one_less), &["lacks Debian's line \" two@Base 1\""]),
            (symbols, Some(&one_more), &["has the line \" three@Base 1\""]),
            (symbols, Some(&repeated), &["has Debian's lines in another order or number"]),
            ("the control file triggers", None, &["is missing"]),
            ("the control file conffiles", Some("/etc/ethertypes\n"), &["does not exist in Debian"]),
            (configure, Some(&other_call), &["lacks", "has"]),
            (configure, Some(&other_status), &["lacks", "has"]),
            (configure, Some(&twice), &["another order or number"]),
            (configure, Some(NO_ACTION), &["lacks"]),
            (triggered, Some(&output), &["has the line \"prints boo\""]),
            (purge, Some(&removal), &["has the line \"calls rm [-rf] [/etc/x]\""]),
        ];
        for (name, value, reports) in cases {
            let mut ours = ours();
            change(&mut ours.contents, name, value);
            let found = differences_of(ours);
            assert_eq!(found.len(), reports.len(), "{name} {value:?}: {found:?}");
            for (line, report) in found.iter().zip(reports) {
                assert!(line.starts_with(&format!("iptables: {name} ")) && line.contains(report), "{found:?}");
            }
        }
    }

    #[test]
    fn different_fields_are_reported() {
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
            change(&mut ours.fields, name, value);
            if let ("Version", Some(version)) = (name, value) {
                // Only the version itself is wrong.
                let depends = ours.fields["Depends"].replace("1.8.11-2+promisc3", version);
                ours.fields.insert("Depends".into(), depends);
            }
            let found = differences_of(ours);
            assert_eq!(found.len(), 1, "{name} {value:?}: {found:?}");
            assert!(found[0].starts_with(&format!("iptables: the field {name} ")), "{found:?}");
        }
    }

    #[test]
    fn different_dependencies_are_reported() {
        let own = "libip4tc2 (= 1.8.11-2+promisc3)";
        let same = [
            format!("{own}, netbase (>= 6.0), libc6 (>= 2.41), a | b (<< 2)"),
            format!("libc6 (>= 2.38), a | b (<< 2), netbase (>= 6.0), {own}"),
        ];
        let different = [
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
            differences_of(ours)
        };
        for depends in &same {
            assert_eq!(found(depends), [""; 0], "{depends}");
        }
        for depends in &different {
            let found = found(depends);
            assert_eq!(found.len(), 1, "{depends}: {found:?}");
            assert!(found[0].starts_with("iptables: the field Depends is "), "{found:?}");
        }
    }
}
