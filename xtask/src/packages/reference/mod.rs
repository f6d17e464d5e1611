// SPDX-License-Identifier: GPL-2.0-only
//! Compares our iptables packages with Debian's. The files, the relations to other packages and the
//! actions of the maintainer scripts must be the same, so that apt can replace one by the other.

mod package;
mod scripts;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use git2::{DiffOptions, Patch};

use self::package::Package;
use super::PackageBuilder;
use super::source::Built;

/// The virtual package that only our packages provide: packages that need the chain depend on it.
const PROMISC: &str = "iptables-promisc";
/// The fields that name other packages.
const RELATIONS: [&str; 9] =
    ["Breaks", "Conflicts", "Depends", "Enhances", "Pre-Depends", "Provides", "Recommends", "Replaces", "Suggests"];
/// Fields that are not compared.
const IGNORED: [&str; 3] = ["Installed-Size", "Maintainer", "Original-Maintainer"];

/// The packages of one source package, by name.
type Packages = BTreeMap<String, Package>;

/// Compares the packages `ours` with `debian`, whose version is `debian_version`.
///
/// # Errors
/// If they differ; the error lists every difference.
pub fn check(builder: &PackageBuilder<'_>, ours: &Built, debian: &[PathBuf], debian_version: &str) -> Result<()> {
    let PackageBuilder { ws, package_root, .. } = builder;
    let step = ws.step("deb-comparison", "comparing the iptables packages with Debian's")?;
    let folder = ws.temporary()?;
    let sandbox = package_root.sandbox().bind_rw(folder.path(), "out");
    let shell = |script: &str| sandbox.command("out", &["sh", "-c", script]);
    scripts::write_stubs(folder.path())?;
    let read = |debs: &[PathBuf], version| -> Result<String> {
        let packages = debs.iter().map(|deb| {
            let mut package = package::read(deb).with_context(|| format!("cannot read {}", deb.display()))?;
            scripts::replace_scripts(&mut package, folder.path(), debian_version, shell)?;
            Ok((package::name(&package).to_owned(), package))
        });
        Ok(comparable(&packages.collect::<Result<_>>()?, version))
    };
    let found = differences(&read(&ours.files, &ours.version)?, &read(debian, debian_version)?)?;
    ensure!(found.is_empty(), "our packages (+) differ from Debian's (-):\n    {}", found.join("\n    "));
    step.finish();
    Ok(())
}

/// All properties of the packages, in a form that must be the same for ours and Debian's. It has no
/// comments, and no `version`, which is that of the packages.
fn comparable(packages: &Packages, version: &str) -> String {
    let mut text = String::new();
    for (name, package) in packages {
        for (key, value) in package {
            let value = match key.strip_prefix("the field ") {
                Some(field) if IGNORED.contains(&field) || (field, value.as_str()) == ("Provides", PROMISC) => continue,
                Some("Version") if value == version => "of all packages".to_owned(),
                // Only the long description explains how ours differs.
                Some("Description") => value.lines().take(1).collect(),
                Some(field) if RELATIONS.contains(&field) => relations(value, version, packages),
                _ => value.clone(),
            };
            // This line shows that the property exists, even if its text is empty.
            let _ = writeln!(text, "{name}: {key}");
            for line in value.lines().filter(|line| !line.trim_end().is_empty() && !line.starts_with('#')) {
                let _ = writeln!(text, "{name}: {key}: {}", line.trim_end());
            }
        }
    }
    text
}

/// The lines that differ between two texts: `+` and ours, `-` and Debian's.
fn differences(ours: &str, debian: &str) -> Result<Vec<String>> {
    let mut options = DiffOptions::new();
    // Without force_text, a text with a NUL byte would have no lines.
    options.context_lines(0).force_text(true);
    let patch = Patch::from_buffers(debian.as_bytes(), None, ours.as_bytes(), None, Some(&mut options));
    let mut lines = Vec::new();
    patch?.print(&mut |_, _, line| {
        if let sign @ ('+' | '-') = line.origin() {
            lines.push(format!("{sign}{}", String::from_utf8_lossy(line.content()).trim_end()));
        }
        true
    })?;
    Ok(lines)
}

/// The relations of a field, sorted, without the versions that may differ.
/// <https://www.debian.org/doc/debian-policy/ch-relationships.html>
fn relations(field: &str, version: &str, family: &Packages) -> String {
    let relation = |text: &str| {
        let (name, bound) = text.split_once(" (").unwrap_or((text, ""));
        match (family.contains_key(name), bound.trim_end_matches(')').split_once(' ')) {
            (true, Some((operator, bound))) if bound == version => format!("{name} ({operator} the same version)"),
            // dpkg-shlibdeps computes the lowest version of a library from the symbols that are
            // used.
            (false, Some((">=", _))) if name.starts_with("lib") => format!("{name} (>= any version)"),
            _ => text.to_owned(),
        }
    };
    let alternatives = |clause: &str| clause.trim().split(" | ").map(relation).collect::<Vec<_>>().join(" | ");
    let mut all: Vec<_> = field.split(',').map(alternatives).collect();
    all.sort();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::{package::fields, *};

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
    const CONTENTS: [(&str, &str); 9] = [
        ("/usr/sbin", "Directory 0755 root"),
        ("/usr/sbin/multi", "Regular 0755 root"),
        ("/usr/sbin/link", "Symlink -> multi"),
        ("the control file triggers", "# Triggers added by dh_makeshlibs/13.20\nactivate-noawait ldconfig\n"),
        ("the control file symbols", "lib2 #MINVER#\n* Field: x\n one 1\n two 1\n"),
        ("the control file empty", ""),
        ("postinst configure ''", "calls rm [a]\nexit status: 0"),
        ("postinst triggered", "exit status: 0"),
        ("postrm purge", "exit status: 0"),
    ];

    fn package(control: &str) -> Package {
        let contents = CONTENTS.map(|(name, text)| (name.to_owned(), text.to_owned()));
        fields(control).into_iter().chain(contents).collect()
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
        let mut ours = package(&control);
        let triggers = "# Triggers added by dh_makeshlibs/13.24\nactivate-noawait ldconfig\n";
        ours.insert("the control file triggers".into(), triggers.into());
        ours
    }

    /// The differences of our package, with one property changed or removed, and Debian's package.
    /// Each is in a set with the libip4tc2 on which it depends.
    fn differences_of(key: &str, value: Option<&str>) -> Vec<String> {
        let mut ours = ours();
        match value {
            Some(value) => ours.insert(key.into(), value.into()),
            None => ours.remove(key),
        };
        let set = |iptables: Package, version: &str| {
            let library = [("the field Version".to_owned(), version.to_owned())].into();
            comparable(&[("iptables".into(), iptables), ("libip4tc2".into(), library)].into(), version)
        };
        differences(&set(ours, "1.8.11-2+promisc3"), &set(package(CONTROL), "1.8.11-2")).unwrap()
    }

    #[test]
    fn allowed_differences_are_not_reported() {
        assert_eq!(differences_of("/usr/sbin", Some("Directory 0755 root")), [""; 0]);
    }

    #[test]
    fn a_missing_or_additional_package_is_reported() {
        let text = comparable(&[("iptables".into(), [("/etc".into(), "Directory".into())].into())].into(), "1.8.11-2");
        assert_eq!(differences("", &text).unwrap(), ["-iptables: /etc", "-iptables: /etc: Directory"]);
        assert_eq!(differences(&text, "").unwrap(), ["+iptables: /etc", "+iptables: /etc: Directory"]);
    }

    #[test]
    fn different_properties_are_reported() {
        let cases: [(&str, Option<&str>, &[&str]); 31] = [
            ("/usr/sbin/multi", None, &["-", "-: Regular 0755 root"]),
            ("/usr/sbin/multi", Some("Regular 4755 root"), &["-: Regular 0755 root", "+: Regular 4755 root"]),
            ("/usr/sbin/multi", Some("Directory 0755 root"), &["-: Regular 0755 root", "+: Directory 0755 root"]),
            ("/usr/sbin/multi", Some("Regular 0755 daemon"), &["-: Regular 0755 root", "+: Regular 0755 daemon"]),
            ("/usr/sbin/link", Some("Symlink -> other"), &["-: Symlink -> multi", "+: Symlink -> other"]),
            ("/usr/sbin/link", Some("Link -> multi"), &["-: Symlink -> multi", "+: Link -> multi"]),
            ("/usr/bin/multi", Some("Regular 0755 root"), &["+", "+: Regular 0755 root"]),
            ("the control file symbols", Some("lib2 #MINVER#\n* Field: x\n one 1\n"), &["-:  two 1"]),
            (
                "the control file symbols",
                Some("lib2 #MINVER#\n* Field: x\n one 1\n two 1\n three 1\n"),
                &["+:  three 1"],
            ),
            ("the control file symbols", Some("lib2 #MINVER#\n* Field: x\n one 1\n two 1\n one 1\n"), &["+:  one 1"]),
            ("the control file triggers", None, &["-", "-: activate-noawait ldconfig"]),
            ("the control file empty", None, &["-"]),
            ("the control file prerm", Some(""), &["+"]),
            ("the control file conffiles", Some("/etc/ethertypes"), &["+", "+: /etc/ethertypes"]),
            ("postinst configure ''", Some("calls rm [b]\nexit status: 0"), &["-: calls rm [a]", "+: calls rm [b]"]),
            (
                "postinst configure ''",
                Some("calls rm [a]\nexit status: 1"),
                &["-: exit status: 0", "+: exit status: 1"],
            ),
            ("postinst configure ''", Some("calls rm [a]\ncalls rm [a]\nexit status: 0"), &["+: calls rm [a]"]),
            ("postinst configure ''", Some("exit status: 0"), &["-: calls rm [a]"]),
            ("postinst triggered", Some("prints boo\nexit status: 0"), &["+: prints boo"]),
            ("postrm purge", Some("calls rm [-rf] [/etc/x]\nexit status: 0"), &["+: calls rm [-rf] [/etc/x]"]),
            ("the field Version", Some("1.8.11-2"), &["-: of all packages", "+: 1.8.11-2"]),
            ("the field Version", Some("1.8.12-1"), &["-: of all packages", "+: 1.8.12-1"]),
            ("the field Version", Some("1.8.11-20+promisc3"), &["-: of all packages", "+: 1.8.11-20+promisc3"]),
            ("the field Architecture", Some("all"), &["-: amd64", "+: all"]),
            ("the field Multi-Arch", None, &["-", "-: foreign"]),
            ("the field Essential", Some("yes"), &["+", "+: yes"]),
            ("the field Tag", Some("b, a"), &["+", "+: b, a"]),
            ("the field Provides", Some("nftables"), &["+", "+: nftables"]),
            ("the field Description", Some("other tools\nLong"), &["-: administration tools", "+: other tools"]),
            (
                "the field Breaks",
                Some("libip4tc2 (<< 1.8.11-2+promisc3)"),
                &["-: libip4tc2 (<< 1.8.4-2)", "+: libip4tc2 (<< the same version)"],
            ),
            ("the field Breaks", None, &["-", "-: libip4tc2 (<< 1.8.4-2)"]),
        ];
        for (key, value, expected) in cases {
            let line = |line: &&str| format!("{}iptables: {key}{}", &line[..1], &line[1..]);
            assert_eq!(differences_of(key, value), expected.iter().map(line).collect::<Vec<_>>());
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
        let cases = same.iter().map(|depends| (depends, 0)).chain(different.iter().map(|depends| (depends, 2)));
        for (depends, lines) in cases {
            let found = differences_of("the field Depends", Some(depends));
            let [removed, added] = ["-iptables: the field Depends: ", "+iptables: the field Depends: "];
            assert_eq!(found.len(), lines, "{depends}: {found:?}");
            assert!(found.iter().zip([removed, added]).all(|(line, start)| line.starts_with(start)), "{found:?}");
        }
    }
}
