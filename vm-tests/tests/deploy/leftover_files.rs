// SPDX-License-Identifier: GPL-2.0-only
//! Compares the files and settings before the installation and after the purge.

use anyhow::{Result, ensure};

use crate::deploy_test::DeployTest;

/// Lists path, type, mode, owner and size of each file and the target of each link, and the
/// checksums of the files in /etc and /boot.
const FILES: &str = r"
    find / -xdev \
        -type d -printf '%p\t%y %m %u:%g\n' -o \
        -type l -printf '%p\t%y %l\n' -o \
        -printf '%p\t%y %m %u:%g %s\n'
    find /etc /boot -xdev -type f -exec md5sum {} + | sed 's/^\([^ ]*\)  \(.*\)/\2\tis \1/'";

/// Commands whose output must not change.
const STATES: [&str; 3] = [
    "dpkg-query --show --showformat='${db:Status-Abbrev} ${Package} ${Version}\\n'",
    "update-alternatives --get-selections",
    "systemctl list-unit-files --no-legend",
];

/// Files that may differ, and the reason. A path with a slash at its end stands for all files in
/// the folder.
const ALLOWED: [(&str, &str); 16] = [
    ("/boot/grub/grubenv", "the next entry to boot"),
    ("/etc/ld.so.cache", "generated again, with the same libraries in another order"),
    ("/root/", "the lists of this comparison"),
    ("/srv/xt-traffic", "the administrator's copy of the packages"),
    ("/tmp/", "temporary files"),
    ("/var/backups/", "daily backups of dpkg's database"),
    ("/var/cache/", "caches of apt, debconf and ldconfig"),
    ("/var/lib/apt/", "indexes, and the automatically installed packages"),
    ("/var/lib/dpkg/available", "dpkg's list of packages, in any order"),
    ("/var/lib/dpkg/lock", "dpkg's locks"),
    ("/var/lib/dpkg/status", "compared with dpkg-query"),
    ("/var/lib/dpkg/triggers/", "pending triggers"),
    ("/var/lib/systemd/", "seeds and timestamps of timers"),
    ("/var/lib/dpkg/alternatives/", "compared with update-alternatives"),
    ("/var/log/", "logs"),
    ("/var/tmp/", "temporary files"),
];

/// The state before the installation.
pub struct LeftoverFiles {
    states: Vec<String>,
}

impl LeftoverFiles {
    /// Records the state. The list of files stays in the VM.
    pub fn record(test: &mut DeployTest) -> Result<Self> {
        test.vm.quietly(&format!("{{ {FILES}\n}} | sort >/root/before"))?;
        Ok(Self { states: states(test)? })
    }

    /// Compares the state with the recorded one.
    pub fn compare(&self, test: &mut DeployTest) -> Result<()> {
        for ((before, after), command) in self.states.iter().zip(states(test)?).zip(STATES) {
            let [removed, new] = [(before, &after), (&after, before)].map(|(one, other)| only_in(one, other));
            ensure!(before == &after, "{command}: removed lines:\n{removed}\nnew lines:\n{new}");
        }
        test.vm.quietly(&format!("{{ {FILES}\n}} | sort >/root/after"))?;
        let output = test.vm.quietly("diff /root/before /root/after || true")?;
        let changes = output.lines().filter(|line| line.starts_with(['<', '>']));
        let unexpected: Vec<&str> = changes.filter(|line| !is_allowed(&line[2..])).collect();
        ensure!(unexpected.is_empty(), "files that differ:\n{}", unexpected.join("\n"));
        test.vm.must("dpkg --verify iptables libxtables12 libip4tc2 libip6tc2")?;
        test.vm.must("ls -A /etc/xt-traffic* /usr/lib/modules /boot /proc/net/xt_traffic 2>&1 || true").map(drop)
    }
}

fn states(test: &mut DeployTest) -> Result<Vec<String>> {
    STATES.iter().map(|command| test.vm.quietly(command)).collect()
}

fn only_in(one: &str, other: &str) -> String {
    let lines: Vec<&str> = one.lines().filter(|line| !other.lines().any(|o| o == *line)).collect();
    lines.join("\n")
}

fn is_allowed(line: &str) -> bool {
    let path = line.split('\t').next().unwrap_or(line);
    ALLOWED.iter().any(|(allowed, _)| match allowed.strip_suffix('/') {
        Some(_) => path.starts_with(allowed),
        None => path == *allowed || path.strip_prefix(allowed).is_some_and(|rest| rest.starts_with('-')),
    })
}
