// SPDX-License-Identifier: GPL-2.0-only
//! The archive's package lists. `apt-get update` downloads them to a folder of the cache, with a
//! configuration of its own: it verifies the signature of each `InRelease` with Debian's keys, and
//! the hash of each list. <https://wiki.debian.org/SecureApt>

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use fs_err::{self as fs, File};
use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{Timestamp, ToSpan};

use super::version;
use crate::process;
use crate::sources::mirrors::{self, KEYRING, NoSuite, Patience};
use crate::sources::pins::{Download, SNAPSHOT};
use crate::stamp::write_atomically;
use crate::workspace::{Workspace, file_name, list};

/// The suites of a Debian release that a version can be in.
const SUITES: [&str; 4] = ["", "-updates", "-security", "-backports"];
/// How the names of the lists end, in place of `InRelease`.
const PACKAGES: &str = "main_binary-amd64_Packages";

/// The lists in the cache.
pub struct Lists {
    folder: PathBuf,
}

/// A package in a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What a pin of it contains.
    pub download: Download,
    /// Whether the security archive has this version.
    pub is_security: bool,
}

impl Lists {
    /// The lists in the cache, whatever their age.
    pub fn open(ws: &Workspace) -> Self {
        Self { folder: ws.cache().join("lists") }
    }

    /// Whether the lists have been downloaded within a time. A failed try counts with `tried`.
    pub fn are_younger_than(&self, age: Duration, tried: bool) -> bool {
        let file = self.folder.join(if tried { "tried" } else { "updated" });
        let changed = fs::metadata(file).and_then(|data| data.modified());
        changed.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|passed| passed < age))
    }

    /// Downloads what has changed.
    pub fn update(&self, ws: &Workspace, patience: Patience) -> Result<()> {
        fs::create_dir_all(&self.folder)?;
        write_atomically(&self.folder.join("tried"), b"")?;
        let suite = &ws.pins().suite;
        let mut sources = Vec::new();
        for suffix in SUITES {
            let name = format!("{suite}{suffix}");
            match mirrors::serving(&name, patience) {
                Ok(mirror) => sources.push((mirror, name)),
                // A new release has no backports yet, and a local mirror may have one suite only.
                Err(error) if error.is::<NoSuite>() && !suffix.is_empty() => eprintln!("warning: {error:#}"),
                // Without its list, an update in the security archive would not be noticed.
                Err(error) => return Err(error),
            }
            process::check()?;
        }
        let mut output = Vec::new();
        let status = process::run_lines(self.updater(&sources, Path::new(KEYRING), patience)?, |line| {
            output.push(line.to_owned());
        })?;
        output.retain(|line| line.starts_with("E:") || line.starts_with("Err:") || line.starts_with("W:"));
        ensure!(status.success(), "cannot update the package lists:\n    {}", output.join("\n    "));
        write_atomically(&self.folder.join("updated"), b"")
    }

    /// The command that downloads the lists of these mirrors and suites.
    fn updater(&self, sources: &[(String, String)], keyring: &Path, patience: Patience) -> Result<Command> {
        for folder in ["lists/partial", "cache"] {
            fs::create_dir_all(self.folder.join(folder))?;
        }
        let write = |name: &str, text: &str| write_atomically(&self.folder.join(name), text.as_bytes());
        let line = |(mirror, suite): &(String, String)| {
            format!("deb [signed-by={}] {mirror} {suite} main\n", keyring.display())
        };
        write("sources.list", &sources.iter().map(line).collect::<String>())?;
        write("status", "")?;
        write("apt.conf", &configuration(&self.folder, patience))?;
        let mut update = Command::new("apt-get");
        update.arg("update").env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C.UTF-8");
        Ok(update)
    }

    /// All versions of a package, oldest first, each once.
    pub fn versions(&self, package: &str) -> Result<Vec<Listed>> {
        let folder = self.folder.join("lists");
        let mut found = Vec::new();
        for release in list(&folder).unwrap_or_default() {
            let name = file_name(&release);
            let Some(prefix) = name.strip_suffix("InRelease") else { continue };
            let packages = folder.join(format!("{prefix}{PACKAGES}"));
            if packages.exists() {
                let release = Release::parse(&fs::read_to_string(&release)?)?;
                let reader = BufReader::new(File::open(&packages)?);
                found.extend(read_list(reader, package, &release).with_context(|| packages.display().to_string())?);
            }
        }
        Ok(merged(found))
    }
}

/// The configuration of apt: its usual files are not read, except for the proxies in them.
fn configuration(folder: &Path, Patience { seconds, retries }: Patience) -> String {
    let folder = folder.display();
    let mut lines = vec![
        format!("Dir::State \"{folder}\";"),
        format!("Dir::State::lists \"{folder}/lists\";"),
        format!("Dir::State::status \"{folder}/status\";"),
        format!("Dir::Cache \"{folder}/cache\";"),
        format!("Dir::Etc::sourcelist \"{folder}/sources.list\";"),
        format!("Acquire::Retries \"{retries}\";"),
        format!("Acquire::http::Timeout \"{seconds}\";"),
        format!("Acquire::https::Timeout \"{seconds}\";"),
    ];
    let constant = [
        "Dir::Etc::sourceparts \"/dev/null\";",
        "Dir::Etc::main \"/dev/null\";",
        "Dir::Etc::parts \"/dev/null\";",
        "Dir::Etc::preferencesparts \"/dev/null\";",
        "APT::Architecture \"amd64\";",
        "APT::Architectures { \"amd64\"; };",
        // The user `_apt` cannot write to the cache of another user.
        "APT::Sandbox::User \"\";",
        // A suite that cannot be downloaded is an error.
        "APT::Update::Error-Mode \"any\";",
        // The suite is called `oldstable` one day.
        "Acquire::AllowReleaseInfoChange \"true\";",
        "Acquire::Languages \"none\";",
        "Acquire::PDiffs \"false\";",
        "pkgCacheFile::Generate \"false\";",
    ];
    lines.extend(constant.map(String::from));
    lines.extend(mirrors::proxy_options());
    lines.join("\n") + "\n"
}

/// What an `InRelease` says of all its packages.
struct Release {
    is_security: bool,
    /// A time at which the archive that keeps every version has the packages.
    snapshot: String,
}

impl Release {
    fn parse(text: &str) -> Result<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let date = field("Date:").context("an InRelease has no Date")?;
        // RFC 2822 has no "UTC".
        let date = date.strip_suffix("UTC").map_or(date.to_owned(), |date| format!("{date}+0000"));
        let date = DateTimeParser::new().relaxed_weekday(true).parse_timestamp(&date)?;
        Ok(Self { is_security: field("Label:") == Some("Debian-Security"), snapshot: snapshot(date)? })
    }
}

/// The archive copies the mirrors some hours later. No file leaves them within a day.
fn snapshot(release: Timestamp) -> Result<String> {
    Ok(release.checked_add(24.hours())?.strftime(SNAPSHOT).to_string())
}

/// The entries of a package in a list: <https://wiki.debian.org/DebianRepository/Format>.
fn read_list(mut reader: impl BufRead, package: &str, release: &Release) -> Result<Vec<Listed>> {
    let (mut found, mut entry) = (Vec::new(), String::new());
    let wanted = format!("Package: {package}\n");
    let mut inside = false;
    let mut line = Vec::new();
    loop {
        line.clear();
        let end = reader.read_until(b'\n', &mut line)? == 0;
        if end || line == b"\n" {
            if inside {
                found.push(parse_entry(&entry, release).with_context(|| format!("the entry of {package} is invalid"))?);
            }
            entry.clear();
            inside = false;
        } else if line == wanted.as_bytes() {
            inside = true;
        } else if inside {
            entry.push_str(&String::from_utf8_lossy(&line));
        }
        if end {
            return Ok(found);
        }
    }
}

fn parse_entry(entry: &str, release: &Release) -> Result<Listed> {
    let field = |name: &str| {
        let value = entry.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.map(str::to_owned).with_context(|| format!("it has no {name}"))
    };
    let path = field("Filename")?;
    let download = Download {
        version: field("Version")?,
        file: file_name(Path::new(&path)),
        sha256: field("SHA256")?,
        size: field("Size")?.parse().context("its Size is no number")?,
        paths: vec![path],
        snapshot: Some(release.snapshot.clone()),
    };
    download.check()?;
    let plain = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_control() || "\"\\".contains(c));
    ensure!(
        [&download.version, &download.file, &download.paths[0]].iter().all(|text| plain(text)),
        "it has odd characters"
    );
    Ok(Listed { download, is_security: release.is_security })
}

/// The same version in two archives is one entry with the paths of both, the security archive
/// first: a version comes to the other one with the next point release.
fn merged(mut found: Vec<Listed>) -> Vec<Listed> {
    found.sort_by(|a, b| {
        version::compare(&a.download.version, &b.download.version).then(b.is_security.cmp(&a.is_security))
    });
    let mut versions: Vec<Listed> = Vec::new();
    for listed in found {
        match versions.last_mut().filter(|last| last.download.sha256 == listed.download.sha256) {
            Some(last) => last.download.paths.extend(listed.download.paths),
            None => versions.push(listed),
        }
    }
    for listed in &mut versions {
        let paths = &mut listed.download.paths;
        if let Some(main) = paths[0].strip_prefix(mirrors::SECURITY_POOL) {
            paths.push(format!("pool/{main}"));
        }
        let mut seen = HashSet::new();
        paths.retain(|path| seen.insert(path.clone()));
    }
    versions
}

/// The version of a package in a list, or the newest one.
pub fn select(versions: Vec<Listed>, package: &str, wanted: Option<&str>) -> Result<Listed> {
    let known: Vec<_> = versions.iter().map(|listed| listed.download.version.clone()).collect();
    let found =
        versions.into_iter().rev().find(|listed| wanted.is_none_or(|version| listed.download.version == version));
    match (found, wanted) {
        (Some(found), _) => Ok(found),
        (None, None) => bail!("the archive has no package {package}"),
        (None, Some(version)) => bail!("the archive has no {package} {version} (it has {})", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: &str = "Origin: Debian\nLabel: Debian-Security\nDate: Thu, 26 Nov 2026 21:03:36 UTC\nSHA256:\n";

    fn entry(version: &str, pool: &str) -> String {
        let hash = format!("{:064}", version.len());
        format!(
            "Package: linux-source-6.12\nVersion: {version}\nFilename: {pool}/l/x_{version}_all.deb\n\
                 Size: 12\nDescription: a\n b\nSHA256: {hash}\n\n"
        )
    }

    fn read(text: &str, release: &str) -> Result<Vec<Listed>> {
        read_list(text.as_bytes(), "linux-source-6.12", &Release::parse(release)?)
    }

    #[test]
    fn entries_become_pins() {
        let other = entry("9-1", "pool/main").replace("6.12", "6.12-x");
        let text = [entry("6.12.9-1", "pool/updates/main"), other, entry("6.12.10-1", "pool/updates/main")].concat();
        let versions = merged(read(&text, RELEASE).unwrap());
        assert_eq!(versions.len(), 2);
        let newest = select(versions.clone(), "x", None).unwrap();
        let Download { version, file, size, paths, snapshot, .. } = &newest.download;
        assert_eq!((version.as_str(), file.as_str(), *size), ("6.12.10-1", "x_6.12.10-1_all.deb", 12));
        // The path after the next point release is known already.
        assert_eq!(paths, &["pool/updates/main/l/x_6.12.10-1_all.deb", "pool/main/l/x_6.12.10-1_all.deb"]);
        assert_eq!(snapshot.as_deref(), Some("20261127T210336Z"));
        assert!(newest.is_security);
        assert_eq!(select(versions.clone(), "x", Some("6.12.9-1")).unwrap().download.version, "6.12.9-1");
        let error = select(versions, "x", Some("6.12.8-1")).unwrap_err().to_string();
        assert_eq!(error, "the archive has no x 6.12.8-1 (it has 6.12.9-1, 6.12.10-1)");
    }

    #[test]
    fn a_version_in_two_archives_is_one_with_the_paths_of_both() {
        let main = RELEASE.replace("-Security", "");
        let mut found = read(&entry("1-1", "pool/main"), &main).unwrap();
        found.extend(read(&entry("1-1", "pool/updates/main"), RELEASE).unwrap());
        let versions = merged(found);
        assert_eq!(versions.len(), 1);
        assert!(versions[0].is_security);
        let paths = ["pool/updates/main/l/x_1-1_all.deb", "pool/main/l/x_1-1_all.deb"];
        assert_eq!(versions[0].download.paths, paths);
    }

    #[test]
    fn an_incomplete_entry_is_refused() {
        for field in ["Version: ", "Filename: ", "Size: ", "SHA256: "] {
            let error = format!("{:#}", read(&entry("1-1", "pool").replace(field, "X: "), RELEASE).unwrap_err());
            assert!(error.contains("is invalid") && error.contains(field.trim_end_matches(": ")), "{error}");
        }
        assert!(read(&entry("1\"-1", "pool"), RELEASE).is_err());
    }

    #[test]
    fn a_list_without_a_valid_signature_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dist = folder.path().join("mirror/dists/trixie");
        fs::create_dir_all(&dist).unwrap();
        fs::write(dist.join("Release"), "Codename: trixie\nDate: Thu, 26 Nov 2026 21:03:36 UTC\n").unwrap();
        let lists = Lists { folder: folder.path().join("lists") };
        let mirror = format!("file://{}/", folder.path().join("mirror").display());
        let keyring = folder.path().join("keys.gpg");
        fs::write(&keyring, "").unwrap();
        let patience = Patience { seconds: 1, retries: 0 };
        // The tests of other modules end the children of `process`.
        let output = lists.updater(&[(mirror, "trixie".into())], &keyring, patience).unwrap().output().unwrap();
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("is not signed"), "{text}");
        assert!(lists.versions("x").unwrap().is_empty());
    }
}
