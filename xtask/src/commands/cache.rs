// SPDX-License-Identifier: GPL-2.0
//! `cache`: what the cache holds, and how to be rid of it.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use anyhow::{Context, Result};
use clap::Subcommand;
use indicatif::HumanBytes;

use crate::{
    process,
    workshop::{Workshop, remove_tree},
};

/// What the folders of the cache are for. Trees that a person edits are never removed here.
const FOLDERS: [(&str, &str); 10] = [
    ("download", "verified tarballs"),
    ("root", "build roots"),
    ("guest", "the guest's root"),
    ("tree", "source trees in git"),
    ("build", "objects"),
    ("deb", "packages"),
    ("box", "the disk of the deployment test"),
    ("guests", "booted guests of the VM harness"),
    ("check", "objects of `patches check`"),
    ("edit", "trees to edit, from `patches apply`; yours to remove"),
];

/// What to do with the cache.
#[derive(Subcommand, Clone, Copy, Debug)]
pub enum Action {
    /// Tell how much each part takes
    Sizes,
    /// Remove all but the downloads and the trees that you edit
    Clean,
}

/// The command.
pub fn run(ws: &Workshop, action: Action) -> Result<()> {
    let _lock = ws.lock()?;
    for (name, purpose) in FOLDERS {
        let folder = ws.cache().join(name);
        let size = HumanBytes(size_of(&folder)?).to_string();
        let kept = matches!(name, "download" | "edit");
        match action {
            Action::Sizes => eprintln!("{size:>12}  {}  ({purpose})", folder.display()),
            Action::Clean if kept || !folder.exists() => {}
            Action::Clean => {
                eprintln!("removing {} ({size})", folder.display());
                remove_tree(&folder)?;
            }
        }
    }
    Ok(())
}

/// The bytes on disk of everything below `path`.
fn size_of(path: &Path) -> Result<u64> {
    process::check()?;
    let problem = || format!("cannot read {}", path.display());
    let data = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        data => data.with_context(problem)?,
    };
    let mut total = data.blocks() * 512;
    if data.is_dir() {
        for entry in fs::read_dir(path).with_context(problem)? {
            total += size_of(&entry.with_context(problem)?.path())?;
        }
    }
    Ok(total)
}
