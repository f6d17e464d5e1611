// SPDX-License-Identifier: GPL-2.0-only
//! `pins.toml` with other pins.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use fs_err as fs;

use crate::sources::pins::{Download, Pins};
use crate::stamp::write_atomically;
use crate::workspace::Workspace;

/// The file with the pins, before and after the update.
pub struct PinsFile {
    path: PathBuf,
    before: String,
    after: String,
}

impl PinsFile {
    /// The file with the text that `rewrite` makes of the present one.
    pub fn with(ws: &Workspace, rewrite: impl FnOnce(&str) -> Result<String>) -> Result<Self> {
        let path = ws.repo().join("xtask/pins.toml");
        let before = fs::read_to_string(&path)?;
        let after = rewrite(&before)?;
        Ok(Self { path, before, after })
    }

    /// The workspace with the pins after the update.
    pub fn candidate(&self, ws: &Workspace) -> Result<Workspace> {
        Ok(ws.with_pins(Pins::parse(&self.after).context("the new pins are invalid")?))
    }

    /// Writes the text after the update.
    pub fn write(&self) -> Result<()> {
        let path = self.path.display();
        // A build takes long enough to edit the file.
        ensure!(fs::read_to_string(&self.path)? == self.before, "{path} has changed in the meantime");
        write_atomically(&self.path, self.after.as_bytes())?;
        eprintln!("{path}: rewritten");
        Ok(())
    }
}

/// Replaces the tables that begin with the line `header`, in their order. A table ends with an
/// empty line. All else, comments included, stays.
pub fn replace_tables<'a>(
    text: &str,
    header: &str,
    downloads: impl IntoIterator<Item = &'a Download>,
) -> Result<String> {
    let (mut done, mut rest) = (String::new(), text);
    for download in downloads {
        let start = format!("\n{rest}").find(&format!("\n{header}\n"));
        let (before, table) = rest.split_at(start.with_context(|| format!("no line {header}"))?);
        let end = table.find("\n\n").map_or(table.len(), |at| at + 1);
        done += &format!("{before}{header}\n{}", toml(download));
        rest = &table[end..];
    }
    Ok(done + rest)
}

fn toml(download: &Download) -> String {
    let Download { version, file, sha256, size, paths, snapshot } = download;
    let paths = match &paths[..] {
        [path] => format!("[\"{path}\"]"),
        paths => format!("[\n{}]", paths.iter().map(|path| format!("    \"{path}\",\n")).collect::<String>()),
    };
    let snapshot = snapshot.as_ref().map(|time| format!("snapshot = \"{time}\"\n")).unwrap_or_default();
    format!(
        "version = \"{version}\"\nfile = \"{file}\"\nsha256 = \"{sha256}\"\nsize = {size}\npaths = {paths}\n{snapshot}"
    )
}
