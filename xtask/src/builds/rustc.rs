// SPDX-License-Identifier: GPL-2.0-only
//! Compiles crates without dependencies with the build root's `rustc`; cargo is not needed for
//! them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use crate::builds::root::BuildRoot;
use crate::stamp::{Recipe, Stamp, remove_if_exists, write_atomically};
use crate::workspace::Workspace;

/// A crate to compile.
pub struct Crate<'a> {
    /// Its name in messages, and its folder in `target/build`.
    pub name: &'a str,
    /// The crate's root file, relative to the repository.
    pub source: &'a str,
    /// The name of the compiled file.
    pub output: &'a str,
    /// Arguments for rustc; `libraries` is mounted at `/build`.
    pub arguments: &'a [&'a str],
    /// A folder with libraries to link with, and its stamp.
    pub libraries: Option<(&'a Path, &'a Stamp)>,
}

/// A built file.
pub struct Product {
    /// The file.
    pub file: PathBuf,
    /// The hash of its inputs.
    pub stamp: Stamp,
}

/// Compiles the crate if a source file, the arguments or the build root have changed.
pub fn build(ws: &Workspace, root: &BuildRoot, what: &Crate<'_>) -> Result<Product> {
    let folder = ws.target("build").join(what.name);
    let file = folder.join(what.output);
    let stamp_file = folder.join("stamp");
    let inputs_file = folder.join("inputs");
    let inputs = fs::read_to_string(&inputs_file).unwrap_or_default();
    // An error means that a source file was removed: compile.
    if let Ok(stamp) = recipe(ws, root, what, &inputs) {
        if !inputs.is_empty() && stamp.is_in(&stamp_file) && file.exists() {
            return Ok(Product { file, stamp });
        }
    }
    fs::create_dir_all(&folder)?;
    remove_if_exists(&stamp_file)?;
    let mut step = ws.step(what.name, format!("building {}", what.output))?;
    let mut sandbox = root.sandbox().bind_ro(ws.repo(), "repo").bind_rw(&folder, "out");
    if let Some((libraries, _)) = what.libraries {
        sandbox = sandbox.bind_ro(libraries, "build");
    }
    let emit = format!("--emit=dep-info=/out/deps,link=/out/{}", what.output);
    let source = format!("/repo/{}", what.source);
    let mut words = vec!["rustc", "--edition=2024", "-Copt-level=2", "-Cpanic=abort"];
    words.extend(["-Cstrip=debuginfo", &emit]);
    words.extend(what.arguments);
    words.push(&source);
    // rustc also writes to its work folder.
    step.run(sandbox.command("out", &words))?;
    step.finish();

    let deps = fs::read_to_string(folder.join("deps"))?;
    let inputs = inputs_of(&deps).join("\n");
    write_atomically(&inputs_file, inputs.as_bytes())?;
    let stamp = recipe(ws, root, what, &inputs)?;
    stamp.write(&stamp_file)?;
    Ok(Product { file, stamp })
}

fn recipe(ws: &Workspace, root: &BuildRoot, what: &Crate<'_>, inputs: &str) -> Result<Stamp> {
    let mut recipe = Recipe::new("crate 1").text("root", root.stamp().as_str()).list("arguments", what.arguments);
    if let Some((_, stamp)) = what.libraries {
        recipe = recipe.text("libraries", stamp.as_str());
    }
    for input in inputs.lines() {
        recipe = recipe.text("input", input).file(&ws.repo().join(input))?;
    }
    Ok(recipe.stamp())
}

/// The files of the repository that rustc has read, from its dep-info file.
/// <https://doc.rust-lang.org/rustc/command-line-arguments.html>
fn inputs_of(deps: &str) -> Vec<String> {
    let rule = deps.lines().next().unwrap_or_default();
    let files = rule.split_once(": ").map_or("", |(_, files)| files);
    let mut inputs: Vec<String> = files
        .replace("\\ ", "\0")
        .split_whitespace()
        .map(|file| file.replace('\0', " "))
        .filter_map(|file| file.strip_prefix("/repo/").map(str::to_owned))
        .collect();
    inputs.sort();
    inputs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inputs_are_those_of_the_first_rule() {
        let deps = "/out/lib.so: /repo/libxt/src/lib.rs /repo/module/abi.rs /repo/a\\ b.rs\n\n\
                    /repo/libxt/src/lib.rs:\n/repo/module/abi.rs:\n";
        assert_eq!(inputs_of(deps), ["a b.rs", "libxt/src/lib.rs", "module/abi.rs"]);
        assert_eq!(inputs_of(""), [""; 0]);
    }
}
