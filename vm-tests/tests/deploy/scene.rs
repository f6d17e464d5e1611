// SPDX-License-Identifier: GPL-2.0
//! The machine, what it has been shown, and what must have come of it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use traffic_model::capture::Capture;
use traffic_model::model::{self, Expected, Rule};
use vm_harness::machine::{Image, Machine};
use vm_harness::replay::TABLES;

/// What the administrator adds to `/etc/xt-traffic.conf`: the networks are those of the captures.
pub const CONFIGURATION: &str = "\
port eth1
table RSN  192.0.2.0/24  --traffic --ipconn --portconn
table RSN6 2001:db8::/32 --traffic
";

/// Where the file system with the packages is, and where the administrator has put the packages.
const DELIVERY: &str = "/run/delivery";
const PLACE: &str = "/srv/xt-traffic";

/// Debian's own repository, which a real machine reaches over the network. It holds what would be needed from there.
const DEBIAN: &str = "\
cat >/etc/apt/sources.list.d/debian.sources <<END
Types: deb
URIs: file:/run/delivery/debian
Suites: ./
Trusted: yes
END";

/// What must be installed from our repository, beside what belongs to its kernel.
const OURS: [&str; 3] = ["iptables", "libxtables12", "xt-traffic"];

/// A table follows the port's counter after so long at the latest.
const SETTLING: Duration = Duration::from_secs(60);

/// Which of the repositories is on offer: the second has higher versions of everything.
#[derive(Clone, Copy, Debug)]
pub enum Release {
    First,
    Second,
}

impl Release {
    fn folder(self) -> String {
        let name = match self {
            Self::First => "release-1",
            Self::Second => "release-2",
        };
        format!("{DELIVERY}/{name}")
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first",
            Self::Second => "second",
        })
    }
}

/// The kernel that a repository has packages of.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// What `uname -r` says of it.
    pub release: String,
    /// The configuration that it is built in.
    pub config: String,
}

impl Kernel {
    /// The one of `linux-image-VERSION-CONFIG-promisc` in an index.
    fn in_index(index: &str) -> Option<Self> {
        let release = packages(index).find_map(|(name, _)| name.strip_prefix("linux-image-"))?;
        let (_, config) = release.strip_suffix("-promisc")?.rsplit_once('-')?;
        Some(Self { release: release.to_owned(), config: config.to_owned() })
    }

    /// The package that pulls in all others for this kernel.
    pub fn metapackage(&self) -> String {
        format!("xt-traffic-{}", self.config)
    }

    /// Everything that is installed for this kernel.
    pub fn packages(&self) -> [String; 3] {
        let Self { release, .. } = self;
        [self.metapackage(), format!("xt-traffic-modules-{release}"), format!("linux-image-{release}")]
    }
}

/// A machine in the course of its life.
pub struct Scene {
    /// The machine.
    pub machine: Machine,
    /// The release of Debian's own kernel.
    pub stock_kernel: String,
    /// The kernel of the packages.
    pub kernel: Kernel,
    /// The frames that the running kernel has seen.
    seen: Vec<Vec<u8>>,
    rules: Vec<(String, Rule)>,
}

impl Scene {
    /// Switches the machine on, and logs in.
    pub fn begin() -> Result<Self> {
        let rules = rules(CONFIGURATION)?;
        let mut machine = Machine::power_on(&Image::from_environment()?)?;
        machine.log_in()?;
        bring_packages(&mut machine)?;
        let stock_kernel = machine.quietly("uname -r")?.trim().to_owned();
        let index = machine.quietly(&format!("cat {}/Packages", Release::First.folder()))?;
        let kernel = Kernel::in_index(&index).context("there is no kernel to install")?;
        Ok(Self { machine, stock_kernel, kernel, seen: Vec::new(), rules })
    }

    /// Does `story`, and leaves the transcript in `target/deploy`, also when something fails.
    pub fn play(mut self, story: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let played = story(&mut self);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/deploy");
        fs::create_dir_all(&folder)?;
        let file = folder.join("transcript.txt");
        fs::write(&file, self.machine.transcript().to_string()).with_context(|| file.display().to_string())?;
        played?;
        self.machine.power_off().map(drop)
    }

    /// Does one step, and says how long it took.
    pub fn step(&mut self, title: &str, step: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let begun = Instant::now();
        self.machine.transcript().heading(title);
        let done = step(self).and_then(|()| self.machine.check_log());
        eprintln!("{:6.1} s  {title}", begun.elapsed().as_secs_f64());
        done.with_context(|| format!("in the step \"{title}\""))
    }

    /// Reboots. What was counted is gone then.
    pub fn reboot(&mut self) -> Result<()> {
        self.seen.clear();
        self.machine.reboot()
    }

    /// Waits until systemd has started everything, and fails when it calls the result by another name than `state`.
    pub fn await_running(&mut self, state: &str) -> Result<()> {
        let output = self.machine.run("systemctl is-system-running --wait")?;
        if output.text.trim() != state {
            let failed = self.machine.run("systemctl --failed; journalctl --boot --priority=warning")?;
            anyhow::bail!("the system is {}, not {state}:\n{}", output.text.trim(), failed.text);
        }
        Ok(())
    }

    /// Stands in for the network on which Debian's packages are.
    pub fn bring_debian(&mut self) -> Result<()> {
        self.machine.quietly(DEBIAN).map(drop)
    }

    /// Puts the packages of a release where the administrator keeps them, as `scp` would.
    pub fn offer(&mut self, release: Release) -> Result<()> {
        bring_packages(&mut self.machine)?;
        self.machine.quietly(&format!("ln -sfn {} {PLACE}", release.folder()))?;
        self.machine.transcript().remark(&format!("{PLACE} now holds the packages of the {release} release"));
        Ok(())
    }

    /// Fails when an installed package, of those that a release has, is not of that release.
    pub fn check_versions(&mut self, release: Release) -> Result<()> {
        let index = self.machine.quietly(&format!("cat {}/Packages", release.folder()))?;
        let offered: BTreeMap<_, _> = packages(&index).collect();
        let installed = self.machine.quietly("dpkg-query --show --showformat='${Package} ${Version}\\n'")?;
        let installed: BTreeMap<_, _> = installed.lines().filter_map(|line| line.split_once(' ')).collect();
        let kernel = self.kernel.packages();
        for name in OURS.into_iter().chain(kernel.iter().map(String::as_str)) {
            ensure!(offered.contains_key(name), "the {release} release has no {name}");
            ensure!(installed.contains_key(name), "{name} is not installed");
        }
        for (name, version) in offered {
            let is = installed.get(name).copied().unwrap_or(version);
            ensure!(is == version, "{name} {is} is installed, but the {release} release has {version}");
        }
        Ok(())
    }

    /// The version of Debian's iptables.
    pub fn stock_iptables(&mut self) -> Result<String> {
        let index = self.machine.quietly(&format!("cat {DELIVERY}/debian/Packages"))?;
        let version = packages(&index).find(|(name, _)| *name == "iptables").map(|(_, version)| version.to_owned());
        version.context("Debian has no iptables")
    }

    /// Sends a recorded capture to the mirrored port, and compares the tables with the model's.
    pub fn count(&mut self, capture: &str) -> Result<()> {
        let frames = frames(capture)?;
        self.machine.transcript().remark(&format!("{} frames come to eth1: {capture}.pcap", frames.len()));
        self.machine.mirror(&frames)?;
        self.have_sent(frames);
        self.check_tables()?;
        self.machine.must("xt-traffic status").map(drop)
    }

    /// Remembers frames that have been sent.
    pub fn have_sent(&mut self, frames: Vec<Vec<u8>>) {
        self.seen.extend(frames);
    }

    /// Shows every table, and fails when one is not what the model makes of all frames since boot.
    pub fn check_tables(&mut self) -> Result<()> {
        let mut counted = 0;
        for (name, rule) in self.rules.clone() {
            for (file, want) in model::texts(&name, &rule, Machine::mac(), &self.seen) {
                let command = format!("cat {TABLES}/{file}");
                let deadline = Instant::now() + SETTLING;
                while self.machine.quietly(&command)? != want && Instant::now() < deadline {}
                model::same_table(&file, &self.machine.must(&command)?, &want)?;
                counted += want.lines().count() - 1;
            }
        }
        ensure!(counted > 0, "nothing was to be counted");
        Ok(())
    }

    /// Fails when it matters at what times frames arrive: then the model cannot tell what must be counted while
    /// other things go on.
    pub fn check_timeless(&self, frames: &[Vec<u8>]) -> Result<()> {
        for (name, rule) in &self.rules {
            let slowly = frames.iter().enumerate().map(|(n, frame)| (Duration::from_secs(60 * n as u64), frame));
            let slowly = Expected::at_times(rule, Machine::mac(), slowly);
            ensure!(slowly == Expected::of(rule, Machine::mac(), frames), "{name}: the times matter");
        }
        Ok(())
    }
}

/// Mounts the file system with the packages, unless it is mounted.
fn bring_packages(machine: &mut Machine) -> Result<()> {
    let mount = format!("mkdir -p {DELIVERY} && mount -o ro LABEL=packages {DELIVERY}");
    machine.quietly(&format!("mountpoint -q {DELIVERY} || {{ {mount}; }}")).map(drop)
}

/// The frames of a recorded capture.
pub fn frames(capture: &str) -> Result<Vec<Vec<u8>>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("captures/{capture}.pcap"));
    Ok(Capture::open(&path)?.frames().map(<[u8]>::to_vec).collect())
}

/// The rules that a configuration asks for.
fn rules(configuration: &str) -> Result<Vec<(String, Rule)>> {
    let tables = configuration.lines().filter_map(|line| line.strip_prefix("table "));
    let rules = tables.map(|table| {
        let mut words = table.split_whitespace();
        let (name, net) = (words.next().context("no name")?, words.next().context("no network")?);
        let program = if net.contains(':') { "ip6tables" } else { "iptables" };
        let options = words.collect::<Vec<_>>().join(" ");
        let rule = format!("{program} -A PROMISC -m traffic {options} --net {net} --name {name}");
        Rule::parse(&rule)?.with_context(|| format!("no rule that counts: {rule}"))
    });
    rules.collect()
}

/// Names and versions of the packages in an index.
fn packages(index: &str) -> impl Iterator<Item = (&str, &str)> {
    index.split("\n\n").filter_map(|paragraph| {
        let field = |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Some((field("Package")?, field("Version")?))
    })
}
