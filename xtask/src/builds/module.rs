// SPDX-License-Identifier: GPL-2.0-only
//! Builds the kernel module, out of tree, for one kernel.

use anyhow::{Result, ensure};
use fs_err as fs;

use crate::builds::kernel::Kernel;
use crate::builds::root::BuildRoot;
use crate::builds::sandbox::jobs;
use crate::stamp::{Product, Recipe};
use crate::workspace::{Workspace, remove_tree};

/// The module's file.
pub const MODULE: &str = "xt_traffic.ko";

/// The folders of `module/` that Kbuild does not read.
pub const HOST_ONLY: [&str; 2] = ["benches", "tests"];

/// Builds the module if its source or the kernel has changed.
pub fn build(ws: &Workspace, root: &BuildRoot, kernel: &Kernel) -> Result<Product> {
    let source = ws.repo().join("module");
    let name = format!("module-{}", kernel.choice);
    let out = ws.target("build").join(&name);
    let recipe = Recipe::new("module 3").text("kernel", kernel.stamp.as_str());
    let stamp = recipe.folder_without(&source, &HOST_ONLY)?.stamp();
    let stamp_file = out.join("stamp");
    let file = out.join("module").join(MODULE);
    stamp.make(&stamp_file, &file, || {
        fs::create_dir_all(&out)?;
        let mut step = ws.step(&name, format!("building {name}"))?;
        let sandbox = root
            .sandbox()
            .bind_ro(&kernel.source, "src")
            .bind_ro(&kernel.objects, "build")
            .bind_ro(ws.repo(), "repo")
            .bind_rw(&out, "out");
        // Kbuild writes the objects beside the source. Linux 6.12 has no MO= for another folder.
        remove_tree(&out.join("module"))?;
        step.run(sandbox.command("out", &["cp", "-r", "/repo/module", "/out"]))?;
        let jobs = jobs();
        // W=e makes warnings errors, whether or not the kernel has CONFIG_WERROR.
        let mut words = vec!["make", "-C", "/build", "M=/out/module", "W=e", &jobs];
        words.extend(kernel.settings.iter().map(String::as_str));
        words.push("modules");
        step.run(sandbox.command("build", &words))?;
        step.finish();
        ensure!(file.exists(), "module/Kbuild did not build {MODULE}");
        Ok(())
    })?;
    Ok(Product { file, stamp })
}
