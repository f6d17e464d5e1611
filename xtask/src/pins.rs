// SPDX-License-Identifier: GPL-2.0
//! `pins.toml`: the versions and hashes of everything that comes from outside.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;

/// The whole of `pins.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// The Debian release of the build root and the guest.
    pub suite: String,
    /// The kernel series.
    pub kernel: KernelPins,
    /// The iptables release.
    pub iptables: Source,
    /// Debian's own packages of the same release, which ours replace.
    pub debian_iptables: Vec<Source>,
    /// The build root.
    pub buildroot: RootPins,
    /// The guest's root.
    pub guest: RootPins,
}

/// The kernel series that can be built.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelPins {
    /// The series that is meant when none is named.
    pub default: String,
    /// Sources by series, which is also the name of the folder in `kernel-patches/`.
    pub series: BTreeMap<String, Source>,
    /// Debian's packages with the configuration of its own kernel of a series.
    pub debian_config: BTreeMap<String, Source>,
}

/// A file that is downloaded: a source tarball or a binary package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The version of what it holds.
    pub version: String,
    /// The file's name in the cache.
    pub file: String,
    /// Its SHA-256, 64 hexadecimal digits.
    pub sha256: String,
    /// Its size in bytes, for progress bars.
    pub size: u64,
    /// Paths below a mirror, tried in turn.
    pub paths: Vec<String>,
}

/// The packages of a root.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootPins {
    /// Debian package names.
    pub packages: Vec<String>,
}

impl Pins {
    /// Reads and checks the file.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("{} is wrong", file.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let pins: Self = toml::from_str(text)?;
        pins.series(&pins.kernel.default)?;
        let kernel = pins.kernel.series.values().chain(pins.kernel.debian_config.values());
        for source in kernel.chain([&pins.iptables]).chain(&pins.debian_iptables) {
            let digits = source.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            anyhow::ensure!(
                digits && source.sha256.len() == 64,
                "sha256 of {} is not 64 lower-case hexadecimal digits",
                source.file
            );
        }
        Ok(pins)
    }

    /// The package with Debian's configuration for the kernel series of the tree `tree`.
    pub fn debian_config(&self, tree: &str) -> Result<&Source> {
        let series = tree.trim_start_matches("kernel-");
        let config = self.kernel.debian_config.get(series);
        config.with_context(|| format!("pins.toml names no configuration of Debian's for series {series}"))
    }

    /// The source of a kernel series.
    pub fn series(&self, name: &str) -> Result<&Source> {
        self.kernel.series.get(name).with_context(|| {
            let known: Vec<_> = self.kernel.series.keys().map(String::as_str).collect();
            format!("there is no kernel series {name}; there is: {}", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned() -> String {
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/pins.toml")).unwrap()
    }

    #[test]
    fn the_committed_pins_are_right() {
        let pins = Pins::parse(&pinned()).unwrap();
        let error = pins.series("5.0").unwrap_err().to_string();
        assert!(error.contains("6.18"), "{error}");
    }

    #[test]
    fn a_short_hash_is_refused() {
        let text = pinned().replace("\"fdf4", "\"df4");
        let error = Pins::parse(&text).unwrap_err().to_string();
        assert!(error.contains("sha256 of linux_6.18.15"), "{error}");
    }

    #[test]
    fn a_default_without_a_source_is_refused() {
        let text = pinned().replace("default = \"6.18\"", "default = \"6.19\"");
        assert!(Pins::parse(&text).is_err());
    }
}
