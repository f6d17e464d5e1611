// SPDX-License-Identifier: GPL-2.0-only
//! Debian mirrors, and the archive that keeps every version, from apt's own configuration. The
//! repository names none.

use std::env;
use std::error::Error;
use std::fmt;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use fs_err as fs;
use xshell::{Shell, cmd};

use crate::sources::pins::Download;

/// Debian's archive keys, from the package debian-archive-keyring.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The environment variable that replaces apt's mirrors by one mirror.
pub const MIRROR_VARIABLE: &str = "XT_TRAFFIC_MIRROR";

/// The environment variable that names the archive that keeps every version. It replaces the one in
/// apt's configuration. `@PATH@` in it stands for `debian` or `debian-security`, and `@SNAPSHOTID@`
/// for a time, as in the options `Acquire::Snapshots::URI` of apt.conf(5).
pub const ARCHIVE_VARIABLE: &str = "XT_TRAFFIC_ARCHIVE";

/// The environment variable that names a folder or an address with the files themselves.
pub const FILES_VARIABLE: &str = "XT_TRAFFIC_FILES";

/// How the paths of the security archive begin.
pub const SECURITY_POOL: &str = "pool/updates/";

/// The mirrors in apt's order, each ending in a slash. They need not have every release: see
/// [`serving`].
pub fn configured() -> Result<Vec<String>> {
    match variable(MIRROR_VARIABLE) {
        Some(mirror) => Ok(vec![with_slash(&mirror)]),
        None => of_apt(),
    }
}

/// The mirrors of apt's configuration.
fn of_apt() -> Result<Vec<String>> {
    let sh = Shell::new()?;
    let format = "$(REPO_URI)";
    let output = cmd!(sh, "apt-get indextargets --format {format} 'Created-By: Packages'")
        .quiet()
        .ignore_stderr()
        .read()
        .context("cannot ask apt for its mirrors")?;
    let mirrors = from_targets(&output, |path| fs::read_to_string(path).ok());
    if mirrors.is_empty() {
        bail!("apt has no mirror configured; set {MIRROR_VARIABLE}");
    }
    Ok(mirrors)
}

/// The mirrors in a list of repository addresses, each once. `read` reads the files that
/// `mirror+file:` addresses name (apt-transport-mirror(1)).
fn from_targets(output: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let expand = |address: &str| match address.strip_prefix("mirror+file:") {
        Some(list) => read(list.trim_end_matches('/').trim_start_matches("//")).unwrap_or_default(),
        None => address.to_owned(),
    };
    let mut mirrors = Vec::new();
    let texts: Vec<_> = output.lines().map(|line| expand(line.trim())).collect();
    for line in texts.iter().flat_map(|text| text.lines()) {
        // Metadata, such as a priority, may follow the address.
        let address = with_slash(line.split_whitespace().next().unwrap_or_default());
        let fetchable = address.starts_with("http://") || address.starts_with("https://");
        if fetchable && !mirrors.contains(&address) {
            mirrors.push(address);
        }
    }
    mirrors
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where else than on the mirrors a file may be.
#[derive(Default)]
pub struct Elsewhere {
    /// Addresses of the archive that keeps every version, with `@SNAPSHOTID@`.
    debian: Option<String>,
    security: Option<String>,
    /// The user's own folder or address.
    files: Option<String>,
}

impl Elsewhere {
    /// Asks the environment and apt.
    pub fn configured() -> Self {
        let files = variable(FILES_VARIABLE).map(|place| match place.contains("://") {
            true => place,
            false => format!("file://{}", std::path::absolute(&place).unwrap_or_else(|_| place.into()).display()),
        });
        if let Some(address) = variable(ARCHIVE_VARIABLE) {
            let of = |path| Some(address.replace("@PATH@", path));
            return Self { debian: of("debian"), security: of("debian-security"), files };
        }
        Self { files, ..Self::from_options(&apt_options("Acquire::Snapshots")) }
    }

    /// The archive in the output of apt-config(8). apt has these options since 2.7.
    fn from_options(options: &str) -> Self {
        let value = |name: &str| {
            let line =
                options.lines().find_map(|line| line.strip_prefix("Acquire::Snapshots::URI::")?.strip_prefix(name));
            line.and_then(|rest| Some(rest.trim().strip_prefix('"')?.split('"').next()?.to_owned()))
        };
        let [debian, security] = ["Origin::Debian ", "Override::Label::Debian-Security "].map(value);
        Self { debian, security, files: None }
    }

    /// All addresses of a file, in the order in which they are tried: the mirrors, the archive, the
    /// user's own.
    pub fn addresses(&self, mirrors: &[String], source: &Download) -> Vec<String> {
        let on_mirrors =
            mirrors.iter().flat_map(|mirror| source.paths.iter().map(move |path| format!("{mirror}{path}")));
        let archived = source.paths.iter().filter_map(|path| {
            let archive = if path.starts_with(SECURITY_POOL) { &self.security } else { &self.debian };
            let snapshot = archive.as_ref()?.replace("@SNAPSHOTID@", source.snapshot.as_ref()?);
            Some(format!("{}{path}", with_slash(&snapshot)))
        });
        let own = self.files.iter().map(|place| format!("{}{}", with_slash(place), source.file));
        on_mirrors.chain(archived).chain(own).collect()
    }
}

fn with_slash(address: &str) -> String {
    format!("{}/", address.trim_end_matches('/'))
}

/// How long to wait for a mirror.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection.
    pub seconds: u32,
    /// The tries after the first one.
    pub retries: u32,
}

impl Patience {
    /// For what a command cannot do without.
    pub const LONG: Self = Self { seconds: 20, retries: 2 };
    /// For what it can do without.
    pub const SHORT: Self = Self { seconds: 3, retries: 0 };
}

/// All mirrors have answered, and none has a suite. Any other failure may pass.
#[derive(Debug)]
pub struct NoSuite(String);

impl Error for NoSuite {}

impl fmt::Display for NoSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The first configured mirror that has the suite `suite`, such as `trixie`.
///
/// # Errors
///
/// [`NoSuite`] if all mirrors answer that they do not have it.
pub fn serving(suite: &str, patience: Patience) -> Result<String> {
    first_with(&configured()?, suite, patience)
}

/// As [`serving`], for a suite of the security archive. The mirror in [`MIRROR_VARIABLE`] may not
/// carry this archive. Then a mirror of apt's configuration has to.
pub fn serving_security(suite: &str, patience: Patience) -> Result<String> {
    let is_replaced = variable(MIRROR_VARIABLE).is_some();
    or_of_apt(serving(suite, patience), is_replaced, || first_with(&of_apt()?, suite, patience))
}

/// The mirror that was found, or that of apt's configuration if the user's own does not have the
/// suite.
fn or_of_apt(found: Result<String>, is_replaced: bool, of_apt: impl FnOnce() -> Result<String>) -> Result<String> {
    match found {
        Err(error) if is_replaced && error.is::<NoSuite>() => {
            of_apt().with_context(|| format!("the mirror in {MIRROR_VARIABLE} lacks the security archive"))
        }
        found => found,
    }
}

fn first_with(mirrors: &[String], suite: &str, Patience { seconds, retries }: Patience) -> Result<String> {
    let sh = Shell::new()?;
    let (seconds, retries) = (seconds.to_string(), retries.to_string());
    let (status, mut all_answered) = ("%{http_code}", true);
    let mut tried = Vec::new();
    for mirror in mirrors {
        let release = format!("{mirror}dists/{suite}/InRelease");
        let answer = cmd!(
            sh,
            "curl --silent --show-error --fail --location --head --output /dev/null --write-out {status}
             --connect-timeout {seconds} --retry {retries} {release}"
        )
        .quiet()
        .ignore_status()
        .output()
        .context("cannot run curl")?;
        if answer.status.success() {
            return Ok(mirror.clone());
        }
        crate::process::check()?;
        all_answered &= answer.stdout == b"404";
        let why = String::from_utf8_lossy(&answer.stderr).trim().to_owned();
        tried.push(format!("\n    {mirror}: {why}"));
    }
    let message = format!("no configured mirror has Debian {suite}; set {MIRROR_VARIABLE}{}", tried.concat());
    if all_answered { Err(NoSuite(message).into()) } else { Err(anyhow!(message)) }
}

/// apt's proxy settings, as `Name "value";` lines for another apt; empty when there are none.
pub fn proxy_options() -> Vec<String> {
    let dump = apt_options("Acquire");
    dump.lines().filter(|line| line.to_lowercase().contains("::proxy \"")).map(str::to_owned).collect()
}

/// apt's options below a name, one a line; empty if apt does not answer.
fn apt_options(below: &str) -> String {
    let dump = Command::new("apt-config").args(["dump", below]).output().map(|output| output.stdout);
    String::from_utf8_lossy(&dump.unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_addresses_and_repetitions_are_left_out() {
        let output = "http://mirror.example/debian/\nhttp://mirror.example/debian\n\
                      cdrom:[Debian]/\nfile:/srv/debian/\nhttps://other.example/d/\n";
        assert_eq!(from_targets(output, |_| None), ["http://mirror.example/debian/", "https://other.example/d/"]);
    }

    #[test]
    fn mirror_lists_are_followed() {
        let output = "mirror+file:/etc/apt/mirrors/debian.list/\nhttp://last.example/\n";
        let read = |path: &str| {
            assert_eq!(path, "/etc/apt/mirrors/debian.list");
            Some("# ours\nhttp://a.example/debian priority:1\n\nhttp://b.example/debian\n".into())
        };
        assert_eq!(
            from_targets(output, read),
            ["http://a.example/debian/", "http://b.example/debian/", "http://last.example/"]
        );
    }

    #[test]
    fn the_security_archive_may_be_on_another_mirror_than_the_users_own() {
        let of_apt = || Ok("apt's".to_owned());
        let lacking = || Err(NoSuite("no mirror".into()).into());
        assert_eq!(or_of_apt(Ok("own".into()), true, of_apt).unwrap(), "own");
        assert_eq!(or_of_apt(lacking(), true, of_apt).unwrap(), "apt's");
        assert!(or_of_apt(lacking(), false, of_apt).unwrap_err().is::<NoSuite>());
        // A mirror that does not answer may have the suite.
        assert!(or_of_apt(Err(anyhow!("timeout")), true, of_apt).is_err());
        let error = format!("{:#}", or_of_apt(lacking(), true, lacking).unwrap_err());
        assert_eq!(error, "the mirror in XT_TRAFFIC_MIRROR lacks the security archive: no mirror");
    }

    #[test]
    fn addresses_are_those_of_the_mirrors_then_of_the_archive_then_of_the_user() {
        let options = "Acquire::Snapshots \"\";\nAcquire::Snapshots::URI \"\";\n\
                       Acquire::Snapshots::URI::Origin::Debian \"https://old.example/d/@SNAPSHOTID@/\";\n\
                       Acquire::Snapshots::URI::Override::Label::Debian-Security \"https://old.example/s/@SNAPSHOTID@/\";\n";
        let elsewhere = Elsewhere { files: Some("file:///srv".into()), ..Elsewhere::from_options(options) };
        let mut source = Download {
            version: "1".into(),
            file: "x.deb".into(),
            sha256: String::new(),
            size: 0,
            paths: ["pool/updates/main/x.deb", "pool/main/x.deb"].map(String::from).to_vec(),
            snapshot: Some("20260101T000000Z".into()),
        };
        let on_mirror = ["http://m.example/pool/updates/main/x.deb", "http://m.example/pool/main/x.deb"];
        let archived = [
            "https://old.example/s/20260101T000000Z/pool/updates/main/x.deb",
            "https://old.example/d/20260101T000000Z/pool/main/x.deb",
        ];
        let own = ["file:///srv/x.deb"];
        let mirrors = ["http://m.example/".to_owned()];
        assert_eq!(elsewhere.addresses(&mirrors, &source), [&on_mirror[..], &archived, &own].concat());
        assert_eq!(Elsewhere::from_options("").addresses(&mirrors, &source), on_mirror);
        // Without a time, there is no address in the archive.
        source.snapshot = None;
        assert_eq!(elsewhere.addresses(&[], &source), own);
    }
}
