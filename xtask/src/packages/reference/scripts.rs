// SPDX-License-Identifier: GPL-2.0-only
//! Compares what maintainer scripts do: all are run, in the sandbox, on every occasion that dpkg has for
//! them, with programs in the PATH that note how they were called and do nothing.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    process::Command,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{differing_lines, package::Package, pairs};
use crate::process;

/// A version from long ago, that of Debian 13, and one that is yet to come.
const ANCIENT: &str = "1.4.21-1";
const STOCK: &str = "1.8.11-2";
const FUTURE: &str = "1:9-1";

/// The arguments that dpkg calls scripts with, from Debian's policy, chapter 6.
const OCCASIONS: [(&str, &[&str]); 31] = [
    ("preinst", &["install"]),
    ("preinst", &["install", ANCIENT, FUTURE]),
    ("preinst", &["upgrade", ANCIENT, FUTURE]),
    ("preinst", &["upgrade", STOCK, FUTURE]),
    ("preinst", &["abort-upgrade", FUTURE]),
    ("postinst", &["configure", ""]),
    ("postinst", &["configure", ANCIENT]),
    ("postinst", &["configure", STOCK]),
    ("postinst", &["configure", FUTURE]),
    ("postinst", &["abort-upgrade", FUTURE]),
    ("postinst", &["abort-remove"]),
    ("postinst", &["abort-remove", "in-favour", "other", "1"]),
    ("postinst", &["abort-deconfigure", "in-favour", "other", "1"]),
    ("postinst", &["abort-deconfigure", "in-favour", "other", "1", "removing", "third", "1"]),
    ("postinst", &["triggered", "ldconfig"]),
    ("prerm", &["remove"]),
    ("prerm", &["upgrade", ANCIENT]),
    ("prerm", &["upgrade", STOCK]),
    ("prerm", &["upgrade", FUTURE]),
    ("prerm", &["failed-upgrade", STOCK, FUTURE]),
    ("prerm", &["remove", "in-favour", "other", "1"]),
    ("prerm", &["deconfigure", "in-favour", "other", "1"]),
    ("prerm", &["deconfigure", "in-favour", "other", "1", "removing", "third", "1"]),
    ("postrm", &["remove"]),
    ("postrm", &["purge"]),
    ("postrm", &["upgrade", FUTURE]),
    ("postrm", &["failed-upgrade", STOCK, FUTURE]),
    ("postrm", &["abort-install"]),
    ("postrm", &["abort-install", STOCK, FUTURE]),
    ("postrm", &["abort-upgrade", STOCK, FUTURE]),
    ("postrm", &["disappear", "other", "1"]),
];

/// The programs that change a system, as far as maintainer scripts use them.
const STUBS: [&str; 16] = [
    "cp",
    "deb-systemd-helper",
    "deb-systemd-invoke",
    "dpkg",
    "dpkg-divert",
    "dpkg-maintscript-helper",
    "dpkg-statoverride",
    "dpkg-trigger",
    "invoke-rc.d",
    "ldconfig",
    "ln",
    "mv",
    "rm",
    "rmdir",
    "update-alternatives",
    "update-rc.d",
];

/// What stands in for them.
const STUB: &str = include_str!("stub.sh");

/// What is told of a script that does nothing.
pub(super) const IDLE: &str = "exit status: 0";

/// Every difference between what the scripts of our package do and what those of Debian's do.
pub(super) fn differences(ours: &BTreeMap<String, String>, debian: &BTreeMap<String, String>) -> Vec<String> {
    let differing = |(occasion, ours, debian): (&str, Option<&String>, Option<&String>)| {
        // No script does what an empty one does.
        differing_lines(occasion, ours.map_or(IDLE, String::as_str), debian.map_or(IDLE, String::as_str))
    };
    pairs(ours, debian).flat_map(differing).collect()
}

/// Where scripts are run without effect.
pub(super) struct Stage<F> {
    folder: TempDir,
    /// The folder's path, as commands see it.
    seen_as: String,
    /// Makes a command of words.
    command: F,
}

impl<F: Fn(&[&str]) -> Command> Stage<F> {
    /// Puts the stubs into `folder`, which the commands that `command` makes see as `seen_as`.
    pub(super) fn set(folder: TempDir, seen_as: &str, command: F) -> Result<Self> {
        let place = || -> io::Result<()> {
            let programs = folder.path().join("bin");
            fs::create_dir(&programs)?;
            let stub = folder.path().join("stub");
            fs::write(&stub, STUB)?;
            fs::set_permissions(stub, fs::Permissions::from_mode(0o755))?;
            STUBS.iter().try_for_each(|name| symlink("../stub", programs.join(name)))
        };
        place().with_context(|| format!("cannot fill {}", folder.path().display()))?;
        Ok(Self { seen_as: seen_as.to_owned(), folder, command })
    }

    /// Runs every script of the package on every occasion.
    pub(super) fn rehearse(&self, package: &Package) -> Result<BTreeMap<String, String>> {
        let mut deeds = BTreeMap::new();
        for (script, arguments) in OCCASIONS {
            if let Some(text) = package.members.get(script) {
                let quoted: Vec<_> = arguments.iter().map(|word| format!("'{word}'")).collect();
                let occasion = format!("{script} {}", quoted.join(" "));
                let done = self.run(package.field("Package"), script, text, arguments);
                deeds.insert(occasion.clone(), done.with_context(|| format!("cannot run {occasion}"))?);
            }
        }
        Ok(deeds)
    }

    /// What one run of a script says, the calls that it makes, and how it ends; a line each.
    fn run(&self, package: &str, script: &str, text: &str, arguments: &[&str]) -> Result<String> {
        let calls = self.folder.path().join("calls");
        fs::write(&calls, "")?;
        fs::write(self.folder.path().join(script), text)?;
        // Not by its own name: a file that was just written may still be open in a child of another thread.
        let interpreter = text.lines().next().and_then(|line| line.strip_prefix("#!")).unwrap_or("/bin/sh");
        let seen_as = &self.seen_as;
        let variables = [
            format!("STAGE={seen_as}"),
            format!("PATH={seen_as}/bin:/usr/sbin:/usr/bin"),
            format!("DPKG_MAINTSCRIPT_PACKAGE={package}"),
            format!("DPKG_MAINTSCRIPT_NAME={script}"),
        ];
        let script = format!("{seen_as}/{script}");
        let mut words = vec!["env"];
        words.extend(variables.iter().map(String::as_str));
        words.extend(interpreter.split_whitespace());
        words.push(&script);
        words.extend(arguments);
        let mut done = Vec::new();
        let status = process::run_lines((self.command)(&words), |line| done.push(format!("says {line}")))?;
        done.extend(fs::read_to_string(&calls)?.lines().map(|call| format!("calls {call}")));
        done.push(status.to_string());
        Ok(done.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::samples::{compare, debian, ours},
        *,
    };

    #[test]
    fn a_wrong_deed_is_told() {
        let right = debian().deeds["postinst 'configure' ''"].clone();
        let cases = [
            ("postinst 'configure' ''", right.replace("[a]", "[b]"), 2),
            ("postinst 'configure' ''", right.replace("status: 0", "status: 1"), 2),
            ("postinst 'configure' ''", format!("{right}\n{right}"), 1),
            ("postinst 'triggered'", format!("says boo\n{IDLE}"), 1),
            ("postrm 'purge'", format!("calls rm [-rf] [/etc/x]\n{IDLE}"), 1),
        ];
        for (occasion, deed, count) in cases {
            let mut ours = ours();
            ours.deeds.insert(occasion.into(), deed);
            let found = compare(ours, debian());
            assert_eq!(found.len(), count, "{found:?}");
            assert!(found.iter().all(|line| line.starts_with(&format!("iptables: {occasion} "))), "{found:?}");
        }
        let mut ours = ours();
        ours.deeds.clear();
        assert_eq!(compare(ours, debian()).len(), 1);
    }

    #[test]
    fn scripts_are_run_without_effect() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "").unwrap();
        let script = format!(
            "#!/bin/sh\nset -e\necho \"$DPKG_MAINTSCRIPT_PACKAGE $DPKG_MAINTSCRIPT_NAME\"\nrm -f '{}'\n\
             if [ \"$1\" = configure ]; then update-alternatives --install 'a b' \"$2\"; fi\n[ \"$1\" != abort-remove ]\n",
            victim.display()
        );
        let mut package = debian();
        package.members.insert("postinst".into(), script);
        let place = folder.path().to_str().unwrap().to_owned();
        let stage = Stage::set(folder, &place, |words| {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]);
            command
        });
        let deeds = stage.unwrap().rehearse(&package).unwrap();
        assert_eq!(deeds.len(), OCCASIONS.iter().filter(|(script, _)| *script == "postinst").count());
        let removal = format!("says iptables postinst\ncalls rm [-f] [{}]\n", victim.display());
        let expected = format!("{removal}calls update-alternatives [--install] [a b] [1.8.11-2]\nexit status: 0");
        assert_eq!(deeds["postinst 'configure' '1.8.11-2'"], expected);
        assert_eq!(deeds["postinst 'triggered' 'ldconfig'"], format!("{removal}exit status: 0"));
        assert_eq!(deeds["postinst 'abort-remove'"], format!("{removal}exit status: 1"));
    }
}
