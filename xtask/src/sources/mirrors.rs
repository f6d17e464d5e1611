// SPDX-License-Identifier: GPL-2.0-only
//! Debian mirrors, from apt's own configuration. The repository names none.

use std::env;
use std::process::Command;

use anyhow::{Context, Result, bail};
use fs_err as fs;
use xshell::{Shell, cmd};

/// Debian's archive keys, from the package debian-archive-keyring.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The environment variable that replaces apt's mirrors by one mirror.
pub const MIRROR_VARIABLE: &str = "XT_TRAFFIC_MIRROR";

/// The mirrors in apt's order, each ending in a slash. They need not have every release: see
/// [`serving`].
pub fn configured() -> Result<Vec<String>> {
    if let Some(mirror) = env::var(MIRROR_VARIABLE).ok().filter(|m| !m.is_empty()) {
        return Ok(vec![with_slash(&mirror)]);
    }
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

fn with_slash(address: &str) -> String {
    format!("{}/", address.trim_end_matches('/'))
}

/// The first configured mirror that has the Debian release `suite`.
pub fn serving(suite: &str) -> Result<String> {
    let mirrors = configured()?;
    let sh = Shell::new()?;
    let mut tried = Vec::new();
    for mirror in mirrors {
        let release = format!("{mirror}dists/{suite}/InRelease");
        let answer = cmd!(
            sh,
            "curl --silent --show-error --fail --location --head --output /dev/null
             --connect-timeout 20 --retry 2 {release}"
        )
        .quiet()
        .output()
        .context("cannot run curl")?;
        if answer.status.success() {
            return Ok(mirror);
        }
        crate::process::check()?;
        let why = String::from_utf8_lossy(&answer.stderr).trim().to_owned();
        tried.push(format!("\n    {mirror}: {why}"));
    }
    bail!("no mirror in apt's configuration has Debian {suite}; set {MIRROR_VARIABLE}{}", tried.concat())
}

/// apt's proxy settings, as `Name "value";` lines for another apt; empty when there are none.
pub fn proxy_options() -> Vec<String> {
    let dump = Command::new("apt-config").args(["dump", "Acquire"]).output().map(|output| output.stdout);
    let dump = String::from_utf8_lossy(&dump.unwrap_or_default()).into_owned();
    dump.lines().filter(|line| line.to_lowercase().contains("::proxy \"")).map(str::to_owned).collect()
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
}
