// SPDX-License-Identifier: GPL-2.0-only
//! Installs the packages in the Debian VM, counts, reboots, upgrades, downgrades and purges them.
//! This is one test, as each step continues where the one before has ended.

mod deploy_test;
mod leftover_files;
mod stock;

use std::env;
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

/// Without a terminal, dpkg cannot ask whether to replace a configuration file that both the
/// administrator and the package have changed. <https://manpages.debian.org/trixie/dpkg/dpkg.1.en.html>
const KEEP_CONFIGURATION: &str = "-o Dpkg::Options::=--force-confold";

/// Adds Debian's repository with the needed packages. A real host reaches it over the network.
const DEBIAN: &str = "\
cat >/etc/apt/sources.list.d/debian.sources <<END
Types: deb
URIs: file:/run/delivery/debian
Suites: ./
Trusted: yes
END";

/// Adds the local repository and its key.
const KEY: &str = "cp /srv/xt-traffic/xt-traffic.asc /etc/apt/keyrings/";
const SOURCE: &str = "\
cat >/etc/apt/sources.list.d/xt-traffic.sources <<END
Types: deb deb-src
URIs: file:/srv/xt-traffic
Suites: ./
Signed-By: /etc/apt/keyrings/xt-traffic.asc
END";

/// Adds a repository with a newer iptables of Debian.
const SECURITY: &str = "\
cat >/etc/apt/sources.list.d/security.sources <<END
Types: deb
URIs: file:/run/delivery/security
Suites: ./
Trusted: yes
END";

/// Makes apt prefer the repository with this version of iptables, so that it downgrades packages.
/// The record for iptables is before that of the package xt-traffic, so it determines the priority.
/// <https://manpages.debian.org/trixie/apt/apt_preferences.5.en.html>
fn preference(iptables: &str) -> String {
    format!(
        "cat >/etc/apt/preferences.d/downgrade <<END\n\
         Package: src:iptables\n\
         Pin: version {iptables}\n\
         Pin-Priority: 1002\n\
         \n\
         Package: *\n\
         Pin: release l=xt_traffic\n\
         Pin-Priority: 1001\n\
         END"
    )
}

#[test]
fn deploy() {
    unwrap(DeployTest::begin().and_then(|test| test.run(all_steps)));
}

fn all_steps(test: &mut DeployTest) -> Result<()> {
    test.step("Debian 13 after its installation", begin)?;
    let before = LeftoverFiles::record(test)?;
    test.step("Install", install)?;
    test.step("Name the port and the networks", configure)?;
    test.step("Debian has a newer kernel", add_newer_kernel)?;
    test.step("Boot the kernel with the hook", |test| boot_promisc(test, Release::FIRST))?;
    test.step("Count", |test| test.count("shell_session"))?;
    test.step("The administrator prefers Debian's kernel", prefer_newer_kernel)?;
    test.step("Debian has a newer iptables", newer_iptables)?;
    test.step("Upgrade, while frames arrive", upgrade)?;
    test.step("Boot the new kernel", |test| boot_promisc(test, Release::SECOND))?;
    test.step("Count with the new kernel", |test| test.count("ping"))?;
    test.step("Boot the old kernel", boot_old)?;
    test.step("Count with the old kernel", |test| test.count("names"))?;
    test.step("Downgrade", downgrade)?;
    // The first release may have no mirror devices. This capture counts the same without them.
    test.step("Count after the downgrade", |test| test.count("shell_session"))?;
    test.step("Debian's kernel, with the patched iptables", stock::run)?;
    test.step("Remove the service", remove)?;
    test.step("Purge", purge)?;
    test.step("Back to Debian's iptables", restore_iptables)?;
    test.step("Leftover files", |test| before.compare(test))?;
    test.step("Reboot without the packages", boot_stock)?;
    // README shows what this version prints, and another one may print something else.
    if env::var_os("XT_TRAFFIC_UPGRADE_FROM").is_some() {
        return Ok(());
    }
    let [first, second] = [Release::FIRST, Release::SECOND].map(|release| test.kernel(release));
    let releases = [first.release, second.release, test.stock_kernel.clone()];
    check_readme(README, test.vm.transcript(), &releases.each_ref().map(String::as_str), &first.metapackage)
}

fn begin(test: &mut DeployTest) -> Result<()> {
    test.vm.quietly(DEBIAN)?;
    test.await_running("running")?;
    test.vm.must("uname -r").map(drop)
}

fn install(test: &mut DeployTest) -> Result<()> {
    test.provide(Release::FIRST)?;
    test.vm.must(KEY)?;
    test.vm.must(SOURCE)?;
    test.vm.must("apt-get update")?;
    test.vm.must_for("apt-get install -y xt-traffic", APT_TIMEOUT)?;
    test.check_versions(Release::FIRST)
}

fn configure(test: &mut DeployTest) -> Result<()> {
    test.vm.must(&format!("cat >>/etc/xt-traffic.conf <<END\n{CONFIGURATION}END"))?;
    test.vm.must("xt-traffic check").map(drop)
}

/// The release of a kernel of Debian that is newer than all others. It is a copy of the installed
/// one.
const NEWER_KERNEL: &str = "99.1.1+deb13-amd64";

/// GRUB would boot this kernel next, because its version is the highest.
fn add_newer_kernel(test: &mut DeployTest) -> Result<()> {
    let stock = test.stock_kernel.clone();
    for name in ["vmlinuz", "initrd.img"] {
        test.vm.must(&format!("cp /boot/{name}-{stock} /boot/{name}-{NEWER_KERNEL}"))?;
    }
    test.vm.must("update-grub")?;
    expect_next_kernel(test, &test.kernel(Release::FIRST).release)?;
    let updates = test.vm.must("xt-traffic updates")?;
    ensure!(!updates.contains("the next boot"), "{updates}");
    Ok(())
}

/// With the administrator's setting, the first entry is that kernel. Afterwards it is removed.
fn prefer_newer_kernel(test: &mut DeployTest) -> Result<()> {
    let message = format!("xt-traffic: the next boot uses kernel {NEWER_KERNEL}, which has no hook PROMISC");
    let settings = "/etc/default/grub.d/local.cfg";
    test.vm.must(&format!("echo GRUB_TOP_LEVEL=/boot/vmlinuz-{NEWER_KERNEL} >{settings}"))?;
    test.vm.must("update-grub")?;
    expect_next_kernel(test, NEWER_KERNEL)?;
    let updates = test.vm.must("xt-traffic updates")?;
    ensure!(updates.contains(&message), "{updates}");
    test.vm.must(&format!("rm {settings} /boot/*-{NEWER_KERNEL}"))?;
    test.vm.must("update-grub")?;
    expect_next_kernel(test, &test.kernel(Release::FIRST).release)?;
    expect_only_unknown_source(&test.vm.must("xt-traffic updates")?)
}

/// Checks the messages of xt-traffic. This system has no package lists of Debian, so one message
/// says that apt does not know the source of the kernel.
fn expect_only_unknown_source(output: &str) -> Result<()> {
    let messages: Vec<_> = output.lines().filter(|line| line.starts_with("xt-traffic: ")).collect();
    let is_expected = messages.len() == 1 && messages[0].starts_with("xt-traffic: apt knows no package linux-source-");
    ensure!(is_expected, "{output}");
    Ok(())
}

/// Checks the first entry of GRUB's menu, which is the default.
fn expect_next_kernel(test: &mut DeployTest, release: &str) -> Result<()> {
    let first = test.vm.quietly("grep --max-count=1 'linux.*/vmlinuz-' /boot/grub/grub.cfg")?;
    ensure!(first.contains(&format!("/vmlinuz-{release} ")), "the first entry of the menu is not {release}: {first}");
    Ok(())
}

/// Boots the default entry of GRUB's menu.
fn boot_promisc(test: &mut DeployTest, release: Release) -> Result<()> {
    test.reboot(&test.kernel(release).release)?;
    test.await_running("running")?;
    let status = test.vm.must("xt-traffic status")?;
    expect_only_unknown_source(&status)?;
    let units = "xt-traffic.service xt-traffic-reload.service xt-traffic-port@eth1.service";
    test.vm.must(&format!("systemd-analyze security --no-pager {units} | grep Overall")).map(drop)
}

/// The kernel of the first release is still installed.
fn boot_old(test: &mut DeployTest) -> Result<()> {
    check_autoremove(test)?;
    test.reboot_once(&test.kernel(Release::FIRST).release)?;
    test.await_running("running")?;
    says_newer_kernel(test)
}

/// apt keeps both kernels, and one of Debian that lies between them. It can remove the older one,
/// which no package needs.
fn check_autoremove(test: &mut DeployTest) -> Result<()> {
    let count = test.vm.must("apt-config dump --format '%v%n' APT::NeverAutoRemove::KernelCount")?;
    ensure!(count == "0x3\n", "apt keeps {count:?} kernels");
    let [old, new] = [Release::FIRST, Release::SECOND].map(|release| test.kernel(release).packages());
    let removed = test.vm.must("apt-get autoremove --dry-run")?;
    let unprotected = test.vm.must("apt-get autoremove --dry-run -o APT::Protect-Kernels=false")?;
    for package in old.iter().chain(&new) {
        let line = format!("Remv {package} ");
        ensure!(!removed.contains(&line), "autoremove removes {package}");
        ensure!(unprotected.contains(&line) == old.contains(package), "autoremove without protection: {package}");
    }
    Ok(())
}

fn says_newer_kernel(test: &mut DeployTest) -> Result<()> {
    let [old, new] = [Release::FIRST, Release::SECOND].map(|release| test.kernel(release).release);
    let status = test.vm.must("xt-traffic status")?;
    let message = format!("xt-traffic: kernel {new} is installed, but {old} is running: reboot to use it\n");
    ensure!(status.contains(&message), "{status}");
    Ok(())
}

/// apt does not remove xt-traffic to install it, and the administrator learns of it.
fn newer_iptables(test: &mut DeployTest) -> Result<()> {
    let message = "xt-traffic: Debian has iptables ";
    test.provide(Release::FIRST)?;
    test.vm.must(SECURITY)?;
    let updated = test.vm.must("apt-get update")?;
    let status = test.vm.must("xt-traffic status")?;
    for output in [&updated, &status] {
        ensure!(output.contains(message), "{output}");
    }
    for upgrade in ["upgrade", "dist-upgrade"] {
        let plan = test.vm.must(&format!("apt-get {upgrade} --dry-run"))?;
        ensure!(plan.contains("0 upgraded, 0 newly installed, 0 to remove"), "{plan}");
    }
    test.vm.must("rm /etc/apt/sources.list.d/security.sources")?;
    let updated = test.vm.must("apt-get update")?;
    ensure!(!updated.contains(message), "{updated}");
    Ok(())
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
        let upgraded = test.vm.must_for(&format!("apt-get dist-upgrade -y {KEEP_CONFIGURATION}"), APT_TIMEOUT);
        feed.join().expect("the sender does not panic").and(upgraded.map(drop))
    })?;
    test.vm.transcript().remark(&format!("{} frames have arrived at eth1", frames.len()));
    test.vm.await_frames()?;
    test.check_tables(frames)?;
    test.check_versions(Release::SECOND)?;
    says_newer_kernel(test)?;
    check_autoremove(test)
}

/// The service starts anew, and begins with new tables.
fn downgrade(test: &mut DeployTest) -> Result<()> {
    test.provide(Release::FIRST)?;
    let iptables = test.iptables(Release::FIRST.folder())?;
    test.vm.must(&preference(&iptables))?;
    test.vm.must("apt-get update")?;
    test.vm.must_for(&format!("apt-get dist-upgrade -y --allow-downgrades {KEEP_CONFIGURATION}"), APT_TIMEOUT)?;
    test.check_versions(Release::FIRST)?;
    test.tables_are_new();
    test.vm.must("rm /etc/apt/preferences.d/downgrade").map(drop)
}

/// Without a purge, nothing may remain that has an effect on apt or on GRUB.
fn remove(test: &mut DeployTest) -> Result<()> {
    let links = "/etc/apt/preferences.d/xt-traffic.pref /etc/default/grub.d/zz-xt-traffic.cfg";
    test.vm.must(&format!("cat {links}"))?;
    test.vm.must_for("apt-get remove -y xt-traffic", APT_TIMEOUT)?;
    // 60xt-traffic is a configuration file. It has no effect without the package.
    let folders = "/etc/apt/preferences.d /etc/apt/apt.conf.d /etc/default/grub.d";
    let left = test.vm.must(&format!("find {folders} -name '*xt-traffic*' ! -name 60xt-traffic"))?;
    ensure!(left.is_empty(), "{left}");
    test.vm.must("test -e /etc/xt-traffic.conf").map(drop)
}

fn purge(test: &mut DeployTest) -> Result<()> {
    test.provide(Release::FIRST)?;
    let patterns = "'xt-traffic*' 'linux-image-*-promisc.*' 'linux-headers-*-promisc.*'";
    test.vm.must_for(&format!("apt-get purge -y {patterns}"), APT_TIMEOUT)?;
    test.vm.must("rm /etc/apt/sources.list.d/xt-traffic.sources /etc/apt/keyrings/xt-traffic.asc")?;
    test.vm.must("apt-get update").map(drop)
}

fn restore_iptables(test: &mut DeployTest) -> Result<()> {
    let version = test.iptables("debian")?;
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
