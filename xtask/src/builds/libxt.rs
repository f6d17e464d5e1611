// SPDX-License-Identifier: GPL-2.0-only
//! Builds the iptables extension, and makes its bindings to libxtables.

use anyhow::{Result, ensure};
use fs_err as fs;

use crate::builds::iptables::Iptables;
use crate::builds::root::BuildRoot;
use crate::stamp::{Product, Recipe, write_atomically};
use crate::workspace::Workspace;

/// The extension's file.
pub const LIBRARY: &str = "libxt_traffic.so";

/// The header that bindgen reads.
const HEADER: &str = "libxt/bindings.h";
/// bindgen's arguments, one a line.
const ARGUMENTS: &str = "libxt/bindgen.args";
/// The committed output of bindgen.
pub const BINDINGS: &str = "libxt/src/bindings.rs";

/// The files and folders that the extension consists of. rustc sees no others.
const INPUTS: [&str; 2] = ["libxt/src", "module/abi.rs"];
/// rustc's arguments. Cargo is not needed: the extension has no dependencies.
const RUSTC: [&str; 9] = [
    "rustc",
    "--edition=2024",
    "--crate-type=cdylib",
    "--crate-name=xt_traffic",
    "-Copt-level=2",
    "-Cpanic=abort",
    "-Cstrip=debuginfo",
    "-Lnative=/build",
    "/repo/libxt/src/lib.rs",
];

/// Builds the extension if its source or libxtables has changed.
pub fn build(ws: &Workspace, root: &BuildRoot, iptables: &Iptables) -> Result<Product> {
    let folder = ws.target("build").join("libxt");
    let mut recipe = Recipe::new("libxt 3")
        .text("root", root.stamp().as_str())
        .text("libraries", iptables.stamp.as_str())
        .list("arguments", &RUSTC);
    let libraries = iptables.installed.join("usr/local/lib");
    let mut sandbox = root.sandbox().bind_rw(&folder, "out").bind_ro(&libraries, "build");
    for input in INPUTS {
        let path = ws.repo().join(input);
        recipe = recipe.path(&path)?;
        sandbox = sandbox.bind_ro(&path, &format!("repo/{input}"));
    }
    let (file, stamp, stamp_file) = (folder.join(LIBRARY), recipe.stamp(), folder.join("stamp"));
    stamp.make(&stamp_file, &file, || {
        fs::create_dir_all(&folder)?;
        let mut step = ws.step("libxt", format!("building {LIBRARY}"))?;
        let output = format!("-o/out/{LIBRARY}");
        // rustc also writes to its work folder.
        step.run(sandbox.command("out", &[&RUSTC[..], &[&output]].concat()))?;
        step.finish();
        Ok(())
    })?;
    Ok(Product { file, stamp })
}

/// Writes bindgen's output over the committed bindings.
pub fn write_bindings(ws: &Workspace, root: &BuildRoot, iptables: &Iptables) -> Result<()> {
    write_atomically(&ws.repo().join(BINDINGS), bindings(ws, root, iptables)?.as_bytes())
}

/// Fails if the committed bindings differ from bindgen's output.
pub fn check_bindings(ws: &Workspace, root: &BuildRoot, iptables: &Iptables) -> Result<()> {
    let committed = fs::read_to_string(ws.repo().join(BINDINGS))?;
    ensure!(
        bindings(ws, root, iptables)? == committed,
        "{BINDINGS} is out of date: run `cargo xtask build-libxt --bindings`"
    );
    Ok(())
}

fn bindings(ws: &Workspace, root: &BuildRoot, iptables: &Iptables) -> Result<String> {
    let arguments = fs::read_to_string(ws.repo().join(ARGUMENTS))?;
    let out = ws.temporary()?;
    let mut step = ws.step("bindings", "making the bindings to libxtables")?;
    let sandbox = root
        .sandbox()
        .bind_ro(&iptables.source, "src")
        .bind_ro(&iptables.objects, "build")
        .bind_ro(ws.repo(), "repo")
        .bind_rw(out.path(), "out");
    let header = format!("/repo/{HEADER}");
    let mut words = vec!["bindgen", &header, "--output=/out/bindings.rs"];
    words.extend(arguments.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')));
    words.extend(["--", "-I/build/include", "-I/src/include"]);
    // In /out, not in the repository: bindgen would format with the rustfmt.toml of its work
    // folder.
    step.run(sandbox.command("out", &words))?;
    step.finish();
    Ok(fs::read_to_string(out.path().join("bindings.rs"))?)
}
