// SPDX-License-Identifier: GPL-2.0-only
//! The Debian VM, the frames that it has received, and the tables that it must show.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use traffic_model::capture::Capture;
use traffic_model::model::{self, Expected, Rule};
use vm_harness::debian_vm::{DebianVm, Image};
use vm_harness::poll;
use vm_harness::replay::TABLES;
use vm_tests::mirror::MIRROR;

/// What the administrator adds to `/etc/xt-traffic.conf`: the networks are those of the captures.
pub const CONFIGURATION: &str = "\
port eth1
table RSN  192.0.2.0/24  --traffic --ipconn --portconn
table RSN6 2001:db8::/32 --traffic
";

/// Where the file system with the packages is mounted, and where the administrator has put the
/// packages.
const DELIVERY: &str = "/run/delivery";
const PLACE: &str = "/srv/xt-traffic";

/// The packages that must be installed from our repository, besides those of the kernel.
const OURS: [&str; 3] = ["iptables", "libxtables12", "xt-traffic"];

/// The longest time until a table shows frames that the port has counted.
const TABLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A repository.
#[derive(Clone, Copy)]
pub struct Release {
    name: &'static str,
    folder: &'static str,
    /// The place of its kernel in [`DeployTest::kernels`].
    number: usize,
}

impl Release {
    pub const FIRST: Self = Self { name: "first", folder: "release-1", number: 0 };
    /// It has higher versions of all packages, and a kernel with a higher release.
    pub const SECOND: Self = Self { name: "second", folder: "release-2", number: 1 };

    /// The name of its folder.
    pub fn folder(self) -> &'static str {
        self.folder
    }
}

/// The kernel of a repository's packages.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The output of `uname -r`.
    pub release: String,
    /// The metapackage of its series, which depends on its packages.
    pub metapackage: String,
}

impl Kernel {
    /// Finds `linux-image-RELEASE` and `xt-traffic-SERIES` in an index.
    fn in_index(index: &str) -> Option<Self> {
        let begins_with_digit = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let of_series = |name: &str| name.strip_prefix("xt-traffic-").is_some_and(begins_with_digit);
        let release = packages(index).find_map(|(name, _)| name.strip_prefix("linux-image-"))?;
        let (metapackage, _) = packages(index).find(|(name, _)| of_series(name))?;
        Some(Self { release: release.to_owned(), metapackage: metapackage.to_owned() })
    }

    /// The packages for this kernel alone.
    pub fn packages(&self) -> [String; 2] {
        let Self { release, .. } = self;
        [format!("xt-traffic-modules-{release}"), format!("linux-image-{release}")]
    }
}

/// The deployment test.
pub struct DeployTest {
    /// The virtual machine.
    pub vm: DebianVm,
    /// The release of Debian's own kernel.
    pub stock_kernel: String,
    /// The kernels of the two releases.
    kernels: [Kernel; 2],
    /// The frames that the tables have counted.
    received: Vec<Vec<u8>>,
    rules: Vec<(String, Rule)>,
}

impl DeployTest {
    /// Starts the VM and logs in.
    pub fn begin() -> Result<Self> {
        let rules = rules(CONFIGURATION)?;
        let mut vm = DebianVm::power_on(&Image::from_environment()?)?;
        vm.log_in()?;
        mount_packages(&mut vm)?;
        let stock_kernel = vm.quietly("uname -r")?.trim().to_owned();
        let mut kernel = |release: Release| {
            let index = vm.quietly(&format!("cat {DELIVERY}/{}/Packages", release.folder))?;
            Kernel::in_index(&index).with_context(|| format!("the {} release has no kernel", release.name))
        };
        let kernels = [kernel(Release::FIRST)?, kernel(Release::SECOND)?];
        ensure!(kernels[0].release != kernels[1].release, "both releases have the kernel {}", kernels[0].release);
        Ok(Self { vm, stock_kernel, kernels, received: Vec::new(), rules })
    }

    /// The kernel of a release.
    pub fn kernel(&self, release: Release) -> Kernel {
        self.kernels[release.number].clone()
    }

    /// Runs the steps and writes the transcript to `target/deploy`, also after a failure.
    pub fn run(mut self, steps: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let result = steps(&mut self);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/deploy");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("transcript.txt"), self.vm.transcript().to_string())?;
        result?;
        self.vm.power_off().map(drop)
    }

    /// Runs a step and prints how long it took.
    pub fn step(&mut self, title: &str, step: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let begun = Instant::now();
        self.vm.transcript().heading(title);
        let done = step(self).and_then(|()| self.vm.check_log());
        eprintln!("{:6.1} s  {title}", begun.elapsed().as_secs_f64());
        done.with_context(|| format!("in the step \"{title}\""))
    }

    /// Says that no frame has been counted in the tables that exist now.
    pub fn tables_are_new(&mut self) {
        self.received.clear();
    }

    /// Reboots, which resets all tables. Fails when the VM boots another kernel than `kernel`.
    pub fn reboot(&mut self, kernel: &str) -> Result<()> {
        self.tables_are_new();
        self.vm.reboot()?;
        let booted = self.vm.must("uname -r")?;
        ensure!(booted.trim() == kernel, "the VM has booted {booted}");
        Ok(())
    }

    /// Reboots with the entry of another kernel in GRUB's menu, once.
    pub fn reboot_once(&mut self, kernel: &str) -> Result<()> {
        let entry = format!("Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux {kernel}");
        self.vm.must(&format!("grub-reboot '{entry}'"))?;
        self.reboot(kernel)
    }

    /// Waits until systemd has started all units. Fails when the state of the system is not
    /// `state`.
    pub fn await_running(&mut self, state: &str) -> Result<()> {
        let output = self.vm.run("systemctl is-system-running --wait")?;
        if output.stdout.trim() != state {
            let failed = self.vm.run("systemctl --failed; journalctl --boot --priority=warning")?;
            bail!("the system is {}, not {state}:\n{}", output.stdout.trim(), failed.stdout);
        }
        Ok(())
    }

    /// Puts the packages of a release where the administrator keeps them.
    pub fn provide(&mut self, release: Release) -> Result<()> {
        mount_packages(&mut self.vm)?;
        self.vm.quietly(&format!("ln -sfn {DELIVERY}/{} {PLACE}", release.folder))?;
        self.vm.transcript().remark(&format!("{PLACE} now holds the packages of the {} release", release.name));
        Ok(())
    }

    /// Checks that the installed packages are those of a release.
    pub fn check_versions(&mut self, of: Release) -> Result<()> {
        let Release { name: release, folder, number } = of;
        let index = self.vm.quietly(&format!("cat {DELIVERY}/{folder}/Packages"))?;
        let offered: BTreeMap<_, _> = packages(&index).collect();
        let installed = self.vm.quietly("dpkg-query --show --showformat='${Package} ${Version}\\n'")?;
        let installed: BTreeMap<_, _> = installed.lines().filter_map(|line| line.split_once(' ')).collect();
        let kernel = &self.kernels[number];
        let packages = kernel.packages();
        let names = OURS.into_iter().chain([kernel.metapackage.as_str()]);
        for name in names.chain(packages.iter().map(String::as_str)) {
            ensure!(offered.contains_key(name), "the {release} release has no {name}");
            ensure!(installed.contains_key(name), "{name} is not installed");
        }
        for (name, version) in offered {
            let current = installed.get(name).copied().unwrap_or(version);
            ensure!(current == version, "{name} {current} is installed, but the {release} release has {version}");
        }
        Ok(())
    }

    /// The version of iptables in a repository.
    pub fn iptables(&mut self, folder: &str) -> Result<String> {
        let index = self.vm.quietly(&format!("cat {DELIVERY}/{folder}/Packages"))?;
        let version = packages(&index).find(|(name, _)| *name == "iptables").map(|(_, version)| version.to_owned());
        version.with_context(|| format!("the repository {folder} has no iptables"))
    }

    /// Sends a recorded capture to the mirror port and compares the tables with the model's.
    pub fn count(&mut self, capture: &str) -> Result<()> {
        let frames = frames(capture)?;
        self.vm.transcript().remark(&format!("{} frames arrive at eth1: {capture}.pcap", frames.len()));
        self.vm.mirror(&frames)?;
        self.check_tables(frames)?;
        self.vm.must("xt-traffic status").map(drop)
    }

    /// Prints all tables and compares them with the model's tables for all frames since boot.
    /// `arrived` are the frames since the last call.
    pub fn check_tables(&mut self, arrived: Vec<Vec<u8>>) -> Result<()> {
        self.received.extend(arrived);
        let mut counted = 0;
        for (name, rule) in self.rules.clone() {
            for (file, want) in model::texts(&name, &rule, MIRROR, &self.received) {
                let command = format!("cat {TABLES}/{file}");
                let same = || Ok((self.vm.quietly(&command)? == want).then_some(()));
                // After a timeout the comparison reports the difference.
                drop(poll(TABLE_TIMEOUT, &file, same));
                model::same_table(&file, &self.vm.must(&command)?, &want)?;
                counted += want.lines().count() - 1;
            }
        }
        ensure!(counted > 0, "the tables have no rows");
        Ok(())
    }

    /// Checks that the counts do not depend on the arrival times, which the model does not know.
    pub fn check_independence_of_time(&self, frames: &[Vec<u8>]) -> Result<()> {
        for (name, rule) in &self.rules {
            let slowly = frames.iter().enumerate().map(|(n, frame)| (Duration::from_secs(60 * n as u64), frame));
            let slowly = Expected::at_times(rule, MIRROR, slowly);
            let at_once = Expected::of(rule, MIRROR, frames);
            ensure!(slowly == at_once, "{name}: the counts depend on the arrival times");
        }
        Ok(())
    }
}

/// Mounts the file system with the packages, unless it is mounted.
fn mount_packages(vm: &mut DebianVm) -> Result<()> {
    let mount = format!("mkdir -p {DELIVERY} && mount -o ro LABEL=packages {DELIVERY}");
    vm.quietly(&format!("mountpoint -q {DELIVERY} || {{ {mount}; }}")).map(drop)
}

/// The frames of a recorded capture.
pub fn frames(capture: &str) -> Result<Vec<Vec<u8>>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("captures/{capture}.pcap"));
    Ok(Capture::open(&path)?.frames().map(<[u8]>::to_vec).collect())
}

/// The rules of a configuration.
fn rules(configuration: &str) -> Result<Vec<(String, Rule)>> {
    let tables = configuration.lines().filter_map(|line| line.strip_prefix("table "));
    let rules = tables.map(|table| {
        let mut words = table.split_whitespace();
        let (name, net) = (words.next().context("no name")?, words.next().context("no network")?);
        let program = if net.contains(':') { "ip6tables" } else { "iptables" };
        let options = words.collect::<Vec<_>>().join(" ");
        let rule = format!("{program} -A PROMISC -m traffic {options} --net {net} --name {name}");
        Rule::parse(&rule)?.with_context(|| format!("not a rule that counts: {rule}"))
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
