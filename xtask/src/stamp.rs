// SPDX-License-Identifier: GPL-2.0-only
//! Stamps: the hash of all inputs of a product. It is written next to the product when the product
//! is complete. A product whose stamp matches is not made again.

use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fs_err as fs;
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use crate::workspace::{file_name, is_hidden};

/// A hash of inputs. Every input is framed with its name and length, so that different inputs
/// never give the same bytes.
pub struct Recipe(Sha256);

impl Recipe {
    /// An empty recipe for a kind of product.
    pub fn new(kind: &str) -> Self {
        Self(Sha256::new()).text("kind", kind)
    }

    fn bytes(mut self, name: &str, value: &[u8]) -> Self {
        for part in [name.as_bytes(), value] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// Adds a text.
    pub fn text(self, name: &str, value: &str) -> Self {
        self.bytes(name, value.as_bytes())
    }

    /// Adds a list of texts; its order counts.
    pub fn list<S: AsRef<str>>(self, name: &str, values: &[S]) -> Self {
        let count = self.text(name, &values.len().to_string());
        values.iter().fold(count, |recipe, value| recipe.text(name, value.as_ref()))
    }

    /// Adds a file's name and content.
    pub fn file(self, path: &Path) -> Result<Self> {
        Ok(self.bytes(&file_name(path), &fs::read(path)?))
    }

    /// Adds the relative path and the content of every file below `folder`. Hidden files are left
    /// out: editors keep their state in them.
    pub fn folder(self, folder: &Path) -> Result<Self> {
        self.folder_without(folder, &[])
    }

    /// Like [`Recipe::folder`], without the subfolders `excluded`.
    pub fn folder_without(self, folder: &Path, excluded: &[&str]) -> Result<Self> {
        let is_excluded = |path: &Path| excluded.iter().any(|name| path == folder.join(name));
        let walk = WalkDir::new(folder).min_depth(1).sort_by_file_name().into_iter();
        let mut files = walk
            .filter_entry(|entry| !is_hidden(entry.path()) && !is_excluded(entry.path()))
            .collect::<Result<Vec<_>, _>>()?;
        files.retain(|file| !file.file_type().is_dir());
        let recipe = self.text("files", &files.len().to_string());
        files.iter().try_fold(recipe, |recipe, file| {
            let name = file.path().strip_prefix(folder)?.to_string_lossy();
            Ok(recipe.bytes(&name, &fs::read(file.path())?))
        })
    }

    /// The stamp: 64 hexadecimal digits.
    pub fn stamp(self) -> Stamp {
        Stamp(hex(&self.0.finalize()))
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of a product's inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp(String);

impl Stamp {
    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Twelve digits, for names in the cache.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }

    /// Whether `file` contains this stamp.
    pub fn is_in(&self, file: &Path) -> bool {
        fs::read_to_string(file).is_ok_and(|text| text.trim() == self.0)
    }

    /// Calls `make`, which makes `product`, unless the product exists and `file` contains this
    /// stamp. The stamp is removed before and written afterwards, so an interrupted run is
    /// repeated.
    pub fn make(&self, file: &Path, product: &Path, make: impl FnOnce() -> Result<()>) -> Result<()> {
        if self.is_in(file) && product.exists() {
            return Ok(());
        }
        remove_if_exists(file)?;
        make()?;
        self.write(file)
    }

    /// Writes the stamp to `file`.
    pub fn write(&self, file: &Path) -> Result<()> {
        write_atomically(file, format!("{}\n", self.0).as_bytes())
    }
}

/// A built file.
pub struct Product {
    /// The file.
    pub file: PathBuf,
    /// The hash of its inputs.
    pub stamp: Stamp,
}

/// Removes a file, such as the stamp of a product that is about to change.
pub fn remove_if_exists(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes `content` to `file`, which appears when it is complete.
pub fn write_atomically(file: &Path, content: &[u8]) -> Result<()> {
    write_atomically_with(file, |out| Ok(out.write_all(content)?))
}

/// Like [`write_atomically`]; `write` writes the content.
pub fn write_atomically_with(file: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let replace = || -> Result<()> {
        fs::create_dir_all(folder)?;
        let mut new = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
        let mut out = BufWriter::new(new.as_file_mut());
        write(&mut out)?;
        out.flush()?;
        drop(out);
        // tempfile makes files that only their owner can read.
        fs::set_permissions(new.path(), PermissionsExt::from_mode(0o644))?;
        new.persist(file)?;
        Ok(())
    };
    replace().with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp_of(parts: &[(&str, &str)]) -> Stamp {
        parts.iter().fold(Recipe::new("test"), |recipe, (name, value)| recipe.text(name, value)).stamp()
    }

    #[test]
    fn inputs_are_framed() {
        assert_ne!(stamp_of(&[("ab", "c")]), stamp_of(&[("a", "bc")]));
        assert_ne!(stamp_of(&[("a", "b"), ("c", "")]), stamp_of(&[("a", "b")]));
        assert_eq!(stamp_of(&[("a", "b")]), stamp_of(&[("a", "b")]));
    }

    #[test]
    fn the_stamp_of_a_folder_depends_on_names_and_contents() {
        let folder = tempfile::tempdir().unwrap();
        let stamp = || Recipe::new("t").folder_without(folder.path(), &["excluded"]).unwrap().stamp();
        let stamp_of_all = || Recipe::new("t").folder(folder.path()).unwrap().stamp();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("sub/a"), "1").unwrap();
        let (first, first_of_all) = (stamp(), stamp_of_all());
        fs::write(folder.path().join(".a.swp"), "x").unwrap();
        assert_eq!(stamp_of_all(), first_of_all);
        fs::create_dir(folder.path().join("excluded")).unwrap();
        fs::write(folder.path().join("excluded/b"), "x").unwrap();
        assert_eq!(stamp(), first);
        assert_ne!(stamp_of_all(), first_of_all);
        fs::write(folder.path().join("sub/a"), "2").unwrap();
        assert_ne!(stamp(), first);
        fs::write(folder.path().join("sub/a"), "1").unwrap();
        fs::rename(folder.path().join("sub/a"), folder.path().join("sub/b")).unwrap();
        assert_ne!(stamp(), first);
    }

    #[test]
    fn a_stamp_is_valid_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("stamp");
        let stamp = stamp_of(&[("a", "b")]);
        assert!(!stamp.is_in(&file));
        stamp.write(&file).unwrap();
        assert!(stamp.is_in(&file));
        assert!(!stamp_of(&[("a", "c")]).is_in(&file));
        remove_if_exists(&file).unwrap();
        remove_if_exists(&file).unwrap();
        assert!(!stamp.is_in(&file));
    }
}
