// SPDX-License-Identifier: GPL-2.0
//! The disk of the deployment test: Debian as its installer leaves it, with Debian's own kernel, boot loader
//! and iptables. And beside it a file system with the repositories that the test installs from.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use vm_harness::debian_vm;

use crate::{
    buildroot::{BuildRoot, debootstrap},
    stamp::{Recipe, withdraw},
    ui::Step,
    workshop::Workshop,
};

/// What the system has beside the packages that every Debian has: those of priority "important".
const PACKAGES: [&str; 9] = [
    "linux-image-amd64",
    "grub-pc",
    // As Debian's installer leaves it.
    "dbus",
    "libpam-systemd",
    "zstd",
    // What meets our packages.
    "iptables",
    "nftables",
    "conntrack",
    "ethtool",
];

/// Prepares the new system. It is the system's first init.
const SETUP: &str = include_str!("box_image/setup.sh");

/// The one partition begins here, and the boot loader is before it.
const OFFSET: u64 = 1 << 20;
/// The whole disk. What is not written takes no room.
const SIZE: u64 = 3 << 30;
/// Fixed, so that the same packages make the same file system but for times.
const FILE_SYSTEM: &str = "6b1f0d7c-0a57-4c52-9d0e-787474720001";
/// The partition table, for sfdisk; it counts in sectors of 512 bytes.
const PARTITIONS: &str = "label: dos\nlabel-id: 0x78747472\nstart=2048, type=83, bootable\n";

/// Seconds for the boot loader's installation, on a busy host without KVM.
const SETUP_TIME: &str = "600";

/// The disk of the pins' recipe; made when it is not in the cache.
pub fn ready(ws: &Workshop, root: &BuildRoot) -> Result<PathBuf> {
    let stamp = Recipe::new("box 1")
        .text("root", root.stamp().as_str())
        .text("suite", &ws.pins().suite)
        .list("packages", &PACKAGES)
        .list("disk", &[OFFSET.to_string().as_str(), SIZE.to_string().as_str(), FILE_SYSTEM, PARTITIONS])
        .text("setup", SETUP)
        .stamp();
    let shelf = ws.cache().join("box");
    let disk = shelf.join(format!("{}.img", stamp.short()));
    if !disk.exists() {
        fs::create_dir_all(&shelf).with_context(|| format!("cannot make {}", shelf.display()))?;
        make(ws, root, &disk)?;
    }
    Ok(disk)
}

/// The folder that the deployment test takes, `target/box`: the disk, and a file system with a folder for each
/// of `repositories`, by name.
pub fn folder(ws: &Workshop, root: &BuildRoot, repositories: &[(&str, &Path)]) -> Result<PathBuf> {
    let disk = ready(ws, root)?;
    let folder = ws.target("box");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let link = folder.join("box.img");
    withdraw(&link)?;
    symlink(&disk, &link).with_context(|| format!("cannot make {}", link.display()))?;
    pack(ws, root, repositories, &folder)?;
    Ok(folder)
}

fn make(ws: &Workshop, root: &BuildRoot, disk: &Path) -> Result<()> {
    let mut step = ws.step("box", format!("making the test's disk (Debian {})", ws.pins().suite))?;
    let folder = ws.temporary()?;
    let path = |name: &str| folder.path().join(name);
    let mut keep = Command::new("dd");
    keep.args(["bs=1M", "status=none"]).arg(format!("of={}", path("root.tar").display()));
    debootstrap(&mut step, "important", &ws.pins().suite, &PACKAGES.map(String::from), &[], keep)?;
    write(&path("setup"), SETUP, 0o755)?;
    let mut add = Command::new("tar");
    add.args(["--append", "--owner=0", "--group=0", "--file=root.tar", "./setup"]);
    step.run(in_folder(add, folder.path()))?;
    let mut extract = Command::new("tar");
    extract.args(["--extract", "--file=root.tar", "--strip-components=2", "--wildcards"]);
    extract.args(["./boot/vmlinuz-*", "./boot/initrd.img-*"]);
    step.run(in_folder(extract, folder.path()))?;
    format(&mut step, root, folder.path())?;
    set_up(&mut step, folder.path()).with_context(|| format!("full log: {}", ws.target("log/box.log").display()))?;
    fs::rename(path("box.img"), disk).with_context(|| format!("cannot keep {}", disk.display()))?;
    step.finish();
    Ok(())
}

/// Makes `box.img` in the folder from `root.tar` there.
fn format(step: &mut Step, root: &BuildRoot, folder: &Path) -> Result<()> {
    let sandbox = root.sandbox().write(folder, "out");
    let offset = format!("offset={OFFSET}");
    // In KiB, mke2fs's smallest unit that no version takes for something else.
    let size = format!("{}k", (SIZE - OFFSET) >> 10);
    let words = ["mke2fs", "-q", "-t", "ext4", "-U", FILE_SYSTEM, "-d", "root.tar", "-E", &offset, "box.img", &size];
    step.run(sandbox.command("out", &words))?;
    write(&folder.join("partitions"), PARTITIONS, 0o644)?;
    step.run(sandbox.command("out", &["sh", "-c", "exec sfdisk --quiet box.img <partitions"]))
}

/// Boots the disk's kernel with the setup as its init.
fn set_up(step: &mut Step, folder: &Path) -> Result<()> {
    let [kernel, initrd] = ["vmlinuz-", "initrd.img-"].map(|name| only(folder, name));
    let result = folder.join("result");
    // The machine says so on its second serial line when it has done everything.
    let mut command = Command::new("timeout");
    command.arg(SETUP_TIME).args(debian_vm::hardware()?);
    command.args(debian_vm::disk(&folder.join("box.img"), "cache=unsafe"));
    command.arg("-no-reboot").arg("-kernel").arg(kernel?).arg("-initrd").arg(initrd?);
    command.args(["-append", "root=/dev/vda1 rw console=ttyS0 quiet panic=-1 init=/setup"]);
    command.args(["-serial", "stdio", "-serial"]).arg(format!("file:{}", result.display()));
    step.run(command)?;
    let said = fs::read_to_string(&result).unwrap_or_default();
    ensure!(said.trim() == "ready", "the new system could not set itself up");
    Ok(())
}

fn in_folder(mut command: Command, folder: &Path) -> Command {
    command.current_dir(folder);
    command
}

/// The file in a folder whose name begins with `prefix`.
fn only(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found = entries.filter_map(Result::ok).filter(|e| e.file_name().to_string_lossy().starts_with(prefix));
    match (found.next(), found.next()) {
        (Some(file), None) => Ok(file.path()),
        (None, _) => anyhow::bail!("the new system has no {prefix}*"),
        (Some(_), Some(_)) => anyhow::bail!("the new system has several {prefix}*"),
    }
}

/// Makes `packages.img`, when something in it has changed.
fn pack(ws: &Workshop, root: &BuildRoot, repositories: &[(&str, &Path)], folder: &Path) -> Result<()> {
    let mut recipe = Recipe::new("packages 1");
    for (name, repository) in repositories {
        let files = files(repository)?;
        recipe = recipe.text("repository", name).text("files", &files.len().to_string());
        recipe = files.iter().try_fold(recipe, |recipe, file| recipe.file(file))?;
    }
    let (stamp, file) = (recipe.stamp(), folder.join("packages.stamp"));
    if stamp.is_in(&file) && folder.join("packages.img").exists() {
        return Ok(());
    }
    withdraw(&file)?;
    let mut step = ws.step("box-packages", "packing the test's repositories")?;
    let temporary = ws.temporary()?;
    let tree = temporary.path().join("tree");
    let mut bytes = 0;
    for (name, repository) in repositories {
        bytes += copy_files(repository, &tree.join(name))?;
    }
    // Room for the file system's own structures, which are few: it is only read.
    let size = format!("{}k", (bytes >> 10) * 11 / 10 + (4 << 10));
    let words = ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-L", "packages"];
    let words = [&words[..], &["-E", "root_owner=0:0", "-d", "tree", "packages.img", &size]].concat();
    step.run(root.sandbox().write(temporary.path(), "out").command("out", &words))?;
    // The cache and the target folder may be on different file systems.
    let image = folder.join("packages.img");
    withdraw(&image)?;
    fs::copy(temporary.path().join("packages.img"), &image)
        .with_context(|| format!("cannot make {}", image.display()))?;
    stamp.write(&file)?;
    step.finish();
    Ok(())
}

/// Copies the files of a folder, for everybody to read; gives how many bytes they have.
fn copy_files(from: &Path, to: &Path) -> Result<u64> {
    let problem = || format!("cannot copy {}", from.display());
    fs::create_dir_all(to).with_context(problem)?;
    let mut bytes = 0;
    for file in files(from)? {
        let target = to.join(file.file_name().unwrap_or_default());
        bytes += fs::copy(&file, &target).with_context(problem)?;
        fs::set_permissions(&target, PermissionsExt::from_mode(0o644)).with_context(problem)?;
    }
    fs::set_permissions(to, PermissionsExt::from_mode(0o755)).with_context(problem)?;
    Ok(bytes)
}

/// The files of a repository, but for hidden ones.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn write(file: &Path, text: &str, mode: u32) -> Result<()> {
    fs::write(file, text)
        .and_then(|()| fs::set_permissions(file, PermissionsExt::from_mode(mode)))
        .with_context(|| format!("cannot write {}", file.display()))
}
