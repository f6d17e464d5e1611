// SPDX-License-Identifier: GPL-2.0-only
//! The other counters: `ACCOUNT` of xtables-addons, built for our kernel and our iptables, and
//! pmacct and ipfm from Debian.

use std::path::PathBuf;

use anyhow::{Context, Result};
use fs_err as fs;
use serde::Deserialize;

use crate::builds::iptables::Iptables;
use crate::builds::kernel::Kernel;
use crate::builds::root::BuildRoot;
use crate::sources::fetch;
use crate::sources::pins::Download;
use crate::stamp::Recipe;
use crate::workspace::{Workspace, file_name};

/// The content of `peers.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peers {
    /// The Debian packages of the guest.
    pub packages: Vec<String>,
    /// The source of xtables-addons.
    pub xtables_addons: Download,
    /// The Debian package of ipfm. It needs no library that pmacct does not need.
    pub ipfm: Download,
}

impl Peers {
    /// Reads the file.
    pub fn read() -> Result<Self> {
        toml::from_str(include_str!("../../peers.toml")).context("cannot parse xtask/peers.toml")
    }
}

/// Unpacks `ACCOUNT` and builds its programs. It does not run `configure`, which requires a kernel
/// with everything that the other extensions of xtables-addons need.
const SCRIPT: &str = "\
rm -rf * && tar --extract --file \"/src/$1\" --strip-components 1
cd extensions/ACCOUNT && cp ../compat_*.h .
echo 'obj-m += xt_ACCOUNT.o' >Kbuild
gcc -O2 -fPIC -shared -D_INIT=libxt_ACCOUNT_init -I/repo -I. -o /out/libxt_ACCOUNT.so libxt_ACCOUNT.c
gcc -O2 -I/repo -I. -o /out/iptaccount iptaccount.c libxt_ACCOUNT_cl.c";

/// Builds `ACCOUNT` if its source, the kernel or iptables has changed: the kernel module, the
/// iptables extension, and the program `iptaccount`, which prints the counters.
pub fn account(ws: &Workspace, root: &BuildRoot, kernel: &Kernel, iptables: &Iptables) -> Result<PathBuf> {
    let source = Peers::read()?.xtables_addons;
    let out = ws.target("build").join("account");
    let stamp = Recipe::new("account 3")
        .text("source", &source.sha256)
        .text("script", SCRIPT)
        .text("kernel", kernel.stamp.as_str())
        .text("iptables", iptables.stamp.as_str())
        .stamp();
    let module = out.join("extensions/ACCOUNT/xt_ACCOUNT.ko");
    stamp.make(&out.join("stamp"), &module, || {
        fs::create_dir_all(&out)?;
        let tarball = fetch::pinned(ws, &source)?;
        let downloads = tarball.parent().context("the download has no parent folder")?;
        let mut step = ws.step("account", "building ACCOUNT of xtables-addons")?;
        let headers = iptables.installed.join("usr/local/include");
        let sandbox = root.sandbox().bind_ro(downloads, "src").bind_ro(&headers, "repo").bind_rw(&out, "out");
        step.run(sandbox.command("out", &["sh", "-euc", SCRIPT, "-", &file_name(&tarball)]))?;
        let sandbox =
            root.sandbox().bind_ro(&kernel.source, "src").bind_ro(&kernel.objects, "build").bind_rw(&out, "out");
        step.run(sandbox.command("out", &["make", "-C", "/build", "M=/out/extensions/ACCOUNT", "modules"]))?;
        step.finish();
        Ok(())
    })?;
    Ok(out)
}
