// SPDX-License-Identifier: GPL-2.0
//! What a guest boots: `target/vm/CONFIG/` with the kernel and the two halves of its initramfs.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use vm_harness::artifacts::Artifacts;

use crate::{
    archive::Archive,
    buildroot::BuildRoot,
    commands::{
        build_iptables::{self, Iptables},
        build_kernel::{self, Kernel, Options},
        build_libxt,
        build_module::{self, MODULE},
        setup,
    },
    guest_root,
    rust::{self, Crate, Product},
    stamp::{Recipe, withdraw},
    workshop::Workshop,
};

/// Where Debian's own iptables looks for extensions.
const DEBIAN_EXTENSIONS: &str = "usr/lib/x86_64-linux-gnu/xtables";
/// Where ours does.
const EXTENSIONS: &str = "usr/local/lib/xtables";

/// Builds all that changed, and gives the folder that the VM harness takes.
pub fn ready(ws: &Workshop, options: &Options) -> Result<PathBuf> {
    let root = BuildRoot::ready(ws)?;
    let base = guest_root::ready(ws)?;
    let iptables = build_iptables::build(ws, &root)?;
    let libxt = build_libxt::build(ws, &root, &iptables)?;
    let agent = agent(ws, &root)?;
    let kernel = build_kernel::build(ws, &root, options)?;
    let module = build_module::build(ws, &root, &kernel)?;

    let mut name = options.config.to_string();
    let default = &ws.pins().kernel.default;
    if let Some(series) = options.series.as_ref().filter(|series| *series != default) {
        name = format!("{name}-{series}");
    }
    let folder = ws.target("vm").join(name);
    assemble(&folder, &base, &kernel, &Overlay { agent, module, libxt, iptables })
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Like [`ready`], for the VM harness, from nothing: takes the lock while it builds.
pub fn artifacts(ws: &Workshop, options: &Options) -> Result<Artifacts> {
    let _lock = setup::prepare(ws)?;
    Artifacts::from_dir(&ready(ws, options)?)
}

/// The guest's init, static, as it starts before anything else.
fn agent(ws: &Workshop, root: &BuildRoot) -> Result<Product> {
    let agent = Crate {
        name: "agent",
        source: "vm-tests/agent/main.rs",
        output: "init",
        arguments: &["-Ctarget-feature=+crt-static", "-Ccodegen-units=1"],
        libraries: None,
    };
    rust::build(ws, root, &agent)
}

/// What changes from build to build.
struct Overlay {
    agent: Product,
    module: Product,
    libxt: Product,
    iptables: Iptables,
}

fn assemble(folder: &Path, base: &Path, kernel: &Kernel, overlay: &Overlay) -> Result<()> {
    let stamp = Recipe::new("image 2")
        .text("base", &base.to_string_lossy())
        .text("kernel", kernel.stamp.as_str())
        .text("agent", overlay.agent.stamp.as_str())
        .text("module", overlay.module.stamp.as_str())
        .text("libxt", overlay.libxt.stamp.as_str())
        .text("iptables", overlay.iptables.stamp.as_str())
        .stamp();
    let stamp_file = folder.join("stamp");
    if stamp.is_in(&stamp_file) {
        return Ok(());
    }
    withdraw(&stamp_file)?;
    fs::create_dir_all(folder)?;
    // New files under new names: a guest that is starting has the old ones open.
    let new = folder.join(".bzImage");
    fs::copy(kernel.image(), &new)?;
    fs::rename(&new, folder.join("bzImage"))?;
    let new = folder.join(".base.cpio");
    withdraw(&new)?;
    symlink(base, &new)?;
    fs::rename(&new, folder.join("base.cpio"))?;
    overlay.archive()?.write(&folder.join("overlay.cpio"))?;
    stamp.write(&stamp_file)
}

impl Overlay {
    fn archive(&self) -> Result<Archive> {
        let read = |file: &Path| fs::read(file).with_context(|| format!("cannot read {}", file.display()));
        let mut archive = Archive::new();
        archive.file("init", 0o755, read(&self.agent.file)?);
        // Not below /lib, which is a link: the kernel would put a folder in its place.
        archive.file(Path::new("usr/lib/modules").join(MODULE), 0o644, read(&self.module.file)?);
        let skip = |path: &Path| {
            let unwanted = ["include", "share", "lib/pkgconfig"];
            path.extension().is_some_and(|extension| extension == "la")
                || unwanted.iter().any(|u| path == Path::new("usr/local").join(u))
        };
        archive.copy(&self.iptables.installed.join("usr"), Path::new("usr"), &skip)?;
        // The plain names are the nf_tables back end's, as in Debian. `make install` thinks otherwise.
        for family in ["iptables", "ip6tables"] {
            for tool in ["", "-save", "-restore"] {
                archive.link(format!("usr/local/sbin/{family}{tool}"), "xtables-nft-multi");
            }
        }
        let libxt = read(&self.libxt.file)?;
        for folder in [EXTENSIONS, DEBIAN_EXTENSIONS] {
            let path = Path::new(folder).join(build_libxt::LIBRARY);
            archive.file(path, 0o755, libxt.clone());
        }
        Ok(archive)
    }
}
