// SPDX-License-Identifier: GPL-2.0-only
//! The disks of the Debian VM: Debian as its installer leaves it, with Debian's kernel, boot loader
//! and iptables, and with settings that save time with TCG; and a file system with the package
//! repositories that the deployment test installs from.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use fs_err::{self as fs, os::unix::fs::symlink};
use vm_harness::debian_vm;

use crate::builds::root::{BuildRoot, bootstrap};
use crate::stamp::{Recipe, remove_if_exists};
use crate::ui::Step;
use crate::workspace::{Workspace, file_name, keep, list};

/// The system's packages, in addition to those of priority "important".
const PACKAGES: [&str; 9] = [
    "linux-image-amd64",
    "grub-pc",
    // As Debian's installer leaves it.
    "dbus",
    "libpam-systemd",
    "zstd",
    // These interact with the packages under test.
    "iptables",
    "nftables",
    "conntrack",
    "ethtool",
];

/// The init of the system's first boot: it finishes the installation.
const SETUP: &str = include_str!("setup.sh");

/// The start of the only partition; the boot loader is before it.
const OFFSET: u64 = 1 << 20;
/// The size of the disk, a sparse file.
const SIZE: u64 = 3 << 30;
/// The UUID of the root file system, fixed for repeatable builds.
const ROOT_UUID: &str = "6b1f0d7c-0a57-4c52-9d0e-787474720001";
/// The partition table for sfdisk(8), in sectors of 512 bytes.
const PARTITIONS: &str = "label: dos\nlabel-id: 0x78747472\nstart=2048, type=83, bootable\n";

/// The timeout of the first boot in seconds, for a busy host without KVM.
const SETUP_TIMEOUT: &str = "600";

/// Makes the system disk unless the cache has it.
fn system(ws: &Workspace, root: &BuildRoot) -> Result<PathBuf> {
    let stamp = Recipe::new("Debian disk 1")
        .text("root", root.stamp().as_str())
        .text("suite", &ws.pins().suite)
        .list("packages", &PACKAGES)
        .list("disk", &[OFFSET.to_string().as_str(), SIZE.to_string().as_str(), ROOT_UUID, PARTITIONS])
        .text("setup", SETUP)
        .stamp();
    let disk = ws.cache().join("debian-disk").join(format!("{}.img", stamp.short()));
    if !disk.exists() {
        make(ws, root, &disk)?;
    }
    Ok(disk)
}

/// Makes the folder for the deployment test, `target/debian-vm/KERNEL`: the system disk, and a file
/// system with a folder for each of `repositories`, by name.
pub fn build(ws: &Workspace, root: &BuildRoot, kernel: &str, repositories: &[(&str, &Path)]) -> Result<PathBuf> {
    let disk = system(ws, root)?;
    let folder = ws.target("debian-vm").join(kernel);
    fs::create_dir_all(&folder)?;
    let link = folder.join("system.img");
    remove_if_exists(&link)?;
    symlink(&disk, &link)?;
    pack(ws, root, repositories, &folder)?;
    Ok(folder)
}

fn make(ws: &Workspace, root: &BuildRoot, disk: &Path) -> Result<()> {
    let mut step = ws.step("debian-disk", format!("making the disk of the Debian VM (Debian {})", ws.pins().suite))?;
    let folder = ws.temporary()?;
    let path = |name: &str| folder.path().join(name);
    let mut save = Command::new("dd");
    save.args(["bs=1M", "status=none"]).arg(format!("of={}", path("root.tar").display()));
    bootstrap(&mut step, "important", &ws.pins().suite, &PACKAGES.map(String::from), &[], save)?;
    write(&path("setup"), SETUP, 0o755)?;
    let mut add = Command::new("tar");
    add.args(["--append", "--owner=0", "--group=0", "--file=root.tar", "./setup"]);
    step.run(in_folder(add, folder.path()))?;
    let mut extract = Command::new("tar");
    extract.args(["--extract", "--file=root.tar", "--strip-components=2", "--wildcards"]);
    extract.args(["./boot/vmlinuz-*", "./boot/initrd.img-*"]);
    step.run(in_folder(extract, folder.path()))?;
    format(&mut step, root, folder.path())?;
    set_up(&mut step, folder.path())
        .with_context(|| format!("full log: {}", ws.target("log/debian-disk.log").display()))?;
    keep(&path("system.img"), disk)?;
    step.finish();
    Ok(())
}

/// Makes `system.img` in the folder from `root.tar` there.
fn format(step: &mut Step, root: &BuildRoot, folder: &Path) -> Result<()> {
    let sandbox = root.sandbox().bind_rw(folder, "out");
    let offset = format!("offset={OFFSET}");
    // In KiB: the meaning of other units differs between versions of mke2fs.
    let size = format!("{}k", (SIZE - OFFSET) >> 10);
    let words = ["mke2fs", "-q", "-t", "ext4", "-U", ROOT_UUID, "-d", "root.tar", "-E", &offset, "system.img", &size];
    step.run(sandbox.command("out", &words))?;
    write(&folder.join("partitions"), PARTITIONS, 0o644)?;
    step.run(sandbox.command("out", &["sh", "-c", "exec sfdisk --quiet system.img <partitions"]))
}

/// Boots the disk's kernel with the setup script as its init.
fn set_up(step: &mut Step, folder: &Path) -> Result<()> {
    let [kernel, initrd] = ["vmlinuz-", "initrd.img-"].map(|name| only(folder, name));
    let result = folder.join("result");
    // The script prints "ready" on the second serial line when it has finished.
    let mut command = Command::new("timeout");
    command.arg(SETUP_TIMEOUT).args(debian_vm::hardware()?);
    command.args(debian_vm::disk(&folder.join("system.img"), "cache=unsafe"));
    command.arg("-no-reboot").arg("-kernel").arg(kernel?).arg("-initrd").arg(initrd?);
    command.args(["-append", "root=/dev/vda1 rw console=ttyS0 quiet panic=-1 mitigations=off norandmaps init=/setup"]);
    command.args(["-serial", "stdio", "-serial"]).arg(format!("file:{}", result.display()));
    step.run(command)?;
    let output = fs::read_to_string(&result).unwrap_or_default();
    ensure!(output.trim() == "ready", "the setup script of the new system failed");
    Ok(())
}

fn in_folder(mut command: Command, folder: &Path) -> Command {
    command.current_dir(folder);
    command
}

/// The file in a folder whose name begins with `prefix`.
fn only(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let mut found = list(folder)?;
    found.retain(|path| file_name(path).starts_with(prefix));
    match <[PathBuf; 1]>::try_from(found) {
        Ok([file]) => Ok(file),
        Err(found) => bail!("the new system has {} files {prefix}*, not one", found.len()),
    }
}

/// Makes `packages.img` if a repository has changed.
fn pack(ws: &Workspace, root: &BuildRoot, repositories: &[(&str, &Path)], folder: &Path) -> Result<()> {
    let mut recipe = Recipe::new("packages 1");
    for (name, repository) in repositories {
        let files = list(repository)?;
        recipe = recipe.text("repository", name).text("files", &files.len().to_string());
        recipe = files.iter().try_fold(recipe, |recipe, file| recipe.file(file))?;
    }
    let image = folder.join("packages.img");
    recipe.stamp().make(&folder.join("packages.stamp"), &image, || pack_image(ws, root, repositories, &image))
}

fn pack_image(ws: &Workspace, root: &BuildRoot, repositories: &[(&str, &Path)], image: &Path) -> Result<()> {
    let mut step = ws.step("debian-packages", "packing the repositories for the Debian VM")?;
    let temporary = ws.temporary()?;
    let tree = temporary.path().join("tree");
    let mut bytes = 0;
    for (name, repository) in repositories {
        bytes += copy_files(repository, &tree.join(name))?;
    }
    // A tenth and 4 MiB for the file system's structures; it is only read.
    let size = format!("{}k", (bytes >> 10) * 11 / 10 + (4 << 10));
    let words = ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-L", "packages"];
    let words = [&words[..], &["-E", "root_owner=0:0", "-d", "tree", "packages.img", &size]].concat();
    step.run(root.sandbox().bind_rw(temporary.path(), "out").command("out", &words))?;
    // The cache and the target folder may be on different file systems.
    remove_if_exists(image)?;
    fs::copy(temporary.path().join("packages.img"), image)?;
    step.finish();
    Ok(())
}

/// Copies the visible files of a folder, readable by all users. Returns their size in bytes.
fn copy_files(from: &Path, to: &Path) -> Result<u64> {
    fs::create_dir_all(to)?;
    let mut bytes = 0;
    for file in list(from)? {
        let target = to.join(file_name(&file));
        bytes += fs::copy(&file, &target)?;
        fs::set_permissions(&target, PermissionsExt::from_mode(0o644))?;
    }
    fs::set_permissions(to, PermissionsExt::from_mode(0o755))?;
    Ok(bytes)
}

fn write(file: &Path, text: &str, mode: u32) -> Result<()> {
    fs::write(file, text)?;
    Ok(fs::set_permissions(file, PermissionsExt::from_mode(mode))?)
}
