// SPDX-License-Identifier: GPL-2.0
//! The guest's root file system, `base.cpio`: Debian packages as they are unpacked, without running
//! their scripts, and without what a machine that lives for seconds does not need.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    archive::Archive,
    buildroot::{UNREAD, debootstrap},
    process,
    stamp::Recipe,
    workshop::{Workshop, remove_tree},
};

/// What is left out: nothing in the guest reads it. A `*` at the end stands for anything.
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

/// What is left out of the usual guest, too. Packages that it does not have may need it.
const UNUSED: [&str; 25] = [
    // Tools of iproute2 that have no use here, and the big libraries that only they pull in.
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

/// Folders that the guest's init mounts on or writes in.
const FOLDERS: [&str; 9] = ["dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/lib/modules", "var"];

/// The few files of `/etc` that no package has.
const FILES: [(&str, &str); 4] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
];

/// Folders at the top that are links into `/usr`.
const LINKS: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// The archive of the pins' recipe; made when it is not in the cache.
pub fn ready(ws: &Workshop) -> Result<PathBuf> {
    made(ws, &ws.pins().guest.packages, &[&UNWANTED[..], &UNUSED].concat())
}

/// Another one, with `more` packages, and all that they may need.
pub fn ready_with(ws: &Workshop, more: &[String]) -> Result<PathBuf> {
    let packages = [&ws.pins().guest.packages, more].concat();
    made(ws, &packages, &UNWANTED)
}

fn made(ws: &Workshop, packages: &[String], unwanted: &[&str]) -> Result<PathBuf> {
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

fn make(ws: &Workshop, packages: &[String], unwanted: &[&str], path: &Path) -> Result<()> {
    let pins = ws.pins();
    let title = format!("making the guest's root (Debian {})", pins.suite);
    let mut step = ws.step("guest-root", title)?;
    let folder = ws.temporary()?;
    let root = folder.path().join("root");
    fs::create_dir(&root).with_context(|| format!("cannot make {}", root.display()))?;
    let mut unpack = Command::new("tar");
    unpack
        .args(["--extract", "--no-same-owner", "--preserve-permissions"])
        .args(["--exclude=./dev/*", "--directory"])
        .arg(&root);
    debootstrap(&mut step, "extract", &pins.suite, packages, &UNREAD, unpack)?;

    let mut archive = Archive::new();
    archive.copy(&root, Path::new(""), &|path| is_among(path, unwanted))?;
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

fn is_among(path: &Path, unwanted: &[&str]) -> bool {
    let path = path.to_string_lossy();
    unwanted.iter().any(|unwanted| match unwanted.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == *unwanted,
    })
}

/// Gives each of busybox's tools its name, where no package has the real tool.
fn link_applets(archive: &mut Archive, root: &Path) -> Result<()> {
    let busybox = Path::new("usr/bin/busybox");
    let mut list = Command::new(root.join(busybox));
    list.arg("--list-full");
    let mut names = Vec::new();
    let status = process::run_lines(list, |line| names.push(line.trim().to_owned()))?;
    anyhow::ensure!(status.success(), "busybox cannot list its tools ({status})");
    for name in names {
        let path = if name.starts_with("usr/") { PathBuf::from(name) } else { Path::new("usr").join(name) };
        let other = match path.strip_prefix("usr/bin") {
            Ok(tool) => Path::new("usr/sbin").join(tool),
            Err(_) => Path::new("usr/bin").join(path.file_name().unwrap_or_default()),
        };
        // The real tool may lie in the other folder, later in the PATH.
        if !archive.has(&path) && !archive.has(&other) {
            archive.link(&path, Path::new("/").join(busybox));
        }
    }
    Ok(())
}
