// SPDX-License-Identifier: GPL-2.0
//! Pinned downloads: verified before they get their name in the cache, so a file that has it is right.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::{
    mirrors,
    pins::Source,
    process::{self, Running},
    stamp::hex,
    ui::Step,
    workshop::Workshop,
};

const CHUNK: usize = 1 << 18;

/// The verified file of `source`: from the cache's `download` folder, or else from the first
/// mirror that has it.
pub fn pinned(ws: &Workshop, source: &Source) -> Result<PathBuf> {
    let file = ws.cache().join("download").join(&source.file);
    let mut troubles = Vec::new();
    if file.exists() {
        let found = hash_of(&file)?;
        if found == source.sha256 {
            return Ok(file);
        }
        // It stays where it is until a better one has come: the pin may be what is wrong.
        let trouble = mismatch(&file.display().to_string(), &found, &source.sha256);
        eprintln!("{trouble}: downloading it again");
        troubles.push(trouble);
    }
    let mut step = ws.step("fetch", format!("downloading {}", source.file))?;
    step.set_total_bytes(source.size);
    let mirrors = mirrors::configured();
    if let Err(error) = &mirrors {
        troubles.push(format!("{error:#}"));
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
                    troubles.push(format!("{error:#}"));
                }
            }
        }
    }
    bail!("cannot get {}:\n    {}", source.file, troubles.join("\n    "))
}

fn mismatch(what: &str, found: &str, wanted: &str) -> String {
    format!("{what} has SHA-256 {found}, but pins.toml says {wanted}")
}

fn fetch(ws: &Workshop, step: &mut Step, address: &str, source: &Source, file: &Path) -> Result<()> {
    step.line(&format!("trying {address}"));
    let folder = ws.temporary()?;
    let new = folder.path().join(&source.file);
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--fail", "--location"])
        .args(["--connect-timeout", "20", "--retry", "3"])
        // A mirror that has fallen silent must not hold us for ever.
        .args(["--speed-limit", "1000", "--speed-time", "60", "--", address])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let (errors, writer) = process::pipe()?;
    command.stderr(writer);
    let mut curl = Running::spawn(command)?;
    let body = curl.take_stdout().context("curl has no output")?;
    let found = save(body, &new, |bytes| step.set_position(bytes))?;
    let mut complaint = String::new();
    process::each_line(errors, &mut |line| complaint = line.to_owned())?;
    if !curl.wait()?.success() {
        step.line(&complaint);
        bail!("{address}: {complaint}");
    }
    if found != source.sha256 {
        bail!(mismatch(address, &found, &source.sha256));
    }
    fs::create_dir_all(file.parent().unwrap_or(Path::new("/")))
        .and_then(|()| fs::rename(&new, file))
        .with_context(|| format!("cannot keep {}", file.display()))
}

/// Copies `body` to the file `new`, and gives its SHA-256.
fn save(mut body: impl Read, new: &Path, progress: impl Fn(u64)) -> Result<String> {
    let mut out = File::create(new).with_context(|| format!("cannot make {}", new.display()))?;
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
        out.write_all(&buffer[..count]).with_context(|| format!("cannot write {}", new.display()))?;
        total += count as u64;
        progress(total);
    }
}

fn hash_of(file: &Path) -> Result<String> {
    let open = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    save(open, Path::new("/dev/null"), |_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_what_is_hashed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        let found = save(&b"abc"[..], &file, |_| ()).unwrap();
        // The test vector of FIPS 180-2.
        assert_eq!(found, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(fs::read(&file).unwrap(), b"abc");
        assert_eq!(hash_of(&file).unwrap(), found);
    }
}
