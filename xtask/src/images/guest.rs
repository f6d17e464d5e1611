// SPDX-License-Identifier: GPL-2.0-only
//! The files that a guest boots, in `target/guest/KERNEL/`: the kernel and the two archives of its
//! initramfs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fs_err::{self as fs, os::unix::fs::symlink};
use vm_harness::artifacts::Artifacts;

use crate::builds::agent;
use crate::builds::iptables::{self, Iptables};
use crate::builds::kernel::{self, Choice, Kernel};
use crate::builds::libxt;
use crate::builds::module::{self, MODULE};
use crate::builds::root::BuildRoot;
use crate::host;
use crate::images::guest_root;
use crate::images::initramfs::Archive;
use crate::process::both;
use crate::sources::tree::Tree;
use crate::stamp::{Product, Recipe, remove_if_exists, write_atomically};
use crate::workspace::Workspace;

/// The folder in which Debian's iptables looks for extensions.
const DEBIAN_EXTENSIONS: &str = "usr/lib/x86_64-linux-gnu/xtables";
/// The folder in which the patched iptables looks for extensions.
const EXTENSIONS: &str = "usr/local/lib/xtables";

/// The kernel's test of the hook PROMISC, and the files that it reads. Their folder in the guest
/// has the same name, below `/usr`. Not every kernel has all of these files.
const SELFTESTS: &str = "tools/testing/selftests/net";
const SELFTEST: [&str; 5] =
    ["lib.sh", "lib/sh/defer.sh", "netfilter/lib.sh", "netfilter/nf_promisc.sh", "netfilter/nf_mirror.sh"];

/// Builds everything that a guest boots. Returns the folder for the VM harness.
pub fn build(ws: &Workspace, choice: &Choice) -> Result<PathBuf> {
    // Making the build root leaves a processor idle, and so does building the kernel at times.
    let ((), root) = both(
        || {
            Tree::iptables(ws)?;
            kernel::checkout(ws, choice)
        },
        || BuildRoot::prepare(ws),
    )?;
    let ((kernel, module), (base, agent, iptables, libxt)) = both(
        || {
            let kernel = kernel::build(ws, &root, choice)?;
            let module = module::build(ws, &root, &kernel)?;
            Ok((kernel, module))
        },
        || {
            let iptables = iptables::build(ws, &root)?;
            let libxt = libxt::build(ws, &root, &iptables)?;
            Ok((guest_root::prepare(ws)?, agent::build(ws)?, iptables, libxt))
        },
    )?;
    let folder = ws.target("guest").join(choice.to_string());
    let selftests = kernel.source.join(SELFTESTS);
    assemble(&folder, &base, &kernel, &Overlay { agent, module, libxt, iptables, selftests })
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Like [`build`], with the lock, for commands that start a guest afterwards.
pub fn artifacts(ws: &Workspace, choice: &Choice) -> Result<Artifacts> {
    let _lock = host::require(ws)?;
    Artifacts::from_dir(&build(ws, choice)?)
}

/// The part of the initramfs that is built here.
struct Overlay {
    agent: Product,
    module: Product,
    libxt: Product,
    iptables: Iptables,
    /// The folder of the kernel's tests of the network.
    selftests: PathBuf,
}

fn assemble(folder: &Path, base: &Path, kernel: &Kernel, overlay: &Overlay) -> Result<()> {
    let stamp = Recipe::new("image 3")
        .text("base", &base.to_string_lossy())
        .text("kernel", kernel.stamp.as_str())
        .text("agent", overlay.agent.stamp.as_str())
        .text("module", overlay.module.stamp.as_str())
        .text("libxt", overlay.libxt.stamp.as_str())
        .text("iptables", overlay.iptables.stamp.as_str())
        .stamp();
    let archive = folder.join("overlay.cpio");
    stamp.make(&folder.join("stamp"), &archive, || {
        fs::create_dir_all(folder)?;
        // Rename new files into place: a guest that is starting may have the old ones open.
        write_atomically(&folder.join("bzImage"), &fs::read(kernel.image())?)?;
        let new = folder.join(".base.cpio");
        remove_if_exists(&new)?;
        symlink(base, &new)?;
        fs::rename(&new, folder.join("base.cpio"))?;
        overlay.archive()?.write(&archive)
    })
}

impl Overlay {
    fn archive(&self) -> Result<Archive> {
        let mut archive = Archive::default();
        archive.file("init", 0o755, fs::read(&self.agent.file)?);
        // Not below /lib, which is a link: the kernel would replace it by a folder.
        archive.file(Path::new("usr/lib/modules").join(MODULE), 0o644, fs::read(&self.module.file)?);
        let skip = |path: &Path| {
            let unwanted = ["include", "share", "lib/pkgconfig"];
            path.extension().is_some_and(|extension| extension == "la")
                || unwanted.iter().any(|name| path == Path::new("usr/local").join(name))
        };
        archive.copy(&self.iptables.installed.join("usr"), Path::new("usr"), &skip)?;
        // As in Debian, the plain names are those of the nf_tables back end.
        for family in ["iptables", "ip6tables"] {
            for tool in ["", "-save", "-restore"] {
                archive.link(format!("usr/local/sbin/{family}{tool}"), "xtables-nft-multi");
            }
        }
        for folder in [EXTENSIONS, DEBIAN_EXTENSIONS] {
            archive.file(Path::new(folder).join(libxt::LIBRARY), 0o755, fs::read(&self.libxt.file)?);
        }
        for file in SELFTEST.iter().filter(|file| self.selftests.join(file).exists()) {
            let path = Path::new("usr").join(SELFTESTS).join(file);
            archive.file(path, 0o755, fs::read(self.selftests.join(file))?);
        }
        Ok(archive)
    }
}
