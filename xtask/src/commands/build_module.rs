// SPDX-License-Identifier: GPL-2.0
//! `build-module`: the kernel module, out of tree, for one kernel.

use std::fs;

use anyhow::{Context, Result};

use crate::{
    buildroot::BuildRoot,
    commands::{
        build_kernel::{self, FIXED, Kernel, Options},
        setup,
    },
    rust::Product,
    sandbox::jobs,
    stamp::{Recipe, withdraw},
    workshop::Workshop,
};

/// The module's file.
pub const MODULE: &str = "xt_traffic.ko";

/// The folders of the source that are none of the kernel's business.
pub const HOST_ONLY: [&str; 2] = ["benches", "tests"];

/// The command.
pub fn run(ws: &Workshop, options: &Options) -> Result<()> {
    let _lock = setup::prepare(ws)?;
    let root = BuildRoot::ready(ws)?;
    let kernel = build_kernel::build(ws, &root, options)?;
    let module = build(ws, &root, &kernel)?;
    eprintln!("{}", module.file.display());
    Ok(())
}

/// Builds the module when its source or the kernel has changed.
pub fn build(ws: &Workshop, root: &BuildRoot, kernel: &Kernel) -> Result<Product> {
    let source = ws.repo().join("module");
    let name = kernel.name.replace("kernel", "module");
    let out = ws.target("build").join(&name);
    let recipe = Recipe::new("module 2").text("kernel", kernel.stamp.as_str());
    let stamp = recipe.folder_without(&source, &HOST_ONLY)?.stamp();
    let stamp_file = out.join("stamp");
    let file = out.join(MODULE);
    if stamp.is_in(&stamp_file) && file.exists() {
        return Ok(Product { file, stamp });
    }
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    withdraw(&stamp_file)?;
    let mut step = ws.step(&name, format!("building {name}"))?;
    let sandbox = root
        .sandbox()
        .read(&kernel.source, "src")
        .read(&kernel.objects, "build")
        .read(ws.repo(), "repo")
        .write(&out, "out");
    let jobs = jobs();
    // Warnings are errors, whatever the kernel's own configuration says.
    let mut words = vec!["make", "-C", "/build", "M=/repo/module", "MO=/out", "W=e", &jobs];
    words.extend(FIXED);
    words.push("modules");
    step.run(sandbox.command("build", &words))?;
    step.finish();
    anyhow::ensure!(file.exists(), "module/Kbuild has made no {MODULE}");
    stamp.write(&stamp_file)?;
    Ok(Product { file, stamp })
}
