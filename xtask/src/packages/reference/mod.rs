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
/// Fields that are not compared.
const IGNORED: [&str; 3] = ["Installed-Size", "Maintainer", "Original-Maintainer"];

/// The packages of one source package, by name.
type Packages = BTreeMap<String, Package>;

/// Compares the packages `ours` with `debian`, whose version is `debian_version`.
///
/// # Errors
/// If they differ; the error lists every difference.
pub fn check(builder: &PackageBuilder<'_>, ours: &Built, debian: &[PathBuf], debian_version: &str) -> Result<()> {
    let PackageBuilder { ws, root, .. } = builder;
    let step = ws.step("deb-comparison", "comparing the iptables packages with Debian's")?;
    let folder = ws.temporary()?;
    let sandbox = root.sandbox().bind_rw(folder.path(), "out");
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
                Some(_) => relations(value, version, packages),
                None => value.clone(),
            };
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

/// The relations of a field, sorted, without the versions that may differ. Other fields have no
/// commas and no bars, and do not change.
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
    use super::{package::fields, scripts::NO_ACTION, *};

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
    const MULTI: &str = "/usr/sbin/multi";
    const LINK: &str = "/usr/sbin/iptables-nft";
    const TRIGGERS: &str = "the control file triggers";
    const SYMBOLS: &str = "the control file symbols";
    const CONFIGURE: &str = "postinst configure ''";
    const SYMBOLS_TEXT: &str = "lib.so.2 lib2 #MINVER#\n* Build-Depends-Package: x\n one@Base 1\n two@Base 1\n";
    const ACTIONS: &str = "calls update-alternatives [--install] [a]\nexit status: 0";
    const BREAKS: &str = "the field Breaks";
    const BROKEN: &str = "-libip4tc2 (<< 1.8.4-2)";
    const CALL: &str = "-calls update-alternatives [--install] [a]";
    /// The line that contains the changed value.
    const VALUE: &str = "+";
    const CONTENTS: [(&str, &str); 8] = [
        ("/usr/sbin", "Directory 0755 root(0)/root(0)"),
        (MULTI, "Regular 0755 root(0)/root(0)"),
        (LINK, "Symlink 0777 root(0)/root(0) -> multi"),
        (TRIGGERS, "# Triggers added by dh_makeshlibs/13.20\nactivate-noawait ldconfig\n"),
        (SYMBOLS, SYMBOLS_TEXT),
        (CONFIGURE, ACTIONS),
        ("postinst triggered", NO_ACTION),
        ("postrm purge", NO_ACTION),
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
        ours.insert(TRIGGERS.into(), triggers.into());
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
        assert_eq!(differences_of(MULTI, Some("Regular 0755 root(0)/root(0)")), [""; 0]);
    }

    #[test]
    fn a_missing_or_additional_package_is_reported() {
        let text = comparable(&[("iptables".into(), [("/etc".into(), "Directory".into())].into())].into(), "1.8.11-2");
        assert_eq!(differences("", &text).unwrap(), ["-iptables: /etc: Directory"]);
        assert_eq!(differences(&text, "").unwrap(), ["+iptables: /etc: Directory"]);
    }

    #[test]
    fn different_properties_are_reported() {
        let one_less = SYMBOLS_TEXT.replace(" two@Base 1\n", "");
        let one_more = format!("{SYMBOLS_TEXT} three@Base 1\n");
        let repeated = format!("{SYMBOLS_TEXT} one@Base 1\n");
        let other_call = ACTIONS.replace("[a]", "[b]");
        let other_status = ACTIONS.replace("status: 0", "status: 1");
        let twice = format!("{ACTIONS}\n{ACTIONS}");
        let cases: [(&str, Option<&str>, &[&str]); 28] = [
            (MULTI, None, &["-Regular 0755 root(0)/root(0)"]),
            (MULTI, Some("Regular 4755 root(0)/root(0)"), &["-Regular 0755 root(0)/root(0)", VALUE]),
            (MULTI, Some("Directory 0755 root(0)/root(0)"), &["-Regular 0755 root(0)/root(0)", VALUE]),
            (MULTI, Some("Regular 0755 daemon(1)/root(0)"), &["-Regular 0755 root(0)/root(0)", VALUE]),
            (LINK, Some("Symlink 0777 root(0)/root(0) -> other"), &["-Symlink 0777 root(0)/root(0) -> multi", VALUE]),
            (LINK, Some("Link 0777 root(0)/root(0) -> multi"), &["-Symlink 0777 root(0)/root(0) -> multi", VALUE]),
            ("/usr/bin/multi", Some("Regular 0755 root(0)/root(0)"), &[VALUE]),
            (SYMBOLS, Some(&one_less), &["- two@Base 1"]),
            (SYMBOLS, Some(&one_more), &["+ three@Base 1"]),
            (SYMBOLS, Some(&repeated), &["+ one@Base 1"]),
            (TRIGGERS, None, &["-activate-noawait ldconfig"]),
            ("the control file conffiles", Some("/etc/ethertypes"), &[VALUE]),
            (CONFIGURE, Some(&other_call), &[CALL, "+calls update-alternatives [--install] [b]"]),
            (CONFIGURE, Some(&other_status), &["-exit status: 0", "+exit status: 1"]),
            (CONFIGURE, Some(&twice), &["+calls update-alternatives [--install] [a]", "+exit status: 0"]),
            (CONFIGURE, Some(NO_ACTION), &[CALL]),
            ("postinst triggered", Some("prints boo\nexit status: 0"), &["+prints boo"]),
            ("postrm purge", Some("calls rm [-rf] [/etc/x]\nexit status: 0"), &["+calls rm [-rf] [/etc/x]"]),
            ("the field Version", Some("1.8.11-2"), &["-of all packages", VALUE]),
            ("the field Version", Some("1.8.12-1"), &["-of all packages", VALUE]),
            ("the field Version", Some("1.8.11-20+promisc3"), &["-of all packages", VALUE]),
            ("the field Architecture", Some("all"), &["-amd64", VALUE]),
            ("the field Multi-Arch", None, &["-foreign"]),
            ("the field Essential", Some("yes"), &[VALUE]),
            ("the field Provides", Some("nftables"), &[VALUE]),
            ("the field Description", Some("other tools\nLong"), &["-administration tools", "+other tools"]),
            (BREAKS, Some("libip4tc2 (<< 1.8.11-2+promisc3)"), &[BROKEN, "+libip4tc2 (<< the same version)"]),
            (BREAKS, None, &[BROKEN]),
        ];
        for (key, value, expected) in cases {
            let line = |line: &&str| {
                let (sign, text) = line.split_at(1);
                format!("{sign}iptables: {key}: {}", if *line == VALUE { value.unwrap() } else { text })
            };
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
