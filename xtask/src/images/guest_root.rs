// SPDX-License-Identifier: GPL-2.0-only
//! The guest's root file system, `base.cpio`: unpacked Debian packages. Their maintainer scripts
//! are not run, and files that the tests do not need are left out.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use fs_err as fs;

use crate::builds::root::{EXCLUDED, bootstrap};
use crate::images::initramfs::Archive;
use crate::process;
use crate::stamp::Recipe;
use crate::workspace::{Workspace, remove_tree};

/// Paths that no program in a guest reads. A `*` at the end matches any suffix.
const UNWANTED: [&str; 13] = [
    "dev",
    "etc/apt",
    "usr/lib/systemd",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/x86_64-linux-gnu/perl-base",
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/doc",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/perl5",
    "var",
];

/// Paths that the guest's own packages do not need; packages that [`prepare_with`] adds may.
const UNUSED: [&str; 25] = [
    // Tools of iproute2 that no test uses, and large libraries that only they need.
    "usr/bin/rdma",
    "usr/bin/ss",
    "usr/sbin/arpd",
    "usr/sbin/dcb",
    "usr/sbin/devlink",
    "usr/sbin/genl",
    "usr/sbin/rtacct",
    "usr/sbin/rtmon",
    "usr/sbin/tipc",
    "usr/sbin/vdpa",
    "usr/lib/x86_64-linux-gnu/engines-3",
    "usr/lib/x86_64-linux-gnu/krb5",
    "usr/lib/x86_64-linux-gnu/libcom_err.so*",
    "usr/lib/x86_64-linux-gnu/libcrypto.so*",
    "usr/lib/x86_64-linux-gnu/libdb-5*",
    "usr/lib/x86_64-linux-gnu/libgssapi_krb5.so*",
    "usr/lib/x86_64-linux-gnu/libk5crypto.so*",
    "usr/lib/x86_64-linux-gnu/libkeyutils.so*",
    "usr/lib/x86_64-linux-gnu/libkrb5.so*",
    "usr/lib/x86_64-linux-gnu/libkrb5support.so*",
    "usr/lib/x86_64-linux-gnu/libmvec.so*",
    "usr/lib/x86_64-linux-gnu/libssl.so*",
    "usr/lib/x86_64-linux-gnu/libtirpc.so*",
    "usr/lib/x86_64-linux-gnu/ossl-modules",
    "usr/share/zsh",
];

/// Mount points and folders that the guest's init writes to.
const FOLDERS: [&str; 9] = ["dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/lib/modules", "var"];

/// Files of `/etc` that maintainer scripts would make.
const FILES: [(&str, &str); 4] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
];

/// Links into `/usr`: <https://wiki.debian.org/UsrMerge>
const LINKS: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Makes the archive with the pinned packages unless the cache has it.
pub fn prepare(ws: &Workspace) -> Result<PathBuf> {
    cached(ws, &ws.pins().guest.packages, &[&UNWANTED[..], &UNUSED].concat())
}

/// Makes an archive with `more` packages and all files that these may need.
pub fn prepare_with(ws: &Workspace, more: &[String]) -> Result<PathBuf> {
    let packages = [&ws.pins().guest.packages, more].concat();
    cached(ws, &packages, &UNWANTED)
}

fn cached(ws: &Workspace, packages: &[String], unwanted: &[&str]) -> Result<PathBuf> {
    let stamp = Recipe::new("guest root 1")
        .text("suite", &ws.pins().suite)
        .list("packages", packages)
        .list("unwanted", unwanted)
        .list("folders", &FOLDERS)
        .stamp();
    let path = ws.cache().join("guest").join(format!("{}.cpio", stamp.short()));
    if !path.exists() {
        make(ws, packages, unwanted, &path)?;
    }
    Ok(path)
}

fn make(ws: &Workspace, packages: &[String], unwanted: &[&str], path: &Path) -> Result<()> {
    let pins = ws.pins();
    let title = format!("making the guest's root (Debian {})", pins.suite);
    let mut step = ws.step("guest-root", title)?;
    let folder = ws.temporary()?;
    let root = folder.path().join("root");
    fs::create_dir(&root)?;
    let mut unpack = Command::new("tar");
    unpack
        .args(["--extract", "--no-same-owner", "--preserve-permissions"])
        .args(["--exclude=./dev/*", "--directory"])
        .arg(&root);
    bootstrap(&mut step, "extract", &pins.suite, packages, &EXCLUDED, unpack)?;

    let mut archive = Archive::default();
    archive.copy(&root, Path::new(""), &|path| matches(path, unwanted))?;
    FOLDERS.iter().for_each(|folder| archive.folder(folder));
    for (name, content) in FILES {
        archive.file(name, 0o644, content.as_bytes().to_vec());
    }
    for name in LINKS {
        archive.link(name, Path::new("usr").join(name));
    }
    link_applets(&mut archive, &root)?;
    archive.write(path)?;
    remove_tree(&folder.keep())?;
    step.finish();
    Ok(())
}

fn matches(path: &Path, unwanted: &[&str]) -> bool {
    let path = path.to_string_lossy();
    unwanted.iter().any(|unwanted| match unwanted.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == *unwanted,
    })
}

/// Links the tools of busybox, except where a package has the tool itself.
fn link_applets(archive: &mut Archive, root: &Path) -> Result<()> {
    let busybox = Path::new("usr/bin/busybox");
    let mut list = Command::new(root.join(busybox));
    list.arg("--list-full");
    let mut names = Vec::new();
    let status = process::run_lines(list, |line| names.push(line.trim().to_owned()))?;
    ensure!(status.success(), "busybox cannot list its tools ({status})");
    for name in names {
        let path = if name.starts_with("usr/") { PathBuf::from(name) } else { Path::new("usr").join(name) };
        let other = match path.strip_prefix("usr/bin") {
            Ok(tool) => Path::new("usr/sbin").join(tool),
            Err(_) => Path::new("usr/bin").join(path.file_name().unwrap_or_default()),
        };
        // The tool itself may be in the other folder, later in PATH.
        if !archive.has(&path) && !archive.has(&other) {
            archive.link(&path, Path::new("/").join(busybox));
        }
    }
    Ok(())
}
