// SPDX-License-Identifier: GPL-2.0-only
//! Reads binary packages. <https://manpages.debian.org/trixie/dpkg-dev/deb.5.en.html>

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::process::Running;
use crate::workspace::file_name;

/// The names of the maintainer scripts.
const SCRIPTS: [&str; 4] = ["preinst", "postinst", "prerm", "postrm"];

/// The parts of a binary package that dpkg and other packages depend on.
#[derive(Clone, Debug, Default)]
pub(super) struct Package {
    /// The control fields.
    pub(super) fields: BTreeMap<String, String>,
    /// The maintainer scripts, by name.
    pub(super) scripts: BTreeMap<String, String>,
    /// The type, mode and owner of installed files, by path; the texts of other control files; the
    /// actions of the maintainer scripts.
    pub(super) contents: BTreeMap<String, String>,
}

impl Package {
    /// Reads a package; [`super::scripts`] adds the actions of the scripts.
    pub(super) fn read(deb: &Path) -> Result<Self> {
        let mut package = Self::default();
        package.add_control(&archive(deb, "--ctrl-tarfile")?)?;
        package.add_files(&archive(deb, "--fsys-tarfile")?)?;
        Ok(package)
    }

    /// The value of a field; empty if the package does not have it.
    pub(super) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    fn add_control(&mut self, archive: &[u8]) -> Result<()> {
        for entry in tar::Archive::new(archive).entries()? {
            let mut entry = entry?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = file_name(&entry.path()?);
            let mut text = String::new();
            entry.read_to_string(&mut text).with_context(|| format!("{name} is not a text file"))?;
            match name.as_str() {
                "control" => self.fields = fields(&text),
                // The checksums depend on the contents of files, which are expected to differ.
                "md5sums" => {}
                script if SCRIPTS.contains(&script) => drop(self.scripts.insert(name, text)),
                _ => drop(self.contents.insert(format!("the control file {name}"), text)),
            }
        }
        ensure!(!self.fields.is_empty(), "the package has no control file");
        Ok(())
    }

    fn add_files(&mut self, archive: &[u8]) -> Result<()> {
        for entry in tar::Archive::new(archive).entries()? {
            let entry = entry?;
            let header = entry.header();
            let path: PathBuf = Path::new("/").join(entry.path()?).components().collect();
            let mut text = format!(
                "{:?} {:04o} {}({})/{}({})",
                header.entry_type(),
                header.mode()? & 0o7777,
                header.username()?.unwrap_or_default(),
                header.uid()?,
                header.groupname()?.unwrap_or_default(),
                header.gid()?
            );
            if let Some(target) = entry.link_name()? {
                text.push_str(&format!(" -> {}", target.display()));
            }
            self.contents.insert(path.display().to_string(), text);
        }
        Ok(())
    }
}

/// One of the tar archives in a package.
fn archive(deb: &Path, which: &str) -> Result<Vec<u8>> {
    let mut command = Command::new("dpkg-deb");
    command.arg(which).arg(deb).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = Running::spawn(command)?;
    let mut archive = Vec::new();
    let mut output = running.take_stdout().context("dpkg-deb has no output")?;
    output.read_to_end(&mut archive).context("cannot read from dpkg-deb")?;
    let status = running.wait()?;
    ensure!(status.success(), "dpkg-deb failed ({status})");
    Ok(archive)
}

/// The fields of a control file. A space at the start of a line continues the value of the line
/// before.
/// <https://www.debian.org/doc/debian-policy/ch-controlfields.html#syntax-of-control-files>
pub(super) fn fields(control: &str) -> BTreeMap<String, String> {
    let joined = control.replace("\n ", "\0");
    let fields = joined.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.trim().replace('\0', "\n"))).collect()
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

        let mut control = Package::default();
        control.add_control(&archive).unwrap();
        assert_eq!(control.fields, fields("Name: x\n"));
        assert_eq!(control.scripts.into_iter().collect::<Vec<_>>(), [("postinst".into(), "#!/bin/sh\n".into())]);
        let texts: Vec<_> = control.contents.into_iter().collect();
        assert_eq!(texts, [("the control file a".into(), "text\n".into())]);

        let mut files = Package::default();
        files.add_files(&archive).unwrap();
        let found: Vec<_> = files.contents.iter().map(|(path, text)| format!("{path} {text}")).collect();
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
        assert_eq!(fields["Description"], "administration tools\nLong and\n.\nwide.");
        assert_eq!(fields["Version"], "1.8.11-2");
        assert_eq!(fields.len(), 9);
    }
}
