// SPDX-License-Identifier: GPL-2.0
//! The peers: ACCOUNT of xtables-addons, built for our kernel and our iptables, a guest with Debian's pmacct, and ipfm.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Deserialize;
use vm_harness::artifacts::Artifacts;

use crate::{
    buildroot::BuildRoot,
    commands::{build_iptables::Iptables, build_kernel::Kernel},
    fetch, guest_root,
    pins::Source,
    stamp::{Recipe, withdraw},
    workshop::{Workshop, file_name},
};

/// The pins of `peers.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Peers {
    packages: Vec<String>,
    xtables_addons: Source,
    ipfm: Source,
}

impl Peers {
    fn read(ws: &Workshop) -> Result<Self> {
        let file = ws.repo().join("xtask/peers.toml");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is wrong", file.display()))
    }
}

/// A guest like the one in the folder `guest`, with the packages of the peers.
pub fn guest(ws: &Workshop, guest: &Path) -> Result<Artifacts> {
    let base = guest_root::ready_with(ws, &Peers::read(ws)?.packages)?;
    let folder = ws.target("vm").join("peers");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let files = [("bzImage", guest.join("bzImage")), ("base.cpio", base), ("overlay.cpio", guest.join("overlay.cpio"))];
    for (name, from) in files {
        let link = folder.join(name);
        withdraw(&link)?;
        symlink(&from, &link).with_context(|| format!("cannot make {}", link.display()))?;
    }
    Artifacts::from_dir(&folder)
}

/// The version of the xtables-addons that ACCOUNT comes from.
pub fn account_version(ws: &Workshop) -> Result<String> {
    Ok(Peers::read(ws)?.xtables_addons.version)
}

/// The package of ipfm, which needs nothing that pmacct does not.
pub fn ipfm(ws: &Workshop) -> Result<PathBuf> {
    fetch::pinned(ws, &Peers::read(ws)?.ipfm)
}

/// The kernel's half of ACCOUNT, and that of iptables.
pub struct Account {
    /// `xt_ACCOUNT.ko`
    pub module: PathBuf,
    /// `libxt_ACCOUNT.so`
    pub library: PathBuf,
    /// `iptaccount`, which prints what was counted.
    pub reader: PathBuf,
}

/// Takes what belongs to ACCOUNT out of the tarball and builds it. There is no configure: that would
/// look for a kernel with all that the other extensions need.
const SCRIPT: &str = "\
rm -rf * && tar --extract --file \"/src/$1\" --strip-components 1
cd extensions/ACCOUNT && cp ../compat_*.h .
echo 'obj-m += xt_ACCOUNT.o' >Kbuild
gcc -O2 -fPIC -shared -D_INIT=libxt_ACCOUNT_init -I/repo -I. -o /out/libxt_ACCOUNT.so libxt_ACCOUNT.c
gcc -O2 -I/repo -I. -o /out/iptaccount iptaccount.c libxt_ACCOUNT_cl.c";

/// Builds it when it, the kernel or iptables has changed.
pub fn account(ws: &Workshop, root: &BuildRoot, kernel: &Kernel, iptables: &Iptables) -> Result<Account> {
    let Peers { xtables_addons, .. } = Peers::read(ws)?;
    let out = ws.target("build").join("account");
    let account = Account {
        module: out.join("xt_ACCOUNT.ko"),
        library: out.join("libxt_ACCOUNT.so"),
        reader: out.join("iptaccount"),
    };
    let stamp = Recipe::new("account 2")
        .text("source", &xtables_addons.sha256)
        .text("script", SCRIPT)
        .text("kernel", kernel.stamp.as_str())
        .text("iptables", iptables.stamp.as_str())
        .stamp();
    let stamp_file = out.join("stamp");
    if stamp.is_in(&stamp_file) {
        return Ok(account);
    }
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    withdraw(&stamp_file)?;
    let tarball = fetch::pinned(ws, &xtables_addons)?;
    let downloads = tarball.parent().context("a download lies in no folder")?;
    let mut step = ws.step("account", "building ACCOUNT of xtables-addons")?;
    let headers = iptables.installed.join("usr/local/include");
    let sandbox = root.sandbox().read(downloads, "src").read(&headers, "repo").write(&out, "out");
    step.run(sandbox.command("out", &["sh", "-euc", SCRIPT, "-", &file_name(&tarball)]))?;
    let sandbox = root.sandbox().read(&kernel.source, "src").read(&kernel.objects, "build").write(&out, "out");
    step.run(sandbox.command("out", &["make", "-C", "/build", "M=/out/extensions/ACCOUNT", "modules"]))?;
    fs::rename(out.join("extensions/ACCOUNT/xt_ACCOUNT.ko"), &account.module).context("there is no xt_ACCOUNT.ko")?;
    step.finish();
    stamp.write(&stamp_file)?;
    Ok(account)
}
