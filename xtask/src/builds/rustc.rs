// SPDX-License-Identifier: GPL-2.0-only
//! Compiles crates without dependencies with the build root's `rustc`; cargo is not needed for
//! them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use crate::builds::root::BuildRoot;
use crate::stamp::{Recipe, Stamp, remove_if_exists};
use crate::workspace::Workspace;

/// A crate to compile.
pub struct Crate<'a> {
    /// Its name in messages, and its folder in `target/build`.
    pub name: &'a str,
    /// The files and folders that it consists of, relative to the repository. rustc sees no others.
    pub inputs: &'a [&'a str],
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

/// Compiles the crate if its inputs, the arguments or the build root have changed.
pub fn build(ws: &Workspace, root: &BuildRoot, what: &Crate<'_>) -> Result<Product> {
    let folder = ws.target("build").join(what.name);
    let mut recipe = Recipe::new("crate 2").text("root", root.stamp().as_str()).list("arguments", what.arguments);
    let mut sandbox = root.sandbox().bind_rw(&folder, "out");
    if let Some((libraries, stamp)) = what.libraries {
        recipe = recipe.text("libraries", stamp.as_str());
        sandbox = sandbox.bind_ro(libraries, "build");
    }
    for input in what.inputs {
        let path = ws.repo().join(input);
        recipe = recipe.text("input", input);
        recipe = if path.is_dir() { recipe.folder(&path)? } else { recipe.file(&path)? };
        sandbox = sandbox.bind_ro(&path, &format!("repo/{input}"));
    }
    let (file, stamp, stamp_file) = (folder.join(what.output), recipe.stamp(), folder.join("stamp"));
    if stamp.is_in(&stamp_file) && file.exists() {
        return Ok(Product { file, stamp });
    }
    fs::create_dir_all(&folder)?;
    remove_if_exists(&stamp_file)?;
    let mut step = ws.step(what.name, format!("building {}", what.output))?;
    let (output, source) = (format!("-o/out/{}", what.output), format!("/repo/{}", what.source));
    let mut words = vec!["rustc", "--edition=2024", "-Copt-level=2", "-Cpanic=abort", "-Cstrip=debuginfo", &output];
    words.extend(what.arguments);
    words.push(&source);
    // rustc also writes to its work folder.
    step.run(sandbox.command("out", &words))?;
    step.finish();
    stamp.write(&stamp_file)?;
    Ok(Product { file, stamp })
}
