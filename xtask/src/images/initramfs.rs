// SPDX-License-Identifier: GPL-2.0-only
//! Archives for the kernel's initramfs, in cpio's format "newc". All files belong to root and have
//! the time 0, so the same content always gives the same bytes.
//! <https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use cpio::newc;
use fs_err as fs;
use walkdir::WalkDir;

use crate::stamp::write_atomically_with;

const TYPE_FOLDER: u32 = 0o040_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_LINK: u32 = 0o120_000;

/// The files, folders and links of an archive, by path.
#[derive(Debug, Default)]
pub struct Archive(BTreeMap<PathBuf, Node>);

#[derive(Debug)]
enum Node {
    Folder,
    File { mode: u32, content: Vec<u8> },
    Link(PathBuf),
}

impl Archive {
    /// Adds a folder and its parents.
    pub fn folder(&mut self, path: impl AsRef<Path>) {
        for folder in path.as_ref().ancestors() {
            if !folder.as_os_str().is_empty() {
                self.0.entry(folder.to_owned()).or_insert(Node::Folder);
            }
        }
    }

    /// Adds a file with the permissions `mode`, and its parent folders.
    pub fn file(&mut self, path: impl AsRef<Path>, mode: u32, content: Vec<u8>) {
        self.add(path.as_ref(), Node::File { mode, content });
    }

    /// Adds a symbolic link and its parent folders.
    pub fn link(&mut self, path: impl AsRef<Path>, target: impl AsRef<Path>) {
        self.add(path.as_ref(), Node::Link(target.as_ref().to_owned()));
    }

    fn add(&mut self, path: &Path, node: Node) {
        if let Some(parent) = path.parent() {
            self.folder(parent);
        }
        self.0.insert(path.to_owned(), node);
    }

    /// Whether the archive has an entry at `path`.
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        self.0.contains_key(path.as_ref())
    }

    /// Adds the content of the folder `from` of the host at `to`, without the paths in the archive
    /// for which `skip` is true. Devices, pipes and sockets are left out.
    pub fn copy(&mut self, from: &Path, to: &Path, skip: &dyn Fn(&Path) -> bool) -> Result<()> {
        let target = |path: &Path| to.join(path.strip_prefix(from).unwrap_or(path));
        let walk = WalkDir::new(from).min_depth(1).into_iter();
        for entry in walk.filter_entry(|entry| !skip(&target(entry.path()))) {
            let entry = entry?;
            let (path, kind) = (target(entry.path()), entry.file_type());
            if kind.is_symlink() {
                self.link(path, fs::read_link(entry.path())?);
            } else if kind.is_file() {
                let mode = entry.metadata()?.permissions().mode() & 0o7777;
                self.file(path, mode, fs::read(entry.path())?);
            } else if kind.is_dir() {
                self.folder(path);
            }
        }
        Ok(())
    }

    /// Writes the archive to `file`, which appears when it is complete.
    pub fn write(&self, file: &Path) -> Result<()> {
        write_atomically_with(file, |out| self.write_to(out))
    }

    fn write_to(&self, mut out: &mut dyn Write) -> Result<()> {
        // The kernel needs a folder before its content. The map is sorted that way.
        for (inode, (path, node)) in (1..).zip(&self.0) {
            let (mode, content) = match node {
                Node::Folder => (TYPE_FOLDER | 0o755, &[][..]),
                Node::File { mode, content } => (TYPE_FILE | mode, &content[..]),
                Node::Link(target) => (TYPE_LINK | 0o777, target.as_os_str().as_bytes()),
            };
            let Some(name) = path.to_str() else {
                bail!("{} is not UTF-8", path.display());
            };
            ensure!(path.is_relative(), "{name} is not relative");
            let size = u32::try_from(content.len()).with_context(|| format!("{name} is too big"))?;
            let entry = newc::Builder::new(name).ino(inode).mode(mode).nlink(1);
            let mut writer = entry.write(out, size);
            writer.write_all(content)?;
            out = writer.finish()?;
        }
        newc::trailer(out)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(archive: &Archive) -> Vec<u8> {
        let mut bytes = Vec::new();
        archive.write_to(&mut bytes).unwrap();
        bytes
    }

    /// The names, modes and contents of an archive, read back.
    fn read(mut bytes: &[u8]) -> Vec<String> {
        let mut entries = Vec::new();
        loop {
            let mut reader = newc::Reader::new(bytes).unwrap();
            let mut content = String::new();
            std::io::Read::read_to_string(&mut reader, &mut content).unwrap();
            let entry = reader.entry();
            assert_eq!((entry.uid(), entry.gid(), entry.mtime()), (0, 0, 0));
            if entry.is_trailer() {
                return entries;
            }
            entries.push(format!("{} {:o} {content}", entry.name(), entry.mode()));
            bytes = reader.finish().unwrap();
        }
    }

    #[test]
    fn folders_come_before_their_content() {
        let mut archive = Archive::default();
        archive.file("usr/bin/tool", 0o755, b"12345".to_vec());
        archive.link("bin", "usr/bin");
        archive.file("usr-other", 0o600, Vec::new());
        let bytes = bytes(&archive);
        assert_eq!(bytes.len() % 4, 0);
        let expected =
            ["bin 120777 usr/bin", "usr 40755 ", "usr/bin 40755 ", "usr/bin/tool 100755 12345", "usr-other 100600 "];
        assert_eq!(read(&bytes), expected);
    }

    #[test]
    fn a_copied_tree_is_filtered_and_does_not_depend_on_the_host() {
        let host = tempfile::tempdir().unwrap();
        fs::create_dir_all(host.path().join("usr/share/doc")).unwrap();
        fs::write(host.path().join("usr/share/doc/x"), "x").unwrap();
        fs::write(host.path().join("usr/y"), "y").unwrap();
        let mut archive = Archive::default();
        let skip = |path: &Path| path == Path::new("usr/share/doc");
        archive.copy(host.path(), Path::new(""), &skip).unwrap();
        assert!(archive.has("usr/y") && archive.has("usr/share") && !archive.has("usr/share/doc"));
        let first = bytes(&archive);
        fs::write(host.path().join("usr/y"), "y").unwrap();
        let mut again = Archive::default();
        again.copy(host.path(), Path::new(""), &skip).unwrap();
        assert_eq!(bytes(&again), first);
    }
}
