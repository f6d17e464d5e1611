// SPDX-License-Identifier: GPL-2.0-only
//! `cache`: the size of the cache, and its removal.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Result;
use clap::Subcommand;
use indicatif::HumanBytes;
use walkdir::WalkDir;

use crate::process;
use crate::workspace::{Workspace, remove_tree};

/// The folders of the cache.
const FOLDERS: [(&str, &str); 12] = [
    ("download", "verified downloads"),
    ("lists", "package lists of `pins check`"),
    ("root", "build roots"),
    ("guest", "root file systems of guests"),
    ("tree", "source trees in git"),
    ("build", "objects"),
    ("deb", "packages"),
    ("debian-disk", "disks of the Debian VM"),
    ("guests", "snapshots of booted guests"),
    ("gpg", "a key for tests of signed repositories"),
    ("check", "objects of `patches check`"),
    ("edit", "trees to edit, from `patches apply`; yours to remove"),
];

#[derive(Subcommand, Clone, Copy, Debug)]
pub enum Action {
    /// Print the size of each part
    Sizes,
    /// Remove all but the downloads and the trees to edit
    Clean,
}

pub fn run(ws: &Workspace, action: Action) -> Result<()> {
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

/// The bytes on disk of a folder and its content; 0 if it does not exist.
fn size_of(folder: &Path) -> Result<u64> {
    if !folder.exists() {
        return Ok(0);
    }
    let mut total = 0;
    for entry in WalkDir::new(folder) {
        process::check()?;
        total += entry?.metadata()?.blocks() * 512;
    }
    Ok(total)
}
