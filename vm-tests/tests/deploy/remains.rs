// SPDX-License-Identifier: GPL-2.0
//! What is on the machine's disk before and after.

use anyhow::{Result, ensure};

use crate::scene::Scene;

/// A line for each file: its path, kind, mode, owner, size, and where a link points to. Beside it a line for the
/// content of each file that is an administrator's or the boot loader's.
const FILES: &str = r"
    find / -xdev \
        -type d -printf '%p\t%y %m %u:%g\n' -o \
        -type l -printf '%p\t%y %l\n' -o \
        -printf '%p\t%y %m %u:%g %s\n'
    find /etc /boot -xdev -type f -exec md5sum {} + | sed 's/^\([^ ]*\)  \(.*\)/\2\tis \1/'";

/// What must be as it was, to the letter.
const STATES: [&str; 3] = [
    "dpkg-query --show --showformat='${db:Status-Abbrev} ${Package} ${Version}\\n'",
    "update-alternatives --get-selections",
    "systemctl list-unit-files --no-legend",
];

/// What may differ, and why. A path that ends in a slash means everything in the folder.
const ALLOWED: [(&str, &str); 16] = [
    ("/boot/grub/grubenv", "the next entry to boot, until it has booted"),
    ("/etc/ld.so.cache", "made again, with the same libraries in another order"),
    ("/root/", "this comparison's own lists"),
    ("/srv/xt-traffic", "the administrator's copy of the packages"),
    ("/tmp/", "temporary files"),
    ("/var/backups/", "dpkg's database as it was each day"),
    ("/var/cache/", "what apt, debconf and ldconfig remember"),
    ("/var/lib/apt/", "indexes, and which packages apt has installed by itself"),
    ("/var/lib/dpkg/available", "dpkg's list of packages, in its own order"),
    ("/var/lib/dpkg/lock", "taken by whoever changes packages"),
    ("/var/lib/dpkg/status", "compared by dpkg-query"),
    ("/var/lib/dpkg/triggers/", "who waits for whom, empty when dpkg is done"),
    ("/var/lib/systemd/", "seeds, and when timers ran last"),
    ("/var/lib/dpkg/alternatives/", "compared by update-alternatives"),
    ("/var/log/", "what happened is not undone"),
    ("/var/tmp/", "temporary files"),
];

/// The machine as it was.
pub struct Remains {
    states: [String; STATES.len()],
}

impl Remains {
    /// Looks at the machine. The list of files stays there.
    pub fn look(scene: &mut Scene) -> Result<Self> {
        scene.machine.quietly(&format!("{{ {FILES}\n}} | sort >/root/before"))?;
        Ok(Self { states: states(scene)? })
    }

    /// Fails when something is there that was not, or is not as it was.
    pub fn compare(&self, scene: &mut Scene) -> Result<()> {
        for ((before, after), command) in self.states.iter().zip(states(scene)?).zip(STATES) {
            let [gone, new] = [(before, &after), (&after, before)].map(|(one, other)| only_in(one, other));
            ensure!(before == &after, "{command}: these lines have gone:\n{gone}\nthese have come:\n{new}");
        }
        scene.machine.quietly(&format!("{{ {FILES}\n}} | sort >/root/after"))?;
        let output = scene.machine.quietly("diff /root/before /root/after || true")?;
        let changes = output.lines().filter(|line| line.starts_with(['<', '>']));
        let unexpected: Vec<&str> = changes.filter(|line| !is_allowed(&line[2..])).collect();
        ensure!(unexpected.is_empty(), "files that are not as they were:\n{}", unexpected.join("\n"));
        scene.machine.must("dpkg --verify iptables libxtables12 libip4tc2 libip6tc2")?;
        scene.machine.must("ls -A /etc/xt-traffic* /usr/lib/modules /boot /proc/net/xt_traffic 2>&1 || true").map(drop)
    }
}

fn states(scene: &mut Scene) -> Result<[String; STATES.len()]> {
    let mut states = STATES.map(String::from);
    for state in &mut states {
        *state = scene.machine.quietly(state)?;
    }
    Ok(states)
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
