// SPDX-License-Identifier: GPL-2.0-only
//! `pins.toml`: the version and hash of every download.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use serde::Deserialize;

/// The format of [`Download::snapshot`], in UTC.
pub const SNAPSHOT: &str = "%Y%m%dT%H%M%SZ";

/// The content of `pins.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// The Debian release of the build root and the guest.
    pub suite: String,
    /// The kernel series.
    pub kernel: KernelPins,
    /// The iptables release.
    pub iptables: Download,
    /// Debian's packages of the same release, which the patched packages replace.
    pub debian_iptables: Vec<Download>,
    /// The build root.
    pub buildroot: RootPins,
    /// The package root, in addition to what the build root has.
    pub packageroot: RootPins,
    /// The guest's root.
    pub guest: RootPins,
}

/// The kernel series that can be built.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelPins {
    /// The default series.
    pub default: String,
    /// Sources by series, which is also the name of the folder in `kernel-patches/`. A source is a
    /// tarball, or Debian's package `linux-source-*`, which contains one.
    pub series: BTreeMap<String, Download>,
    /// Debian's packages with the configuration of its kernel, by series.
    pub debian_config: BTreeMap<String, Download>,
}

/// A source tarball or a binary package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Download {
    /// The upstream or package version.
    pub version: String,
    /// The file's name in the cache.
    pub file: String,
    /// Its SHA-256, 64 hexadecimal digits.
    pub sha256: String,
    /// Its size in bytes. curl does not start a download if the server announces a larger size. If
    /// the server announces none, curl 8.4 and later stops after this number of bytes.
    /// <https://curl.se/docs/manpage.html#--max-filesize>
    pub size: u64,
    /// Paths on a mirror, tried in turn. Those of the security archive begin with `pool/updates/`.
    pub paths: Vec<String>,
    /// A time at which the file was on the mirrors, such as `20261127T000000Z`. The archive that
    /// keeps every version has it below this name.
    pub snapshot: Option<String>,
}

/// The packages of a root.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootPins {
    /// Debian package names.
    pub packages: Vec<String>,
}

impl KernelPins {
    /// All series, the default one first.
    pub fn all_series(&self) -> impl Iterator<Item = &str> {
        let others = self.series.keys().map(String::as_str).filter(|series| *series != self.default);
        [self.default.as_str()].into_iter().chain(others)
    }
}

impl Pins {
    /// Reads and checks the file.
    pub fn read(file: &Path) -> Result<Self> {
        Self::parse(&fs::read_to_string(file)?).with_context(|| format!("{} is invalid", file.display()))
    }

    /// Reads and checks the text of `pins.toml`.
    pub fn parse(text: &str) -> Result<Self> {
        let pins: Self = toml::from_str(text)?;
        pins.kernel_source(&pins.kernel.default)?;
        let kernel = pins.kernel.series.values().chain(pins.kernel.debian_config.values());
        kernel.chain([&pins.iptables]).chain(&pins.debian_iptables).try_for_each(Download::check)?;
        let version = pins.debian_iptables_version()?;
        for package in &pins.debian_iptables {
            ensure!(package.version == version, "{} does not have the version {version}", package.file);
        }
        let release = &pins.iptables.version;
        ensure!(upstream(version) == release, "Debian's iptables {version} is not made of iptables {release}");
        Ok(pins)
    }

    /// The version of Debian's iptables packages.
    pub fn debian_iptables_version(&self) -> Result<&str> {
        let package = self.debian_iptables.first().context("pins.toml has no Debian package of iptables")?;
        Ok(&package.version)
    }

    /// The package with Debian's configuration for a kernel series.
    pub fn debian_config(&self, series: &str) -> Result<&Download> {
        let config = self.kernel.debian_config.get(series);
        config.with_context(|| format!("pins.toml has no configuration package for kernel series {series}"))
    }

    /// The source of a kernel series.
    pub fn kernel_source(&self, series: &str) -> Result<&Download> {
        self.kernel.series.get(series).with_context(|| {
            let known: Vec<_> = self.kernel.series.keys().map(String::as_str).collect();
            format!("unknown kernel series {series} (expected {})", alternatives(&known))
        })
    }
}

/// Names as in "a, b or c".
pub fn alternatives(names: &[&str]) -> String {
    match names {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        names => names.concat(),
    }
}

/// The upstream part of a Debian version.
pub fn upstream(version: &str) -> &str {
    version.rsplit_once('-').map_or(version, |(upstream, _)| upstream)
}

impl Download {
    /// The name of a Debian package, which begins the name of its file.
    pub fn package(&self) -> &str {
        self.file.split_once('_').map_or(&self.file, |(name, _)| name)
    }

    /// Whether it is a Debian package.
    pub fn is_package(&self) -> bool {
        self.file.ends_with(".deb")
    }

    /// Fails if the hash cannot be a SHA-256.
    pub fn check(&self) -> Result<()> {
        let digits = self.sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        ensure!(
            digits && self.sha256.len() == 64,
            "the sha256 of {} is not 64 lower-case hexadecimal digits",
            self.file
        );
        let time = self.snapshot.as_ref().is_none_or(|time| jiff::fmt::strtime::parse(SNAPSHOT, time).is_ok());
        ensure!(time, "the snapshot of {} is not a time such as 20261127T000000Z", self.file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned() -> String {
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/pins.toml")).unwrap()
    }

    #[test]
    fn the_committed_pins_are_valid() {
        let pins = Pins::parse(&pinned()).unwrap();
        let error = pins.kernel_source("5.0").unwrap_err().to_string();
        assert!(error.contains(&pins.kernel.default), "{error}");
    }

    #[test]
    fn a_short_hash_is_refused() {
        let text = pinned();
        let pins = Pins::parse(&text).unwrap();
        let source = pins.kernel_source(&pins.kernel.default).unwrap();
        let text = text.replace(&source.sha256, &source.sha256[1..]);
        let error = Pins::parse(&text).unwrap_err().to_string();
        assert!(error.contains(&format!("sha256 of {}", source.file)), "{error}");
    }

    #[test]
    fn a_snapshot_that_is_not_a_time_is_refused() {
        let mut download = Pins::parse(&pinned()).unwrap().iptables;
        for (snapshot, valid) in [("20261127T000000Z", true), ("2026-11-27", false)] {
            download.snapshot = Some(snapshot.into());
            assert_eq!(download.check().is_ok(), valid, "{snapshot}");
        }
    }

    #[test]
    fn debians_iptables_has_one_version_of_the_release_that_is_built() {
        let text = pinned();
        let pins = Pins::parse(&text).unwrap();
        let (first, version) = (&pins.debian_iptables[0], pins.debian_iptables_version().unwrap());
        assert_eq!(first.package(), "iptables");
        let entry = format!("version = \"{version}\"\n");
        let other = |version: &str| format!("version = \"{version}\"\n");
        let error = Pins::parse(&text.replacen(&entry, &other("1.8.11-3"), 1)).unwrap_err().to_string();
        assert!(error.ends_with("does not have the version 1.8.11-3"), "{error}");
        let error = Pins::parse(&text.replace(&entry, &other("1.8.12-1"))).unwrap_err().to_string();
        assert!(error.contains("1.8.12-1 is not made of iptables"), "{error}");
    }

    #[test]
    fn alternatives_are_separated() {
        let names = ["a", "b", "c"];
        let texts = [1, 2, 3].map(|count| alternatives(&names[..count]));
        assert_eq!(texts, ["a", "a or b", "a, b or c"]);
    }

    #[test]
    fn a_default_without_a_source_is_refused() {
        let text = pinned();
        let default = Pins::parse(&text).unwrap().kernel.default;
        let text = text.replace(&format!("default = \"{default}\""), "default = \"0.0\"");
        let error = Pins::parse(&text).unwrap_err().to_string();
        assert!(error.contains("unknown kernel series 0.0"), "{error}");
    }
}
