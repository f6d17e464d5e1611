// SPDX-License-Identifier: GPL-2.0-only
//! Builds the guest's init, `vm-tests/agent`. It belongs to the test tooling, so cargo builds it on
//! the host, like xtask itself, and not in the build root.

use std::process::Command;

use anyhow::Result;

use crate::process;
use crate::stamp::{Product, Recipe};
use crate::workspace::Workspace;

/// The target is in full, so that cargo's configuration cannot select another one.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The init is linked statically: it starts before the file systems are mounted.
const RUSTC: [&str; 2] = ["-Ctarget-feature=+crt-static", "-Cpanic=abort"];
/// The files and folders that decide on the program, besides cargo and rustc.
const INPUTS: [&str; 3] = ["Cargo.lock", "Cargo.toml", "vm-tests/agent"];

/// Builds the agent if its source, its dependencies or rustc have changed.
pub fn build(ws: &Workspace) -> Result<Product> {
    let folder = ws.target("build").join("agent");
    let mut rustc = Command::new("rustc");
    rustc.arg("--version").current_dir(ws.repo());
    let mut version = Vec::new();
    process::run_lines(rustc, |line| version.push(line.to_owned()))?;
    let mut recipe = Recipe::new("agent").list("rustc", &version).list("arguments", &RUSTC);
    for input in INPUTS {
        recipe = recipe.path(&ws.repo().join(input))?;
    }
    let (stamp, file) = (recipe.stamp(), folder.join(TARGET).join("debug/vm-agent"));
    stamp.make(&folder.join("stamp"), &file, || {
        let mut step = ws.step("agent", "building init")?;
        let mut cargo = Command::new("cargo");
        // These would change the program, or where it is written to.
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"] {
            cargo.env_remove(name);
        }
        cargo.current_dir(ws.repo()).args(["rustc", "--locked", "--package=vm-agent", "--bin=vm-agent"]);
        cargo.arg("--target").arg(TARGET).arg("--target-dir").arg(&folder).arg("--").args(RUSTC);
        step.run(cargo)?;
        step.finish();
        Ok(())
    })?;
    Ok(Product { file, stamp })
}
