// SPDX-License-Identifier: GPL-2.0-only
//! The other counters: `ACCOUNT` of xtables-addons, built for our kernel and our iptables, our own
//! programs in eBPF, and pmacct and ipfm from Debian.

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
    /// The Debian packages of clang that the build root lacks. They are not part of the build root:
    /// another package there would mean that everything is built again.
    pub clang: Vec<Download>,
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
    let out = ws.target("build").join(format!("account-{}", kernel.choice));
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

/// The source of the programs in eBPF.
const EBPF_SOURCE: &str = "xtask/ebpf";
/// The programs in it. Each is a section of the object file.
pub const EBPF_PROGRAMS: [&str; 4] = ["nothing", "count", "senders", "array"];

/// Unpacks clang, which needs the libraries and headers of the build root, compiles the programs,
/// and copies their instructions to a file for each. GNU objcopy need not know eBPF for this.
const EBPF_SCRIPT: &str = "\
rm -rf clang
packages=$1 && shift
for package in $packages; do dpkg-deb --extract \"/src/$package\" clang; done
LD_LIBRARY_PATH=clang/usr/lib/x86_64-linux-gnu clang/usr/lib/llvm-19/bin/clang --target=bpfel -mcpu=v3 -O2 \
    -Wall -Werror -I/usr/include/x86_64-linux-gnu -c /repo/count.c -o count.o
for program; do objcopy -I elf64-little -O binary --only-section=\"$program\" count.o \"$program\"; done
rm -rf clang";

/// Compiles the programs in eBPF if their source has changed. Returns the folder with them.
pub fn ebpf(ws: &Workspace, root: &BuildRoot) -> Result<PathBuf> {
    let clang = Peers::read()?.clang;
    let source = ws.repo().join(EBPF_SOURCE);
    let out = ws.target("build").join("ebpf");
    let hashes: Vec<_> = clang.iter().map(|package| &package.sha256).collect();
    let stamp = Recipe::new("ebpf 1")
        .text("root", root.stamp().as_str())
        .list("clang", &hashes)
        .text("script", EBPF_SCRIPT)
        .list("programs", &EBPF_PROGRAMS)
        .folder(&source)?
        .stamp();
    stamp.make(&out.join("stamp"), &out.join(EBPF_PROGRAMS[0]), || {
        fs::create_dir_all(&out)?;
        let files = clang.iter().map(|package| fetch::pinned(ws, package)).collect::<Result<Vec<_>>>()?;
        let downloads = files.first().and_then(|file| file.parent()).context("peers.toml has no clang")?;
        let names: Vec<_> = clang.iter().map(|package| package.file.as_str()).collect();
        let mut step = ws.step("ebpf", "compiling programs in eBPF")?;
        let sandbox = root.sandbox().bind_ro(downloads, "src").bind_ro(&source, "repo").bind_rw(&out, "out");
        let packages = names.join(" ");
        let words = [&["sh", "-euc", EBPF_SCRIPT, "-", &packages], &EBPF_PROGRAMS[..]].concat();
        step.run(sandbox.command("out", &words))?;
        step.finish();
        Ok(())
    })?;
    Ok(out)
}
