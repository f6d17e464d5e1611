// SPDX-License-Identifier: GPL-2.0-only
//! Reads binary packages. <https://manpages.debian.org/trixie/dpkg-dev/deb.5.en.html>

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::workspace::file_name;

/// The properties of a binary package that dpkg and other packages depend on: the control fields
/// (`the field NAME`), the texts of other control files (`the control file NAME`), and the type,
/// mode and owner of installed files (`/PATH`).
pub(super) type Package = BTreeMap<String, String>;

/// Reads a package.
pub(super) fn read(deb: &Path) -> Result<Package> {
    let archive = |which| {
        let mut command = Command::new("dpkg-deb");
        let output = command.arg(which).arg(deb).stderr(Stdio::inherit()).output().context("cannot start dpkg-deb")?;
        ensure!(output.status.success(), "dpkg-deb failed ({})", output.status);
        Ok(output.stdout)
    };
    let mut package = control(&archive("--ctrl-tarfile")?)?;
    package.extend(files(&archive("--fsys-tarfile")?)?);
    Ok(package)
}

/// The name of a package.
pub(super) fn name(package: &Package) -> &str {
    package.get("the field Package").map_or("", String::as_str)
}

/// The properties in the archive of control files.
fn control(archive: &[u8]) -> Result<Package> {
    let mut package = Package::new();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = file_name(&entry.path()?);
        let mut text = String::new();
        entry.read_to_string(&mut text).with_context(|| format!("{name} is not a text file"))?;
        match name.as_str() {
            "control" => package.extend(fields(&text)),
            // The checksums depend on the contents of files, which are expected to differ.
            "md5sums" => {}
            _ => drop(package.insert(format!("the control file {name}"), text)),
        }
    }
    ensure!(package.keys().any(|key| key.starts_with("the field ")), "the package has no control file");
    Ok(package)
}

/// The properties in the archive of installed files.
fn files(archive: &[u8]) -> Result<Package> {
    let mut package = Package::new();
    for entry in tar::Archive::new(archive).entries()? {
        let entry = entry?;
        let header = entry.header();
        let path: PathBuf = Path::new("/").join(entry.path()?).components().collect();
        let target = entry.link_name()?.map(|target| format!(" -> {}", target.display())).unwrap_or_default();
        let text = format!(
            "{:?} {:04o} {}({})/{}({}){target}",
            header.entry_type(),
            header.mode()? & 0o7777,
            header.username()?.unwrap_or_default(),
            header.uid()?,
            header.groupname()?.unwrap_or_default(),
            header.gid()?
        );
        package.insert(path.display().to_string(), text);
    }
    Ok(package)
}

/// The fields of a control file. A space at the start of a line continues the value of the line
/// before.
/// <https://www.debian.org/doc/debian-policy/ch-controlfields.html#syntax-of-control-files>
pub(super) fn fields(control: &str) -> Package {
    let joined = control.replace("\n ", "\0");
    let fields = joined.lines().filter_map(|line| line.split_once(':'));
    let field = |(name, value): (&str, &str)| (format!("the field {name}"), value.trim().replace('\0', "\n"));
    fields.map(field).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::CONTROL, *};

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
        add("./", tar::EntryType::Directory, 0o2755, None, b"");
        add("./control", tar::EntryType::Regular, 0o644, None, b"Name: x\n");
        add("./postinst", tar::EntryType::Regular, 0o755, None, b"#!/bin/sh\n");
        add("./md5sums", tar::EntryType::Regular, 0o644, None, b"0123  usr/a\n");
        add("./usr/", tar::EntryType::Directory, 0o2755, None, b"");
        add("./usr/a", tar::EntryType::Regular, 0o644, None, b"text\n");
        add("./usr/b", tar::EntryType::Symlink, 0o777, Some("../a"), b"");
        let archive = builder.into_inner().unwrap();

        let expected =
            [("the control file a", "text\n"), ("the control file postinst", "#!/bin/sh\n"), ("the field Name", "x")];
        let expected = expected.map(|(key, text)| (key.to_owned(), text.to_owned()));
        assert_eq!(control(&archive).unwrap().into_iter().collect::<Vec<_>>(), expected);

        let found: Vec<_> = files(&archive).unwrap().iter().map(|(path, text)| format!("{path} {text}")).collect();
        let expected = [
            "/ Directory 2755",
            "/control Regular 0644",
            "/md5sums Regular 0644",
            "/postinst Regular 0755",
            "/usr Directory 2755",
            "/usr/a Regular 0644",
            "/usr/b Symlink 0777",
        ];
        let mut expected = expected.map(|file| format!("{file} root(0)/staff(50)"));
        expected[6].push_str(" -> ../a");
        assert_eq!(found, expected);
    }

    #[test]
    fn multi_line_fields_keep_their_lines() {
        let fields = fields(CONTROL);
        assert_eq!(fields["the field Description"], "administration tools\nLong and\n.\nwide.");
        assert_eq!(fields["the field Version"], "1.8.11-2");
        assert_eq!(fields.len(), 9);
    }
}
