// SPDX-License-Identifier: GPL-2.0-only
//! Installs the packages in the Debian VM, counts, reboots, upgrades, downgrades and purges them.
//! This is one test, as each step continues where the one before has ended.

mod deploy_test;
mod leftover_files;
mod stock;

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use vm_harness::debian_vm::check_readme;
use vm_tests::unwrap;

use self::deploy_test::{CONFIGURATION, DeployTest, Release};
use self::leftover_files::LeftoverFiles;

const README: &str = include_str!("../../../README.md");

/// Long enough for apt and the packages' scripts with TCG.
const APT_TIMEOUT: Duration = Duration::from_secs(600);

/// Adds Debian's repository with the needed packages. A real host reaches it over the network.
const DEBIAN: &str = "\
cat >/etc/apt/sources.list.d/debian.sources <<END
Types: deb
URIs: file:/run/delivery/debian
Suites: ./
Trusted: yes
END";

/// Adds the local repository.
const SOURCE: &str = "\
cat >/etc/apt/sources.list.d/xt-traffic.sources <<END
Types: deb
URIs: file:/srv/xt-traffic
Suites: ./
Trusted: yes
END";

/// Makes apt prefer the repository, so that it downgrades packages (apt_preferences(5)).
const PREFERENCE: &str = "\
cat >/etc/apt/preferences.d/xt-traffic <<END
Package: *
Pin: release l=xt_traffic
Pin-Priority: 1001
END";

#[test]
fn deploy() {
    unwrap(DeployTest::begin().and_then(|test| test.run(all_steps)));
}

fn all_steps(test: &mut DeployTest) -> Result<()> {
    test.step("Debian 13 after its installation", begin)?;
    let before = LeftoverFiles::record(test)?;
    test.step("Install", install)?;
    test.step("Name the port and the networks", configure)?;
    test.step("Boot the kernel with the hook", boot_promisc)?;
    test.step("Count", |test| test.count("shell_session"))?;
    test.step("Reboot", boot_promisc)?;
    test.step("Count again", |test| test.count("names"))?;
    test.step("Upgrade, while frames arrive", upgrade)?;
    test.step("Boot the upgraded kernel", boot_promisc)?;
    test.step("Count with the upgraded kernel", |test| test.count("ping"))?;
    test.step("Debian's kernel, with the patched iptables", stock::run)?;
    test.step("Downgrade", downgrade)?;
    test.step("Purge", purge)?;
    test.step("Back to Debian's iptables", restore_iptables)?;
    test.step("Leftover files", |test| before.compare(test))?;
    test.step("Reboot without the packages", boot_stock)?;
    check_readme(README, test.vm.transcript(), &test.kernel.release, &test.kernel.config)
}

fn begin(test: &mut DeployTest) -> Result<()> {
    test.vm.quietly(DEBIAN)?;
    test.await_running("running")?;
    test.vm.must("uname -r").map(drop)
}

fn install(test: &mut DeployTest) -> Result<()> {
    test.provide(Release::FIRST)?;
    test.vm.must(SOURCE)?;
    test.vm.must("apt-get update")?;
    let package = test.kernel.metapackage();
    test.vm.must_for(&format!("apt-get install -y {package}"), APT_TIMEOUT)?;
    test.check_versions(Release::FIRST)
}

fn configure(test: &mut DeployTest) -> Result<()> {
    test.vm.must(&format!("cat >>/etc/xt-traffic.conf <<END\n{CONFIGURATION}END"))?;
    test.vm.must("xt-traffic check").map(drop)
}

/// Boots the default entry of GRUB's menu.
fn boot_promisc(test: &mut DeployTest) -> Result<()> {
    test.reboot(&test.kernel.release.clone())?;
    test.await_running("running")?;
    test.vm.must("xt-traffic status").map(drop)
}

fn upgrade(test: &mut DeployTest) -> Result<()> {
    test.provide(Release::SECOND)?;
    test.vm.must("apt-get update")?;
    let frames = deploy_test::frames("web")?;
    test.check_independence_of_time(&frames)?;
    let sender = test.vm.sender()?;
    thread::scope(|scope| {
        let feed = scope.spawn(|| {
            frames.iter().try_for_each(|frame| {
                // The capture then takes about as long as apt.
                thread::sleep(Duration::from_millis(100));
                sender.send(frame)
            })
        });
        let upgraded = test.vm.must_for("apt-get dist-upgrade -y", APT_TIMEOUT);
        feed.join().expect("the sender does not panic").and(upgraded.map(drop))
    })?;
    test.vm.transcript().remark(&format!("{} frames have arrived at eth1", frames.len()));
    test.vm.await_frames()?;
    test.check_tables(frames)?;
    test.check_versions(Release::SECOND)
}

fn downgrade(test: &mut DeployTest) -> Result<()> {
    test.provide(Release::FIRST)?;
    test.vm.must(PREFERENCE)?;
    test.vm.must("apt-get update")?;
    test.vm.must_for("apt-get dist-upgrade -y --allow-downgrades", APT_TIMEOUT)?;
    test.check_versions(Release::FIRST)?;
    test.vm.must("rm /etc/apt/preferences.d/xt-traffic").map(drop)
}

fn purge(test: &mut DeployTest) -> Result<()> {
    let packages = test.kernel.packages().join(" ");
    test.vm.must_for(&format!("apt-get purge -y xt-traffic {packages}"), APT_TIMEOUT)?;
    test.vm.must("rm /etc/apt/sources.list.d/xt-traffic.sources")?;
    test.vm.must("apt-get update").map(drop)
}

fn restore_iptables(test: &mut DeployTest) -> Result<()> {
    let version = test.stock_iptables()?;
    let names = ["iptables", "libip4tc2", "libip6tc2", "libxtables12"];
    let packages = names.map(|name| format!("{name}={version}")).join(" ");
    test.vm.must_for(&format!("apt-get install -y --allow-downgrades {packages}"), APT_TIMEOUT).map(drop)
}

fn boot_stock(test: &mut DeployTest) -> Result<()> {
    test.reboot(&test.stock_kernel.clone())?;
    test.await_running("running")?;
    let iptables = test.vm.must("iptables -L -n").context("Debian's iptables")?;
    ensure!(!iptables.contains("PROMISC"), "{iptables}");
    Ok(())
}
