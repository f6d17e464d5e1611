// SPDX-License-Identifier: GPL-2.0-only
//! Dry runs of maintainer scripts. Each script runs in the sandbox, in every way in which dpkg
//! calls it. A stub that logs its arguments replaces the programs that would change the system.
//! <https://www.debian.org/doc/debian-policy/ch-maintainerscripts.html>

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use fs_err::{self as fs, os::unix::fs::symlink};

use super::package::{self, Package};
use crate::process;

/// The scripts, and the arguments with which dpkg calls them. `$old` and `$new` are versions before
/// and after all of those that are compared, and `$debian` is Debian's.
/// <https://www.debian.org/doc/debian-policy/ch-maintainerscripts.html#summary-of-ways-maintainer-scripts-are-called>
const CALLS: [(&str, &str); 4] = [
    ("preinst", "install; install $old $new; upgrade $old $new; upgrade $debian $new; abort-upgrade $new"),
    (
        "postinst",
        "configure ''; configure $old; configure $debian; configure $new; abort-upgrade $new; abort-remove; \
         abort-remove in-favour other 1; abort-deconfigure in-favour other 1; \
         abort-deconfigure in-favour other 1 removing third 1; triggered ldconfig",
    ),
    (
        "prerm",
        "remove; upgrade $old; upgrade $debian; upgrade $new; failed-upgrade $debian $new; \
         remove in-favour other 1; deconfigure in-favour other 1; deconfigure in-favour other 1 removing third 1",
    ),
    (
        "postrm",
        "remove; purge; upgrade $new; failed-upgrade $debian $new; abort-install; abort-install $debian $new; \
         abort-upgrade $debian $new; disappear other 1",
    ),
];

/// The programs with which maintainer scripts change the system.
const STUBS: &str = "cp deb-systemd-helper deb-systemd-invoke dpkg dpkg-divert dpkg-maintscript-helper dpkg-statoverride \
                     dpkg-trigger invoke-rc.d ldconfig ln mv rm rmdir update-alternatives update-rc.d";

/// The stub.
const STUB: &str = include_str!("stub.sh");

/// The actions of a script that does nothing, and of a script that the package does not have.
pub(super) const NO_ACTION: &str = "exit status: 0";

/// A folder for dry runs.
pub(super) struct DryRun<'a, F> {
    folder: &'a Path,
    debian_version: &'a str,
    /// Makes a command in the sandbox.
    command: F,
}

impl<'a, F: Fn(&[&str]) -> Command> DryRun<'a, F> {
    /// Writes the stubs to `folder`, which is the work folder of the commands that `command` makes.
    pub(super) fn new(folder: &'a Path, debian_version: &'a str, command: F) -> Result<Self> {
        let programs = folder.join("bin");
        fs::create_dir(&programs)?;
        let stub = folder.join("stub");
        fs::write(&stub, STUB)?;
        fs::set_permissions(stub, PermissionsExt::from_mode(0o755))?;
        STUBS.split(' ').try_for_each(|name| symlink("../stub", programs.join(name)))?;
        Ok(Self { folder, debian_version, command })
    }

    /// Replaces the package's scripts by the actions of each call of them.
    pub(super) fn replace_scripts(&self, package: &mut Package) -> Result<()> {
        for (script, calls) in CALLS {
            let text = package.remove(&format!("the control file {script}"));
            for call in calls.split("; ").map(|arguments| format!("{script} {arguments}")) {
                let run = |text| self.run(package::name(package), script, text, &call);
                let actions = text.as_deref().map_or_else(|| Ok(NO_ACTION.to_owned()), run);
                let actions = actions.with_context(|| format!("cannot run {call}"))?;
                package.insert(call, actions);
            }
        }
        Ok(())
    }

    /// The output of one call, the calls of stubs and the exit status, one a line.
    fn run(&self, package: &str, script: &str, text: &str, call: &str) -> Result<String> {
        let log = self.folder.join("log");
        fs::write(&log, "")?;
        fs::write(self.folder.join(script), text)?;
        // The kernel refuses to execute a file that is open for writing, and a child of another
        // thread may have inherited the open file. So the interpreter is called with the file as
        // its argument.
        let interpreter = text.lines().next().and_then(|line| line.strip_prefix("#!")).unwrap_or("/bin/sh");
        let shell_script = format!(
            "export DRY_RUN=$PWD PATH=$PWD/bin:/usr/sbin:/usr/bin\n\
             export DPKG_MAINTSCRIPT_PACKAGE={package} DPKG_MAINTSCRIPT_NAME={script}\n\
             old=1.4.21-1 debian={} new=1:9-1\n\
             cd / && exec {interpreter} $DRY_RUN/{call}",
            self.debian_version
        );
        let mut actions = Vec::new();
        let command = (self.command)(&["sh", "-c", &shell_script]);
        let status = process::run_lines(command, |line| actions.push(format!("prints {line}")))?;
        actions.extend(fs::read_to_string(&log)?.lines().map(|line| format!("calls {line}")));
        actions.push(status.to_string());
        Ok(actions.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_run_without_effect() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "").unwrap();
        let script = format!(
            "#!/bin/sh\nset -e\necho \"$DPKG_MAINTSCRIPT_PACKAGE $DPKG_MAINTSCRIPT_NAME\"\nrm -f '{}'\n\
             if [ \"$1\" = configure ]; then update-alternatives --install 'a b' \"$2\"; fi\n[ \"$1\" != abort-remove ]\n",
            victim.display()
        );
        let properties = [("the field Package", "iptables"), ("the control file postinst", script.as_str())];
        let mut package: Package = properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let dry_run = DryRun::new(folder.path(), "1.8.11-2", |words| {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]).current_dir(folder.path());
            command
        });
        dry_run.unwrap().replace_scripts(&mut package).unwrap();
        assert!(victim.exists());
        assert_eq!(package.len(), 1 + 31);
        let removal = format!("prints iptables postinst\ncalls rm [-f] [{}]\n", victim.display());
        for (call, expected) in [
            (
                "postinst configure $debian",
                format!("{removal}calls update-alternatives [--install] [a b] [1.8.11-2]\nexit status: 0"),
            ),
            (
                "postinst configure ''",
                format!("{removal}calls update-alternatives [--install] [a b] []\nexit status: 0"),
            ),
            ("postinst triggered ldconfig", format!("{removal}exit status: 0")),
            ("postinst abort-remove", format!("{removal}exit status: 1")),
            ("prerm remove", NO_ACTION.to_owned()),
        ] {
            assert_eq!(package[call], expected, "{call}");
        }
    }
}
