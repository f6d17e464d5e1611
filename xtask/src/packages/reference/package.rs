// SPDX-License-Identifier: GPL-2.0-only
//! Reads a package file: its control archive, and the list of what it installs.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::process::Running;

/// A package, as far as dpkg and other packages see it.
#[derive(Clone, Debug, Default)]
pub(super) struct Package {
    /// The control fields.
    pub(super) fields: BTreeMap<String, String>,
    /// What it installs, by path.
    pub(super) files: BTreeMap<String, Entry>,
    /// The control members, scripts included, by name.
    pub(super) members: BTreeMap<String, String>,
    /// What its scripts do, by occasion; nothing for an occasion that it has no script for.
    pub(super) deeds: BTreeMap<String, String>,
}

impl Package {
    /// Everything but what the scripts do.
    pub(super) fn read(deb: &Path) -> Result<Self> {
        let members = archive(deb, "--ctrl-tarfile", members)?;
        let files = archive(deb, "--fsys-tarfile", files)?;
        let fields = fields(members.get("control").context("it has no control file")?);
        Ok(Self { fields, files, members, deeds: BTreeMap::new() })
    }

    /// The value of a field, empty if there is none.
    pub(super) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// A file, folder or link of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// `-`, `d`, `l` or `h` as `ls` and `tar` show them, or `?`.
    pub(super) kind: char,
    pub(super) mode: u32,
    /// Names and numbers of user and group.
    pub(super) owner: String,
    /// Where a link leads.
    pub(super) target: Option<String>,
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:04o} {}", self.kind, self.mode, self.owner)?;
        self.target.iter().try_for_each(|target| write!(f, " -> {target}"))
    }
}

/// Hands one of the archives in a package to `take`.
fn archive<T>(deb: &Path, which: &str, take: impl FnOnce(&mut dyn Read) -> Result<T>) -> Result<T> {
    let mut command = Command::new("dpkg-deb");
    command.arg(which).arg(deb).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = Running::spawn(command)?;
    let mut stream = running.take_stdout().context("dpkg-deb has no output")?;
    let taken = take(&mut stream)?;
    // The archive's end comes before the stream's.
    io::copy(&mut stream, &mut io::sink()).context("cannot read from dpkg-deb")?;
    let status = running.wait()?;
    ensure!(status.success(), "dpkg-deb failed ({status})");
    Ok(taken)
}

/// The texts in a package's control archive, by name.
fn members(stream: &mut dyn Read) -> Result<BTreeMap<String, String>> {
    let mut members = BTreeMap::new();
    for entry in tar::Archive::new(stream).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let name = absolute(&entry.path_bytes()).trim_start_matches('/').to_owned();
            let mut text = String::new();
            entry.read_to_string(&mut text).with_context(|| format!("{name} is no text"))?;
            members.insert(name, text);
        }
    }
    Ok(members)
}

/// What a package installs.
fn files(stream: &mut dyn Read) -> Result<BTreeMap<String, Entry>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(stream).entries()? {
        let entry = entry?;
        let header = entry.header();
        let name = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let kind = match header.entry_type() {
            tar::EntryType::Regular => '-',
            tar::EntryType::Directory => 'd',
            tar::EntryType::Symlink => 'l',
            tar::EntryType::Link => 'h',
            _ => '?',
        };
        let (user, group) = (name(header.username_bytes()), name(header.groupname_bytes()));
        let owner = format!("{user}({})/{group}({})", header.uid()?, header.gid()?);
        let target = entry.link_name_bytes().map(|target| name(Some(&target)));
        let mode = header.mode()? & 0o7777;
        files.insert(absolute(&entry.path_bytes()), Entry { kind, mode, owner, target });
    }
    Ok(files)
}

/// A path of an archive, `./usr/bin/` and the like, as it is on the system that the package is installed on.
fn absolute(path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path);
    format!("/{}", path.trim_start_matches("./").trim_end_matches('/'))
}

/// The fields of a control file; lines of one value are joined by line ends.
pub(super) fn fields(control: &str) -> BTreeMap<String, String> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in control.lines() {
        match (line.strip_prefix(' '), line.split_once(':'), fields.last_mut()) {
            (Some(more), _, Some((_, value))) => {
                value.push('\n');
                value.push_str(more);
            }
            (None, Some((name, value)), _) => fields.push((name.to_owned(), value.trim().to_owned())),
            _ => {}
        }
    }
    fields.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::{super::samples::CONTROL, *};

    #[test]
    fn archives_are_read_as_dpkg_makes_them() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |path: &str, kind, mode, target: Option<&str>, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_uid(0);
            header.set_gid(50);
            header.set_username("root").unwrap();
            header.set_groupname("staff").unwrap();
            header.set_size(content.len() as u64);
            match target {
                Some(target) => builder.append_link(&mut header, path, target).unwrap(),
                None => builder.append_data(&mut header, path, content).unwrap(),
            }
        };
        add("./usr/", tar::EntryType::Directory, 0o2755, None, b"");
        add("./usr/a", tar::EntryType::Regular, 0o644, None, b"Name: x\n");
        add("./usr/b", tar::EntryType::Symlink, 0o777, Some("../a"), b"");
        let archive = builder.into_inner().unwrap();

        let found = files(&mut &archive[..]).unwrap();
        let shown: Vec<_> = found.iter().map(|(path, entry)| format!("{path} {entry}")).collect();
        let owner = "root(0)/staff(50)";
        let expected =
            [format!("/usr d2755 {owner}"), format!("/usr/a -0644 {owner}"), format!("/usr/b l0777 {owner} -> ../a")];
        assert_eq!(shown, expected);
        let members = members(&mut &archive[..]).unwrap();
        assert_eq!(members.into_iter().collect::<Vec<_>>(), [("usr/a".to_owned(), "Name: x\n".to_owned())]);
    }

    #[test]
    fn fields_keep_their_lines() {
        let fields = fields(CONTROL);
        assert_eq!(fields["Description"], "administration tools\nLong and\n.\nwide.");
        assert_eq!(fields["Version"], "1.8.11-2");
        assert_eq!(fields.len(), 9);
    }
}
