// SPDX-License-Identifier: GPL-2.0-only
//! Pinned downloads. A file is verified before it gets its name in the cache.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use fs_err::File;
use sha2::{Digest, Sha256};

use crate::process::{self, Running};
use crate::sources::mirrors;
use crate::sources::pins::Download;
use crate::stamp::hex;
use crate::ui::Step;
use crate::workspace::{Workspace, keep};

const CHUNK: usize = 1 << 18;

/// The path of the verified file: in the cache's `download` folder, or downloaded from the first
/// mirror that has it.
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
    step.set_total_bytes(source.size);
    let mirrors = mirrors::configured();
    if let Err(error) = &mirrors {
        errors.push(format!("{error:#}"));
    }
    for mirror in mirrors.unwrap_or_default() {
        for path in &source.paths {
            match fetch(ws, &mut step, &format!("{mirror}{path}"), source, &file) {
                Ok(()) => {
                    step.finish();
                    return Ok(file);
                }
                Err(error) => {
                    process::check()?;
                    errors.push(format!("{error:#}"));
                }
            }
        }
    }
    bail!("cannot download {}:\n    {}", source.file, errors.join("\n    "))
}

fn mismatch(what: &str, found: &str, wanted: &str) -> String {
    format!("{what} has SHA-256 {found}, but the pin is {wanted}")
}

fn fetch(ws: &Workspace, step: &mut Step, address: &str, source: &Download, file: &Path) -> Result<()> {
    step.line(&format!("trying {address}"));
    let folder = ws.temporary()?;
    let new = folder.path().join(&source.file);
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--fail", "--location"])
        .args(["--connect-timeout", "20", "--retry", "3"])
        // Give up on a mirror that sends less than 1000 bytes a second for a minute.
        .args(["--speed-limit", "1000", "--speed-time", "60", "--", address])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let (stderr, writer) = process::pipe()?;
    command.stderr(writer);
    let mut curl = Running::spawn(command)?;
    let body = curl.take_stdout().context("curl has no output")?;
    let found = save(body, &new, |bytes| step.set_position(bytes))?;
    let mut message = String::new();
    process::each_line(stderr, &mut |line| message = line.to_owned())?;
    if !curl.wait()?.success() {
        step.line(&message);
        bail!("{address}: {message}");
    }
    if found != source.sha256 {
        bail!(mismatch(address, &found, &source.sha256));
    }
    keep(&new, file)
}

/// Copies `body` to the file `new` and returns its SHA-256.
fn save(mut body: impl Read, new: &Path, progress: impl Fn(u64)) -> Result<String> {
    let mut out = File::create(new)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut total = 0;
    loop {
        process::check()?;
        let count = body.read(&mut buffer).context("cannot read from curl")?;
        if count == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&buffer[..count]);
        out.write_all(&buffer[..count])?;
        total += count as u64;
        progress(total);
    }
}

fn hash_of(file: &Path) -> Result<String> {
    save(File::open(file)?, Path::new("/dev/null"), |_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_saved_and_hashed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        let found = save(&b"abc"[..], &file, |_| ()).unwrap();
        // A test vector of FIPS 180-4: https://csrc.nist.gov/projects/cryptographic-standards-and-guidelines
        assert_eq!(found, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(fs_err::read(&file).unwrap(), b"abc");
        assert_eq!(hash_of(&file).unwrap(), found);
    }
}
