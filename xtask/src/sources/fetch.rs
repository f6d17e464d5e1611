// SPDX-License-Identifier: GPL-2.0-only
//! Pinned downloads. A file is verified before it gets its name in the cache.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail, ensure};
use fs_err::File;
use sha2::{Digest, Sha256};

use crate::process;
use crate::sources::mirrors::{self, ARCHIVE_VARIABLE, Elsewhere, FILES_VARIABLE};
use crate::sources::pins::Download;
use crate::stamp::hex;
use crate::ui::Step;
use crate::workspace::{Workspace, keep};

/// The path of the verified file: in the cache's `download` folder, or downloaded from the first
/// address that has it. The mirrors of apt's configuration come first, then the archive that keeps
/// every version, then the user's own folder or address.
pub fn pinned(ws: &Workspace, source: &Download) -> Result<PathBuf> {
    let file = ws.cache().join("download").join(&source.file);
    let mut errors = Vec::new();
    if file.exists() {
        let found = hash_of(&file)?;
        if found == source.sha256 {
            return Ok(file);
        }
        // The file is kept until another one is verified: the pin may be wrong.
        let error = mismatch(&file.display().to_string(), &found, &source.sha256);
        eprintln!("{error}: downloading it again");
        errors.push(error);
    }
    let mut step = ws.step("fetch", format!("downloading {}", source.file))?;
    let mirrors = mirrors::configured().unwrap_or_else(|error| {
        errors.push(format!("{error:#}"));
        Vec::new()
    });
    for address in Elsewhere::configured().addresses(&mirrors, source) {
        match fetch(ws, &mut step, &address, source, &file) {
            Ok(()) => {
                step.finish();
                return Ok(file);
            }
            Err(error) => errors.push(format!("{error:#}")),
        }
        process::check()?;
    }
    let hint = format!("{FILES_VARIABLE} can name a folder that has the file, and {ARCHIVE_VARIABLE} an archive");
    bail!("cannot download {}:\n    {}\n{hint}", source.file, errors.join("\n    "))
}

fn mismatch(what: &str, found: &str, wanted: &str) -> String {
    format!("{what} has SHA-256 {found}, but the pin is {wanted}")
}

fn fetch(ws: &Workspace, step: &mut Step, address: &str, source: &Download, file: &Path) -> Result<()> {
    let folder = ws.temporary()?;
    let new = folder.path().join(&source.file);
    let mut curl = Command::new("curl");
    curl.args(["--progress-bar", "--fail", "--location"])
        .args(["--connect-timeout", "20", "--retry", "3", "--max-filesize", &source.size.to_string()])
        // Give up on a mirror that sends less than 1000 bytes a second for a minute.
        .args(["--speed-limit", "1000", "--speed-time", "60", "--output"])
        .arg(&new)
        .args(["--", address]);
    let mut error = None;
    let status = process::run_lines(curl, |line| {
        if line.starts_with("curl: (") {
            step.line(&format!("{address}: {line}"));
            error = Some(line.to_owned());
        } else {
            // The progress bar is not for the log.
            step.show(line);
        }
    })?;
    ensure!(status.success(), "{address}: {}", error.unwrap_or_else(|| format!("curl failed ({status})")));
    let found = hash_of(&new)?;
    ensure!(found == source.sha256, mismatch(address, &found, &source.sha256));
    keep(&new, file)
}

fn hash_of(file: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut reader = BufReader::with_capacity(1 << 16, File::open(file)?);
    loop {
        let part = reader.fill_buf()?;
        if part.is_empty() {
            break;
        }
        hasher.update(part);
        let length = part.len();
        reader.consume(length);
    }
    Ok(hex(&hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use fs_err as fs;

    use super::*;

    #[test]
    fn a_file_is_hashed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        fs::write(&file, "abc").unwrap();
        // A test vector of FIPS 180-4: https://csrc.nist.gov/projects/cryptographic-standards-and-guidelines
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash_of(&file).unwrap(), hash);
    }
}
