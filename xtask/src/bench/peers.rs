// SPDX-License-Identifier: GPL-2.0-only
//! The other counters: `ACCOUNT` of xtables-addons, built for our kernel and our iptables, and
//! pmacct and ipfm from Debian.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fs_err::{self as fs, os::unix::fs::symlink};
use serde::Deserialize;
use vm_harness::artifacts::Artifacts;

use crate::builds::iptables::Iptables;
use crate::builds::kernel::Kernel;
use crate::builds::root::BuildRoot;
use crate::images::guest_root;
use crate::sources::fetch;
use crate::sources::pins::Download;
use crate::stamp::{Recipe, remove_if_exists};
use crate::workspace::{Workspace, file_name};

/// The content of `peers.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Peers {
    packages: Vec<String>,
    xtables_addons: Download,
    ipfm: Download,
}

impl Peers {
    fn read(ws: &Workspace) -> Result<Self> {
        let file = ws.repo().join("xtask/peers.toml");
        toml::from_str(&fs::read_to_string(&file)?).with_context(|| format!("cannot parse {}", file.display()))
    }
}

/// The guest in the folder `guest`, with the Debian packages in `peers.toml`.
pub fn guest(ws: &Workspace, guest: &Path) -> Result<Artifacts> {
    let base = guest_root::prepare_with(ws, &Peers::read(ws)?.packages)?;
    let folder = ws.target("guest").join("peers");
    fs::create_dir_all(&folder)?;
    let files = [("bzImage", guest.join("bzImage")), ("base.cpio", base), ("overlay.cpio", guest.join("overlay.cpio"))];
    for (name, from) in files {
        let link = folder.join(name);
        remove_if_exists(&link)?;
        symlink(&from, &link)?;
    }
    Artifacts::from_dir(&folder)
}

/// The version of xtables-addons.
pub fn xtables_addons_version(ws: &Workspace) -> Result<String> {
    Ok(Peers::read(ws)?.xtables_addons.version)
}

/// The Debian package of ipfm. It needs no library that pmacct does not need.
pub fn ipfm(ws: &Workspace) -> Result<PathBuf> {
    fetch::pinned(ws, &Peers::read(ws)?.ipfm)
}

/// The built `ACCOUNT`.
pub struct Account {
    /// The kernel module `xt_ACCOUNT.ko`.
    pub module: PathBuf,
    /// The iptables extension `libxt_ACCOUNT.so`.
    pub library: PathBuf,
    /// The program `iptaccount`, which prints the counters.
    pub reader: PathBuf,
}

/// Unpacks `ACCOUNT` and builds its programs. It does not run `configure`, which requires a kernel
/// with everything that the other extensions of xtables-addons need.
const SCRIPT: &str = "\
rm -rf * && tar --extract --file \"/src/$1\" --strip-components 1
cd extensions/ACCOUNT && cp ../compat_*.h .
echo 'obj-m += xt_ACCOUNT.o' >Kbuild
gcc -O2 -fPIC -shared -D_INIT=libxt_ACCOUNT_init -I/repo -I. -o /out/libxt_ACCOUNT.so libxt_ACCOUNT.c
gcc -O2 -I/repo -I. -o /out/iptaccount iptaccount.c libxt_ACCOUNT_cl.c";

/// Builds `ACCOUNT` if its source, the kernel or iptables has changed.
pub fn account(ws: &Workspace, root: &BuildRoot, kernel: &Kernel, iptables: &Iptables) -> Result<Account> {
    let source = Peers::read(ws)?.xtables_addons;
    let out = ws.target("build").join("account");
    let account = Account {
        module: out.join("xt_ACCOUNT.ko"),
        library: out.join("libxt_ACCOUNT.so"),
        reader: out.join("iptaccount"),
    };
    let stamp = Recipe::new("account 2")
        .text("source", &source.sha256)
        .text("script", SCRIPT)
        .text("kernel", kernel.stamp.as_str())
        .text("iptables", iptables.stamp.as_str())
        .stamp();
    let stamp_file = out.join("stamp");
    if stamp.is_in(&stamp_file) {
        return Ok(account);
    }
    fs::create_dir_all(&out)?;
    remove_if_exists(&stamp_file)?;
    let tarball = fetch::pinned(ws, &source)?;
    let downloads = tarball.parent().context("the download has no parent folder")?;
    let mut step = ws.step("account", "building ACCOUNT of xtables-addons")?;
    let headers = iptables.installed.join("usr/local/include");
    let sandbox = root.sandbox().bind_ro(downloads, "src").bind_ro(&headers, "repo").bind_rw(&out, "out");
    step.run(sandbox.command("out", &["sh", "-euc", SCRIPT, "-", &file_name(&tarball)]))?;
    let sandbox = root.sandbox().bind_ro(&kernel.source, "src").bind_ro(&kernel.objects, "build").bind_rw(&out, "out");
    step.run(sandbox.command("out", &["make", "-C", "/build", "M=/out/extensions/ACCOUNT", "modules"]))?;
    fs::rename(out.join("extensions/ACCOUNT/xt_ACCOUNT.ko"), &account.module)?;
    step.finish();
    stamp.write(&stamp_file)?;
    Ok(account)
}
