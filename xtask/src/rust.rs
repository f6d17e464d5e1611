// SPDX-License-Identifier: GPL-2.0
//! Programs and libraries for the guest, compiled by the build root's `rustc`: crates without
//! dependencies, so they need no cargo there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    buildroot::BuildRoot,
    stamp::{Recipe, Stamp, withdraw, write_atomically},
    workshop::Workshop,
};

/// A crate to compile.
pub struct Crate<'a> {
    /// What it is called in messages, and its folder in `target/build`.
    pub name: &'a str,
    /// The crate's root file, from the top of the repository.
    pub source: &'a str,
    /// The file that comes out.
    pub output: &'a str,
    /// Arguments for rustc; `/build` is `libraries`.
    pub arguments: &'a [&'a str],
    /// A folder with libraries to link with, and what it was made from.
    pub libraries: Option<(&'a Path, &'a Stamp)>,
}

/// Something that was built, and what it was built from.
pub struct Product {
    /// The file.
    pub file: PathBuf,
    /// The hash of its recipe.
    pub stamp: Stamp,
}

/// Compiles when a source file, the arguments or the build root have changed.
pub fn build(ws: &Workshop, root: &BuildRoot, what: &Crate<'_>) -> Result<Product> {
    let folder = ws.target("build").join(what.name);
    let file = folder.join(what.output);
    let stamp_file = folder.join("stamp");
    let inputs_file = folder.join("inputs");
    let inputs = fs::read_to_string(&inputs_file).unwrap_or_default();
    // A source file that has gone is a change like any other.
    if let Ok(stamp) = recipe(ws, root, what, &inputs) {
        if !inputs.is_empty() && stamp.is_in(&stamp_file) && file.exists() {
            return Ok(Product { file, stamp });
        }
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    withdraw(&stamp_file)?;
    let mut step = ws.step(what.name, format!("building {}", what.output))?;
    let mut sandbox = root.sandbox().read(ws.repo(), "repo").write(&folder, "out");
    if let Some((libraries, _)) = what.libraries {
        sandbox = sandbox.read(libraries, "build");
    }
    let emit = format!("--emit=dep-info=/out/deps,link=/out/{}", what.output);
    let source = format!("/repo/{}", what.source);
    let mut words = vec!["rustc", "--edition=2024", "-Copt-level=2", "-Cpanic=abort"];
    words.extend(["-Cstrip=debuginfo", &emit]);
    words.extend(what.arguments);
    words.push(&source);
    // rustc also writes where it stands.
    step.run(sandbox.command("out", &words))?;
    step.finish();

    let deps = folder.join("deps");
    let deps = fs::read_to_string(&deps).with_context(|| format!("cannot read {}", deps.display()))?;
    let inputs = inputs_of(&deps).join("\n");
    write_atomically(&inputs_file, inputs.as_bytes())?;
    let stamp = recipe(ws, root, what, &inputs)?;
    stamp.write(&stamp_file)?;
    Ok(Product { file, stamp })
}

fn recipe(ws: &Workshop, root: &BuildRoot, what: &Crate<'_>, inputs: &str) -> Result<Stamp> {
    let mut recipe = Recipe::new("crate 1").text("root", root.stamp().as_str()).list("arguments", what.arguments);
    if let Some((_, stamp)) = what.libraries {
        recipe = recipe.text("libraries", stamp.as_str());
    }
    for input in inputs.lines() {
        recipe = recipe.text("input", input).file(&ws.repo().join(input))?;
    }
    Ok(recipe.stamp())
}

/// The files in the repository that rustc has read, from what it wrote for make.
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
    fn inputs_are_read_from_the_first_rule() {
        let deps = "/out/lib.so: /repo/libxt/src/lib.rs /repo/module/abi.rs /repo/a\\ b.rs\n\n\
                    /repo/libxt/src/lib.rs:\n/repo/module/abi.rs:\n";
        assert_eq!(inputs_of(deps), ["a b.rs", "libxt/src/lib.rs", "module/abi.rs"]);
        assert_eq!(inputs_of(""), [""; 0]);
    }
}
