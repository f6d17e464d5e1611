// SPDX-License-Identifier: GPL-2.0
//! Stamps: the hash of everything that a product was made from, written beside it when it is whole.
//! A product whose stamp matches is not made again.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// A hash under construction. Every part is framed with its name and length, so that different
/// parts never add up to the same bytes.
pub struct Recipe(Sha256);

impl Recipe {
    /// A recipe for a kind of product.
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

    /// Adds a file's content under its name.
    pub fn file(self, path: &Path) -> Result<Self> {
        let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(self.bytes(&name, &content))
    }

    /// Adds every file below `folder`, by relative name and content; hidden files are left out, as editors put
    /// theirs there.
    pub fn folder(self, folder: &Path) -> Result<Self> {
        self.files(folder, |_| true)
    }

    /// As [`Recipe::folder`], without what is in the folders `without` there.
    pub fn folder_without(self, folder: &Path, without: &[&str]) -> Result<Self> {
        self.files(folder, |file| !without.iter().any(|without| file.starts_with(folder.join(without))))
    }

    fn files(self, folder: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Self> {
        let mut files = Vec::new();
        list_files(folder, &mut files)?;
        files.retain(|file| wanted(file));
        files.sort();
        let mut recipe = self.text("files", &files.len().to_string());
        for file in &files {
            let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            let name = file.strip_prefix(folder).unwrap_or(file).to_string_lossy();
            recipe = recipe.bytes(&name, &content);
        }
        Ok(recipe)
    }

    /// The stamp: 64 hexadecimal digits.
    pub fn stamp(self) -> Stamp {
        Stamp(hex(&self.0.finalize()))
    }
}

fn list_files(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.path().is_dir() {
            list_files(&entry.path(), into)?;
        } else {
            into.push(entry.path());
        }
    }
    Ok(())
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a product was made from, as a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp(String);

impl Stamp {
    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Twelve digits, enough for a name in the cache.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }

    /// Whether `file` holds this stamp.
    pub fn is_in(&self, file: &Path) -> bool {
        fs::read_to_string(file).is_ok_and(|text| text.trim() == self.0)
    }

    /// Writes the stamp to `file`: the last act of making a product.
    pub fn write(&self, file: &Path) -> Result<()> {
        write_atomically(file, format!("{}\n", self.0).as_bytes())
    }
}

/// Takes a stamp away, before the product that it vouches for is changed.
pub fn withdraw(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

/// Writes `file` so that nobody ever sees half of it.
pub fn write_atomically(file: &Path, content: &[u8]) -> Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let write = || -> Result<()> {
        fs::create_dir_all(folder)?;
        let mut new = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
        std::io::Write::write_all(&mut new, content)?;
        // tempfile's 0600 is for secrets, and these are none.
        fs::set_permissions(new.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        new.persist(file)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp_of(parts: &[(&str, &str)]) -> Stamp {
        parts.iter().fold(Recipe::new("test"), |r, (n, v)| r.text(n, v)).stamp()
    }

    #[test]
    fn parts_are_framed() {
        assert_ne!(stamp_of(&[("ab", "c")]), stamp_of(&[("a", "bc")]));
        assert_ne!(stamp_of(&[("a", "b"), ("c", "")]), stamp_of(&[("a", "b")]));
        assert_eq!(stamp_of(&[("a", "b")]), stamp_of(&[("a", "b")]));
    }

    #[test]
    fn a_folder_is_its_names_and_contents() {
        let folder = tempfile::tempdir().unwrap();
        let stamp = || Recipe::new("t").folder_without(folder.path(), &["without"]).unwrap().stamp();
        let all = || Recipe::new("t").folder(folder.path()).unwrap().stamp();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("sub/a"), "1").unwrap();
        let first = stamp();
        fs::write(folder.path().join(".a.swp"), "x").unwrap();
        fs::create_dir(folder.path().join("without")).unwrap();
        let before = all();
        fs::write(folder.path().join("without/a"), "x").unwrap();
        assert_eq!(stamp(), first);
        assert_ne!(all(), before);
        fs::write(folder.path().join("sub/a"), "2").unwrap();
        assert_ne!(stamp(), first);
        fs::write(folder.path().join("sub/a"), "1").unwrap();
        fs::rename(folder.path().join("sub/a"), folder.path().join("sub/b")).unwrap();
        assert_ne!(stamp(), first);
    }

    #[test]
    fn a_stamp_vouches_until_it_is_withdrawn() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("stamp");
        let stamp = stamp_of(&[("a", "b")]);
        assert!(!stamp.is_in(&file));
        stamp.write(&file).unwrap();
        assert!(stamp.is_in(&file));
        assert!(!stamp_of(&[("a", "c")]).is_in(&file));
        withdraw(&file).unwrap();
        withdraw(&file).unwrap();
        assert!(!stamp.is_in(&file));
    }
}
