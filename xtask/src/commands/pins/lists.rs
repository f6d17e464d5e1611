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

/// The path of a list below its suite, as in an `InRelease`.
const PACKAGES: &str = "main/binary-amd64/Packages";

/// The suites of a Debian release that a version can be in. The same version in two of them is that
/// of the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Security,
    Release,
    Updates,
    Backports,
}

impl Part {
    const ALL: [Self; 4] = [Self::Security, Self::Release, Self::Updates, Self::Backports];

    /// The suite of a release such as `trixie`.
    fn suite(self, release: &str) -> String {
        let suffix = match self {
            Self::Security => "-security",
            Self::Release => "",
            Self::Updates => "-updates",
            Self::Backports => "-backports",
        };
        format!("{release}{suffix}")
    }

    /// Whether a pin may only be called the newest version with the list of this suite. A new
    /// release has no backports yet, and a local mirror may have one suite only.
    fn is_required(self) -> bool {
        matches!(self, Self::Security | Self::Release)
    }

    /// A mirror that has the suite. [`None`] if none has it, and it is not required.
    fn mirror(self, suite: &str, patience: Patience) -> Result<Option<String>> {
        let mirror = match self {
            Self::Security => mirrors::serving_security(suite, patience),
            _ => mirrors::serving(suite, patience),
        };
        match mirror {
            Err(error) if error.is::<NoSuite>() && !self.is_required() => {
                eprintln!("warning: {error:#}");
                Ok(None)
            }
            found => found.map(Some),
        }
    }
}

/// The lists in the cache.
pub struct Lists {
    folder: PathBuf,
    /// The Debian release.
    release: String,
}

/// A package in a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What a pin of it contains.
    pub download: Download,
    /// The suite that has this version.
    pub part: Part,
}

impl Listed {
    /// Whether the security archive has this version.
    pub fn is_security(&self) -> bool {
        self.part == Part::Security
    }
}

impl Lists {
    /// The lists in the cache, whatever their age.
    pub fn open(ws: &Workspace) -> Self {
        Self { folder: ws.cache().join("lists"), release: ws.pins().suite.clone() }
    }

    /// The lists, after a download of what has changed.
    pub fn updated(ws: &Workspace) -> Result<Self> {
        let lists = Self::open(ws);
        lists.update(Patience::LONG)?;
        Ok(lists)
    }

    /// Whether the lists have been downloaded within a time. A failed try counts with `tried`.
    pub fn are_younger_than(&self, age: Duration, tried: bool) -> bool {
        let file = self.folder.join(if tried { "tried" } else { "updated" });
        let changed = fs::metadata(file).and_then(|data| data.modified());
        changed.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|passed| passed < age))
    }

    /// Downloads what has changed.
    pub fn update(&self, patience: Patience) -> Result<()> {
        fs::create_dir_all(&self.folder)?;
        write_atomically(&self.folder.join("tried"), b"")?;
        let mut sources = Vec::new();
        for part in Part::ALL {
            let suite = part.suite(&self.release);
            sources.extend(part.mirror(&suite, patience)?.map(|mirror| (mirror, suite)));
            process::check()?;
        }
        let mut output = Vec::new();
        let status = process::run_lines(self.updater(&sources, Path::new(KEYRING), patience)?, |line| {
            output.push(line.to_owned());
        })?;
        output.retain(|line| line.starts_with("E:") || line.starts_with("Err:") || line.starts_with("W:"));
        ensure!(status.success(), "cannot update the package lists:\n    {}", output.join("\n    "));
        self.downloaded(Timestamp::now())?;
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
        let mut found = Vec::new();
        for (release, packages) in self.downloaded(Timestamp::now())? {
            let reader = BufReader::new(File::open(&packages)?);
            found.extend(read_list(reader, package, &release).with_context(|| packages.display().to_string())?);
        }
        Ok(merged(found))
    }

    /// The lists that apt has downloaded, and what their `InRelease` says. apt has verified that
    /// Debian has signed it.
    ///
    /// # Errors
    /// When the list of a suite is missing that is required, or when an `InRelease` is not valid
    /// for the suite or at this time: a mirror could give an old one, or that of another suite.
    fn downloaded(&self, now: Timestamp) -> Result<Vec<(Release, PathBuf)>> {
        let files = list(&self.folder.join("lists")).unwrap_or_default();
        let mut found = Vec::new();
        for part in Part::ALL {
            let suite = part.suite(&self.release);
            let end = format!("_dists_{suite}_InRelease");
            let file = files.iter().find(|file| file_name(file).ends_with(&end));
            ensure!(file.is_some() || !part.is_required(), "the package list of {suite} is missing");
            let Some(file) = file else { continue };
            let release = Release::parse(&fs::read_to_string(file)?, part, &suite, now);
            let release = release.with_context(|| format!("{} is refused", file.display()))?;
            let name = file_name(file).replace("InRelease", &PACKAGES.replace('/', "_"));
            let packages = file.with_file_name(name);
            // apt does not store an empty list.
            if !release.is_empty {
                ensure!(packages.exists(), "the package list of {suite} is missing");
                found.push((release, packages));
            }
        }
        Ok(found)
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
        // A suite that cannot be downloaded is an error. For one with another name, apt only warns.
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
#[derive(Debug)]
struct Release {
    part: Part,
    /// Whether there are no packages for amd64 in `main`.
    is_empty: bool,
    /// A time at which the archive that keeps every version has the packages.
    snapshot: String,
}

impl Release {
    /// Reads the `InRelease` of the suite `suite`.
    fn parse(text: &str, part: Part, suite: &str, now: Timestamp) -> Result<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let names = [field("Codename:"), field("Suite:")];
        let is_of = || names.into_iter().flatten().next().unwrap_or("a suite without a name");
        ensure!(names.contains(&Some(suite)), "it is the InRelease of {}, not of {suite}", is_of());
        if let Some(until) = field("Valid-Until:") {
            ensure!(now <= time(until)?, "it was valid until {until}");
        }
        let date = time(field("Date:").context("it has no Date")?)?;
        // Each line of a file has its hash, its size and its path.
        let is_empty = text.lines().any(|line| line.trim_end().ends_with(&format!(" 0 {PACKAGES}")));
        Ok(Self { part, is_empty, snapshot: snapshot(date)? })
    }
}

/// A time in an `InRelease`.
fn time(text: &str) -> Result<Timestamp> {
    // RFC 2822 has no "UTC".
    let numeric = text.strip_suffix("UTC").map_or(text.to_owned(), |time| format!("{time}+0000"));
    let time = DateTimeParser::new().relaxed_weekday(true).parse_timestamp(&numeric);
    time.with_context(|| format!("{text} is not a time"))
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
    Ok(Listed { download, part: release.part })
}

/// The same version in two archives is one entry with the paths of both, the security archive
/// first: a version comes to the other one with the next point release.
fn merged(mut found: Vec<Listed>) -> Vec<Listed> {
    found.sort_by(|a, b| version::compare(&a.download.version, &b.download.version).then(a.part.cmp(&b.part)));
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
pub mod tests {
    use super::*;

    const NOW: &str = "2026-11-28T00:00:00Z";

    /// An `InRelease` with a list of `size` bytes.
    fn in_release(suite: &str, size: u32) -> String {
        format!(
            "Origin: Debian\nSuite: stable\nCodename: {suite}\nDate: Thu, 26 Nov 2026 21:03:36 UTC\n\
             Valid-Until: Thu, 03 Dec 2026 21:03:36 UTC\nSHA256:\n abc {size} main/binary-amd64/Packages\n"
        )
    }

    fn parse(text: &str, part: Part) -> Result<Release> {
        Release::parse(text, part, &part.suite("trixie"), NOW.parse().unwrap())
    }

    fn entry(version: &str, pool: &str) -> String {
        entry_of("linux-source-6.12", version, pool)
    }

    fn entry_of(package: &str, version: &str, pool: &str) -> String {
        let digits: String = version.chars().filter(char::is_ascii_digit).collect();
        let hash = format!("{digits:0>64}");
        format!(
            "Package: {package}\nVersion: {version}\nFilename: {pool}/l/x_{version}_all.deb\n\
                 Size: 12\nDescription: a\n b\nSHA256: {hash}\n\n"
        )
    }

    fn read(text: &str, part: Part) -> Result<Vec<Listed>> {
        read_list(text.as_bytes(), "linux-source-6.12", &parse(&in_release(&part.suite("trixie"), 9), part)?)
    }

    #[test]
    fn entries_become_pins() {
        let other = entry("9-1", "pool/main").replace("6.12", "6.12-x");
        let text = [entry("6.12.9-1", "pool/updates/main"), other, entry("6.12.10-1", "pool/updates/main")].concat();
        let versions = merged(read(&text, Part::Security).unwrap());
        assert_eq!(versions.len(), 2);
        let newest = select(versions.clone(), "x", None).unwrap();
        let Download { version, file, size, paths, snapshot, .. } = &newest.download;
        assert_eq!((version.as_str(), file.as_str(), *size), ("6.12.10-1", "x_6.12.10-1_all.deb", 12));
        // The path after the next point release is known already.
        assert_eq!(paths, &["pool/updates/main/l/x_6.12.10-1_all.deb", "pool/main/l/x_6.12.10-1_all.deb"]);
        assert_eq!(snapshot.as_deref(), Some("20261127T210336Z"));
        assert!(newest.is_security());
        assert_eq!(select(versions.clone(), "x", Some("6.12.9-1")).unwrap().download.version, "6.12.9-1");
        let error = select(versions, "x", Some("6.12.8-1")).unwrap_err().to_string();
        assert_eq!(error, "the archive has no x 6.12.8-1 (it has 6.12.9-1, 6.12.10-1)");
    }

    #[test]
    fn a_version_in_two_archives_is_one_with_the_paths_of_both() {
        let mut found = read(&entry("1-1", "pool/main"), Part::Release).unwrap();
        found.extend(read(&entry("1-1", "pool/updates/main"), Part::Security).unwrap());
        let versions = merged(found);
        assert_eq!(versions.len(), 1);
        assert!(versions[0].is_security());
        let paths = ["pool/updates/main/l/x_1-1_all.deb", "pool/main/l/x_1-1_all.deb"];
        assert_eq!(versions[0].download.paths, paths);
    }

    #[test]
    fn an_incomplete_entry_is_refused() {
        for field in ["Version: ", "Filename: ", "Size: ", "SHA256: "] {
            let error = format!("{:#}", read(&entry("1-1", "pool").replace(field, "X: "), Part::Release).unwrap_err());
            assert!(error.contains("is invalid") && error.contains(field.trim_end_matches(": ")), "{error}");
        }
        assert!(read(&entry("1\"-1", "pool"), Part::Release).is_err());
    }

    #[test]
    fn a_list_without_a_valid_signature_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dist = folder.path().join("mirror/dists/trixie");
        fs::create_dir_all(&dist).unwrap();
        fs::write(dist.join("Release"), "Codename: trixie\nDate: Thu, 26 Nov 2026 21:03:36 UTC\n").unwrap();
        let lists = Lists { folder: folder.path().join("lists"), release: "trixie".into() };
        let mirror = format!("file://{}/", folder.path().join("mirror").display());
        let keyring = folder.path().join("keys.gpg");
        fs::write(&keyring, "").unwrap();
        let patience = Patience { seconds: 1, retries: 0 };
        // The tests of other modules end the children of `process`.
        let output = lists.updater(&[(mirror, "trixie".into())], &keyring, patience).unwrap().output().unwrap();
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("is not signed"), "{text}");
        let error = lists.versions("x").unwrap_err().to_string();
        assert!(error.contains("is missing"), "{error}");
    }

    /// Lists of all suites in a folder, without a package.
    fn all_lists() -> (tempfile::TempDir, Lists) {
        let folder = tempfile::tempdir().unwrap();
        let lists = Lists { folder: folder.path().to_owned(), release: "trixie".into() };
        fs::create_dir(folder.path().join("lists")).unwrap();
        for part in Part::ALL {
            let suite = part.suite("trixie");
            fs::write(lists.file(&suite, "InRelease"), in_release(&suite, 9)).unwrap();
            fs::write(lists.file(&suite, "main_binary-amd64_Packages"), "").unwrap();
        }
        (folder, lists)
    }

    /// Lists of all suites with these versions of a package. They are valid at any time.
    pub fn lists_of(package: &str, versions: [(Part, &str); 2]) -> (tempfile::TempDir, Lists) {
        let (folder, lists) = all_lists();
        for part in Part::ALL {
            let file = lists.file(&part.suite("trixie"), "InRelease");
            let text = fs::read_to_string(&file).unwrap().replace("Valid-Until:", "X:");
            fs::write(&file, text).unwrap();
        }
        for (part, version) in versions {
            let file = lists.file(&part.suite("trixie"), "main_binary-amd64_Packages");
            fs::write(file, entry_of(package, version, "pool/main")).unwrap();
        }
        (folder, lists)
    }

    impl Lists {
        fn file(&self, suite: &str, end: &str) -> PathBuf {
            self.folder.join(format!("lists/mirror.example_debian_dists_{suite}_{end}"))
        }

        fn count(&self, now: &str) -> Result<usize, String> {
            let downloaded = self.downloaded(now.parse().unwrap());
            downloaded.map(|lists| lists.len()).map_err(|error| format!("{error:#}"))
        }
    }

    #[test]
    fn a_missing_list_of_the_release_or_of_the_security_archive_is_an_error() {
        for end in ["InRelease", "main_binary-amd64_Packages"] {
            for (suite, required) in [("trixie", true), ("trixie-security", true), ("trixie-backports", false)] {
                let (_folder, lists) = all_lists();
                assert_eq!(lists.count(NOW), Ok(4));
                fs::remove_file(lists.file(suite, end)).unwrap();
                // An InRelease names its list, so that one must be there in any case.
                let expected = match (required, end) {
                    (false, "InRelease") => Ok(3),
                    _ => Err(format!("the package list of {suite} is missing")),
                };
                assert_eq!(lists.count(NOW), expected, "{suite} {end}");
            }
        }
    }

    #[test]
    fn an_empty_list_is_no_error() {
        let (_folder, lists) = all_lists();
        fs::remove_file(lists.file("trixie-updates", "main_binary-amd64_Packages")).unwrap();
        fs::write(lists.file("trixie-updates", "InRelease"), in_release("trixie-updates", 0)).unwrap();
        assert_eq!(lists.count(NOW), Ok(3));
    }

    #[test]
    fn the_in_release_of_another_suite_is_refused() {
        for other in ["trixie", "sid", "bookworm-security", "trixie-security-x"] {
            let (_folder, lists) = all_lists();
            fs::write(lists.file("trixie-security", "InRelease"), in_release(other, 9)).unwrap();
            let error = lists.count(NOW).unwrap_err();
            assert!(error.contains(&format!("of {other}, not of trixie-security")), "{error}");
        }
        // A release can also be pinned by its other name.
        let text = in_release("trixie", 9);
        assert!(Release::parse(&text, Part::Release, "stable", NOW.parse().unwrap()).is_ok());
        let text = text.replace("Suite:", "X:").replace("Codename:", "Y:");
        let error = parse(&text, Part::Release).unwrap_err().to_string();
        assert_eq!(error, "it is the InRelease of a suite without a name, not of trixie");
    }

    #[test]
    fn an_in_release_is_refused_after_its_time() {
        let (_folder, lists) = all_lists();
        assert_eq!(lists.count("2026-12-03T21:03:36Z"), Ok(4));
        let error = lists.count("2026-12-03T21:03:37Z").unwrap_err();
        assert!(error.contains("it was valid until Thu, 03 Dec 2026 21:03:36 UTC"), "{error}");
        // The release itself has no such field.
        let text = in_release("trixie", 9).replace("Valid-Until:", "X:");
        assert!(Release::parse(&text, Part::Release, "trixie", "2036-01-01T00:00:00Z".parse().unwrap()).is_ok());
        let text = in_release("trixie", 9).replace("Thu, 03 Dec 2026", "soon");
        assert!(parse(&text, Part::Release).unwrap_err().to_string().contains("is not a time"));
    }

    #[test]
    fn an_update_in_the_security_archive_is_found() {
        let (_folder, lists) =
            lists_of("linux-source-6.12", [(Part::Release, "6.12.9-1"), (Part::Security, "6.12.10-1")]);
        let versions = lists.versions("linux-source-6.12").unwrap();
        let found: Vec<_> = versions.iter().map(|listed| (listed.download.version.as_str(), listed.part)).collect();
        assert_eq!(found, [("6.12.9-1", Part::Release), ("6.12.10-1", Part::Security)]);
    }
}
