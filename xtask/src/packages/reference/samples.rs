// SPDX-License-Identifier: GPL-2.0-only
//! For the tests: a package of Debian's, ours that may take its place, and how they are compared.

use super::{
    Set, between,
    package::{self, Entry, Package},
    scripts::IDLE,
};

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

pub(super) fn entry(kind: char, mode: u32, target: Option<&str>) -> Entry {
    Entry { kind, mode, owner: "root(0)/root(0)".into(), target: target.map(str::to_owned) }
}

pub(super) fn debian() -> Package {
    let files = [
        ("/usr/sbin", entry('d', 0o755, None)),
        ("/usr/sbin/multi", entry('-', 0o755, None)),
        ("/usr/sbin/iptables-nft", entry('l', 0o777, Some("multi"))),
    ];
    let members = [
        ("control", CONTROL),
        ("md5sums", "0123  usr/sbin/multi\n"),
        ("postinst", "#!/bin/sh\n"),
        ("triggers", "# Triggers added by dh_makeshlibs/13.20\nactivate-noawait ldconfig\n"),
        ("symbols", "lib.so.2 lib2 #MINVER#\n* Build-Depends-Package: lib-dev\n one@Base 1\n two@Base 1\n"),
    ];
    let deeds = [
        ("postinst 'configure' ''", "calls update-alternatives [--install] [a]\nexit status: 0"),
        ("postinst 'triggered'", IDLE),
    ];
    let texts = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
    Package {
        fields: package::fields(CONTROL),
        files: files.into_iter().map(|(path, entry)| (path.into(), entry)).collect(),
        members: texts(&members),
        deeds: texts(&deeds),
    }
}

/// As built: differs from [`debian`], and only in what may differ.
pub(super) fn ours() -> Package {
    let mut ours = debian();
    let control = CONTROL
        .replace("1.8.11-2\n", "1.8.11-2+promisc3\n")
        .replace("1.8.11-2)", "1.8.11-2+promisc3)")
        .replace("Somebody", "Somebody else")
        .replace("2406", "2407")
        .replace("Breaks:", "Provides: iptables-promisc\nBreaks:")
        .replace("Long and", "Longer and");
    ours.fields = package::fields(&control);
    ours.members.insert("control".into(), control);
    ours.members.insert("md5sums".into(), "4567  usr/sbin/multi\n".into());
    ours.members.insert("postinst".into(), "#!/bin/sh\n# another\n".into());
    ours
}

/// The differences between two sets that hold the given package and the libip4tc2 that it names.
pub(super) fn compare(ours: Package, debian: Package) -> Vec<String> {
    let set =
        |package: Package| -> Set { [("iptables".into(), package), ("libip4tc2".into(), Package::default())].into() };
    between(&set(ours), &set(debian))
}
