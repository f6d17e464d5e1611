// SPDX-License-Identifier: GPL-2.0
//! The packages on a real Debian: installed, booted, counting, rebooted, upgraded, downgraded, purged. One test, as
//! each step begins with what the one before has left.

mod readme;
mod remains;
mod scene;
mod stock;

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use self::remains::Remains;
use self::scene::{CONFIGURATION, Release, Scene};

/// apt and the packages' scripts, on a machine that QEMU translates.
const APT_TIME: Duration = Duration::from_secs(600);

/// Everything that the repositories of a box name: the local one.
const SOURCE: &str = "\
cat >/etc/apt/sources.list.d/xt-traffic.sources <<END
Types: deb
URIs: file:/srv/xt-traffic
Suites: ./
Trusted: yes
END";

/// apt takes an older version only from a source that it is told to prefer.
const PREFERENCE: &str = "\
cat >/etc/apt/preferences.d/xt-traffic <<END
Package: *
Pin: release l=xt_traffic
Pin-Priority: 1001
END";

#[test]
#[ignore = "needs a disk with Debian"]
fn deploy() {
    let scene = Scene::begin().unwrap_or_else(|error| panic!("{error:#}"));
    scene.play(whole_life).unwrap_or_else(|error| panic!("{error:#}"));
}

fn whole_life(scene: &mut Scene) -> Result<()> {
    scene.step("A Debian 13 as its installer leaves it", begin)?;
    let before = Remains::look(scene)?;
    scene.step("Install", install)?;
    scene.step("Name the port and the networks", configure)?;
    scene.step("Boot the kernel with the hook", boot_promisc)?;
    scene.step("Count", |scene| scene.count("shell_session"))?;
    scene.step("Reboot, with no hand on it", boot_promisc)?;
    scene.step("Count again", |scene| scene.count("names"))?;
    scene.step("Upgrade, while frames arrive", upgrade)?;
    scene.step("Boot the upgraded kernel", boot_promisc)?;
    scene.step("Count with it", |scene| scene.count("ping"))?;
    scene.step("Debian's kernel, with the patched iptables", stock::run)?;
    scene.step("Downgrade", downgrade)?;
    scene.step("Purge", purge)?;
    scene.step("Back to Debian's iptables", restore_iptables)?;
    scene.step("What is left", |scene| before.compare(scene))?;
    scene.step("Reboot without the packages", boot_stock)?;
    readme::check(scene.machine.transcript(), &scene.kernel.config)
}

fn begin(scene: &mut Scene) -> Result<()> {
    scene.bring_debian()?;
    scene.await_running("running")?;
    scene.machine.must("uname -r").map(drop)
}

fn install(scene: &mut Scene) -> Result<()> {
    scene.offer(Release::First)?;
    scene.machine.must(SOURCE)?;
    scene.machine.must("apt-get update")?;
    let package = scene.kernel.metapackage();
    scene.machine.must_for(&format!("apt-get install -y {package}"), APT_TIME)?;
    scene.check_versions(Release::First)
}

fn configure(scene: &mut Scene) -> Result<()> {
    scene.machine.must(&format!("cat >>/etc/xt-traffic.conf <<END\n{CONFIGURATION}END"))?;
    scene.machine.must("xt-traffic check").map(drop)
}

/// Boots the default entry of GRUB's menu, and touches nothing.
fn boot_promisc(scene: &mut Scene) -> Result<()> {
    scene.reboot()?;
    let kernel = scene.machine.must("uname -r")?;
    ensure!(kernel.trim() == scene.kernel.release, "the machine has booted {kernel}");
    scene.await_running("running")?;
    scene.machine.must("xt-traffic status").map(drop)
}

fn upgrade(scene: &mut Scene) -> Result<()> {
    scene.offer(Release::Second)?;
    scene.machine.must("apt-get update")?;
    let frames = scene::frames("web")?;
    scene.check_timeless(&frames)?;
    let sender = scene.machine.sender()?;
    thread::scope(|scope| {
        let feed = scope.spawn(|| {
            frames.iter().try_for_each(|frame| {
                // The whole capture takes about as long as apt does.
                thread::sleep(Duration::from_millis(100));
                sender.send(frame)
            })
        });
        let upgraded = scene.machine.must_for("apt-get dist-upgrade -y", APT_TIME);
        feed.join().expect("the feed does not panic").and(upgraded.map(drop))
    })?;
    scene.machine.transcript().remark(&format!("{} frames have come to eth1 meanwhile", frames.len()));
    scene.machine.await_frames()?;
    scene.have_sent(frames);
    scene.check_tables()?;
    scene.check_versions(Release::Second)
}

fn downgrade(scene: &mut Scene) -> Result<()> {
    scene.offer(Release::First)?;
    scene.machine.must(PREFERENCE)?;
    scene.machine.must("apt-get update")?;
    scene.machine.must_for("apt-get dist-upgrade -y --allow-downgrades", APT_TIME)?;
    scene.check_versions(Release::First)?;
    scene.machine.must("rm /etc/apt/preferences.d/xt-traffic").map(drop)
}

fn purge(scene: &mut Scene) -> Result<()> {
    let packages = scene.kernel.packages().join(" ");
    scene.machine.must_for(&format!("apt-get purge -y xt-traffic {packages}"), APT_TIME)?;
    scene.machine.must("rm /etc/apt/sources.list.d/xt-traffic.sources")?;
    scene.machine.must("apt-get update").map(drop)
}

fn restore_iptables(scene: &mut Scene) -> Result<()> {
    let version = scene.stock_iptables()?;
    let names = ["iptables", "libip4tc2", "libip6tc2", "libxtables12"];
    let packages = names.map(|name| format!("{name}={version}")).join(" ");
    scene.machine.must_for(&format!("apt-get install -y --allow-downgrades {packages}"), APT_TIME).map(drop)
}

fn boot_stock(scene: &mut Scene) -> Result<()> {
    scene.reboot()?;
    let kernel = scene.machine.must("uname -r")?;
    ensure!(kernel.trim() == scene.stock_kernel, "the machine has booted {kernel}");
    scene.await_running("running")?;
    let iptables = scene.machine.must("iptables -L -n").context("Debian's iptables")?;
    ensure!(!iptables.contains("PROMISC"), "{iptables}");
    Ok(())
}
