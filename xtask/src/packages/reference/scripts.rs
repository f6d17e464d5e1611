// SPDX-License-Identifier: GPL-2.0-only
//! Dry runs of maintainer scripts. Each script runs in the sandbox, in every way in which dpkg
//! calls it. A stub that logs its arguments replaces the programs that would change the system.
//! <https://www.debian.org/doc/debian-policy/ch-maintainerscripts.html>

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use fs_err::{self as fs, os::unix::fs::symlink};

use super::package::{self, Package};
use crate::process;

/// The scripts, and the arguments with which dpkg calls them. `$old` is lower than all versions
/// that are compared, `$new` is higher, and `$debian` is Debian's version.
/// <https://www.debian.org/doc/debian-policy/ch-maintainerscripts.html#summary-of-ways-maintainer-scripts-are-called>
const CALLS: [(&str, &[&str]); 4] = [
    ("preinst", &["install", "install $old $new", "upgrade $old $new", "upgrade $debian $new", "abort-upgrade $new"]),
    (
        "postinst",
        &[
            "configure ''",
            "configure $old",
            "configure $debian",
            "configure $new",
            "abort-upgrade $new",
            "abort-remove",
            "abort-remove in-favour other 1",
            "abort-deconfigure in-favour other 1",
            "abort-deconfigure in-favour other 1 removing third 1",
            "triggered ldconfig",
        ],
    ),
    (
        "prerm",
        &[
            "remove",
            "upgrade $old",
            "upgrade $debian",
            "upgrade $new",
            "failed-upgrade $debian $new",
            "remove in-favour other 1",
            "deconfigure in-favour other 1",
            "deconfigure in-favour other 1 removing third 1",
        ],
    ),
    (
        "postrm",
        &[
            "remove",
            "purge",
            "upgrade $new",
            "failed-upgrade $debian $new",
            "abort-install",
            "abort-install $debian $new",
            "abort-upgrade $debian $new",
            "disappear other 1",
        ],
    ),
];

/// The programs with which maintainer scripts change the system.
const STUBS: &str = "cp deb-systemd-helper deb-systemd-invoke dpkg dpkg-divert dpkg-maintscript-helper dpkg-statoverride \
                     dpkg-trigger invoke-rc.d ldconfig ln mv rm rmdir update-alternatives update-rc.d";

/// The stub.
const STUB: &str = include_str!("stub.sh");

/// The actions of a script that does nothing, and of a script that the package does not have.
const NO_ACTION: &str = "exit status: 0";

/// Writes the stubs to a folder for dry runs. A child process writes the program: the kernel
/// refuses to execute a file that is open for writing, and a child of another thread may have
/// inherited a file that this process has open. The shell would then run the real program of that
/// name.
pub(super) fn write_stubs(folder: &Path) -> Result<()> {
    let (programs, text) = (folder.join("bin"), folder.join("stub.sh"));
    fs::create_dir(&programs)?;
    fs::write(&text, STUB)?;
    let mut install = Command::new("install");
    install.arg("--mode=755").arg(text).arg(folder.join("stub"));
    process::run_foreground(install)?;
    STUBS.split(' ').try_for_each(|name| Ok(symlink("../stub", programs.join(name))?))
}

/// Replaces the scripts of a package by the actions of each call of them: the output, the calls of
/// stubs and the exit status, one a line. `shell` makes a command that runs a shell script in the
/// sandbox, with `folder` as its work folder.
pub(super) fn replace_scripts(
    package: &mut Package,
    folder: &Path,
    debian_version: &str,
    shell: impl Fn(&str) -> Command,
) -> Result<()> {
    let name = package::name(package).to_owned();
    let log = folder.join("log");
    let run = |script: &str, text: &str, call: &str| -> Result<String> {
        fs::write(&log, "")?;
        fs::write(folder.join(script), text)?;
        // The kernel refuses to execute a file that is open for writing, and a child of another
        // thread may have inherited the open file. So the interpreter is called with the file as
        // its argument.
        let interpreter = text.lines().next().and_then(|line| line.strip_prefix("#!")).unwrap_or("/bin/sh");
        let command = shell(&format!(
            "export DRY_RUN=$PWD PATH=$PWD/bin:/usr/sbin:/usr/bin\n\
             export DPKG_MAINTSCRIPT_PACKAGE={name} DPKG_MAINTSCRIPT_NAME={script}\n\
             old=1.4.21-1 debian={debian_version} new=1:9-1\n\
             cd / && exec {interpreter} $DRY_RUN/{call}"
        ));
        let mut actions = Vec::new();
        let status = process::run_lines(command, |line| actions.push(format!("prints {line}")))?;
        actions.extend(fs::read_to_string(&log)?.lines().map(|line| format!("calls {line}")));
        actions.push(status.to_string());
        Ok(actions.join("\n"))
    };
    for (script, calls) in CALLS {
        let text = package.remove(&format!("the control file {script}"));
        for call in calls.iter().map(|arguments| format!("{script} {arguments}")) {
            let actions = text.as_ref().map_or_else(|| Ok(NO_ACTION.to_owned()), |text| run(script, text, &call));
            package.insert(call.clone(), actions.with_context(|| format!("cannot run {call}"))?);
        }
    }
    Ok(())
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
        write_stubs(folder.path()).unwrap();
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).current_dir(folder.path());
            command
        };
        replace_scripts(&mut package, folder.path(), "1.8.11-2", shell).unwrap();
        assert!(victim.exists());
        assert_eq!(package.len(), 1 + 31);
        let removal = format!("prints iptables postinst\ncalls rm [-f] [{}]\n", victim.display());
        let install = format!("{removal}calls update-alternatives [--install] [a b]");
        for (call, expected) in [
            ("postinst configure $debian", format!("{install} [1.8.11-2]\nexit status: 0")),
            ("postinst configure ''", format!("{install} []\nexit status: 0")),
            ("postinst triggered ldconfig", format!("{removal}exit status: 0")),
            ("postinst abort-remove", format!("{removal}exit status: 1")),
            ("prerm remove", NO_ACTION.to_owned()),
        ] {
            assert_eq!(package[call], expected, "{call}");
        }
    }
}
