// SPDX-License-Identifier: GPL-2.0-only
//! Kernel configuration fragments: the options they set, and whether the kernel accepted them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use fs_err as fs;
use walkdir::WalkDir;

use crate::workspace::file_name;

/// Makes the configuration targets warn of options that the kernel does not have.
/// <https://docs.kernel.org/kbuild/kconfig.html>
pub const WARN_UNKNOWN: &str = "KCONFIG_WARN_UNKNOWN_SYMBOLS=1";

/// The option in a warning of [`WARN_UNKNOWN`].
pub fn unknown(line: &str) -> Option<String> {
    line.split_once(":warning: unknown symbol: ").map(|(_, name)| format!("CONFIG_{name}"))
}

/// Options that describe the programs of the build, or that Debian sets when it builds: they name
/// keys, and the release of the kernel.
const OF_THE_BUILD: [&str; 9] = [
    "CONFIG_BINDGEN_VERSION_TEXT",
    "CONFIG_BUILD_SALT",
    "CONFIG_CC_VERSION_TEXT",
    "CONFIG_OPENSSL_SUPPORTS_ML_DSA",
    "CONFIG_RUSTC_LLVM_VERSION",
    "CONFIG_RUSTC_VERSION",
    "CONFIG_RUSTC_VERSION_TEXT",
    "CONFIG_RUST_IS_AVAILABLE",
    "CONFIG_SYSTEM_TRUSTED_KEYS",
];

/// Where the Kconfig files of drivers are, and of networks other than Ethernet. If a fragment
/// unsets one of their options, others that depend on it are lost, too.
const DRIVERS: [&str; 15] = [
    "drivers",
    "sound",
    "fs/afs",
    "net/6lowpan",
    "net/atm",
    "net/ax25",
    "net/batman-adv",
    "net/bluetooth",
    "net/can",
    "net/ieee802154",
    "net/mac80211",
    "net/mac802154",
    "net/nfc",
    "net/rfkill",
    "net/wireless",
];

/// Drivers that every server needs, or that protect it. None of their options may be lost.
const NEEDED_DRIVERS: [&str; 14] = [
    "drivers/block",
    "drivers/char/hw_random",
    "drivers/char/tpm",
    "drivers/clocksource",
    "drivers/crypto",
    "drivers/hv",
    "drivers/iommu",
    "drivers/md",
    "drivers/net/ethernet",
    "drivers/nvme",
    "drivers/pci",
    "drivers/virt",
    "drivers/virtio",
    "drivers/xen",
];

/// The value of each option; `n` for an option that is not set.
#[derive(Debug, Default)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    /// Reads files; a later file overrides an earlier one, as in `merge_config.sh`.
    pub fn read(fragments: &[PathBuf]) -> Result<Self> {
        let mut settings = Self::default();
        for file in fragments {
            let text = fs::read_to_string(file)?;
            settings.add(&text);
        }
        Ok(settings)
    }

    fn add(&mut self, text: &str) {
        for (name, value) in text.lines().filter_map(setting) {
            self.0.insert(name.to_owned(), value.to_owned());
        }
    }

    /// Fails if an option is set that the kernel does not have. Debian's configuration has options
    /// of Debian's patches, among them security defaults; each must be replaced or dropped
    /// explicitly.
    pub fn require_known(&self, unknown: &[String]) -> Result<()> {
        let lost = self.set_among(unknown);
        if lost.is_empty() {
            return Ok(());
        }
        bail!("options unknown to this kernel: {}; set or unset them in kernel-patches/config", lost.join(", "))
    }

    /// Removes options.
    pub fn remove(&mut self, names: &[String]) {
        self.0.retain(|name, _| !names.contains(name));
    }

    fn set_among<'a>(&self, names: &'a [String]) -> Vec<&'a str> {
        names.iter().map(String::as_str).filter(|name| self.value(name) != "n").collect()
    }

    fn value(&self, name: &str) -> &str {
        self.0.get(name).map_or("n", String::as_str)
    }

    /// The value of an option that is a number.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.value(name).parse().ok()
    }

    /// Fails if `ours`, which was made from this configuration of Debian's and from `fragments`,
    /// differs in an option that the fragments do not set. Options of drivers may be lost, because
    /// they depend on drivers that the fragments unset. Returns their number. `source` is the
    /// kernel's source.
    pub fn require_kept(&self, fragments: &Self, ours: &Self, source: &Path) -> Result<usize> {
        let places = places(source)?;
        let names: BTreeSet<_> = self.0.keys().chain(ours.0.keys()).collect();
        let differ = |name: &str| self.value(name) != ours.value(name) && !fragments.0.contains_key(name);
        let differing: Vec<_> = names.into_iter().filter(|name| differ(name)).collect();
        // Debian's kernel has no Rust, so its configuration does not have this option.
        let of_rust = |name: &str| name.starts_with("CONFIG_RUST_");
        let is_lost = |name: &str| {
            ours.value(name) == "n" && places.get(name).is_some_and(|files| files.iter().all(|file| is_driver(file)))
        };
        let (lost, others): (Vec<_>, Vec<_>) = differing.into_iter().partition(|name| is_lost(name));
        let wrong: Vec<_> = others
            .into_iter()
            .filter(|name| !OF_THE_BUILD.contains(&name.as_str()) && !of_rust(name))
            .map(|name| format!("{name}={} (Debian: {})", ours.value(name), self.value(name)))
            .collect();
        if wrong.is_empty() {
            return Ok(lost.len());
        }
        bail!("options differ from Debian's, but kernel-patches/config does not set them: {}", wrong.join(", "))
    }

    /// Fails if the configuration in `file` differs in an option that is set here.
    pub fn require_in(&self, file: &Path) -> Result<()> {
        let text = fs::read_to_string(file)?;
        let broken = self.broken(&text);
        if broken.is_empty() {
            return Ok(());
        }
        bail!(
            "the kernel does not accept these options of kernel-patches/config \
             (renamed, or a dependency is missing): {}",
            broken.join(", ")
        )
    }

    fn broken(&self, config: &str) -> Vec<String> {
        let mut found = Self::default();
        found.add(config);
        self.0
            .iter()
            .filter(|(name, value)| found.value(name) != value.as_str())
            .map(|(name, value)| format!("{name}={value} (is {})", found.value(name)))
            .collect()
    }
}

/// The Kconfig files that define each option, relative to the kernel's source.
fn places(source: &Path) -> Result<BTreeMap<String, BTreeSet<PathBuf>>> {
    let mut places: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
    for entry in WalkDir::new(source) {
        let entry = entry?;
        let file = entry.path().strip_prefix(source)?;
        let other_machine =
            file.starts_with("arch") && !file.starts_with("arch/x86") && file != Path::new("arch/Kconfig");
        if !file_name(file).starts_with("Kconfig") || other_machine || !entry.file_type().is_file() {
            continue;
        }
        for name in fs::read_to_string(entry.path())?.lines().filter_map(defined) {
            places.entry(format!("CONFIG_{name}")).or_default().insert(file.to_owned());
        }
    }
    Ok(places)
}

/// The option that a line of a Kconfig file defines.
/// <https://docs.kernel.org/kbuild/kconfig-language.html>
fn defined(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    words.next().filter(|word| matches!(*word, "config" | "menuconfig")).and(words.next())
}

fn is_driver(file: &Path) -> bool {
    let is_in = |folders: &[&str]| folders.iter().any(|folder| file.starts_with(folder));
    is_in(&DRIVERS) && !is_in(&NEEDED_DRIVERS)
}

/// The option and value of one line of a configuration.
fn setting(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_end();
    if let Some(rest) = line.strip_prefix("# CONFIG_") {
        let name = rest.strip_suffix(" is not set")?;
        return Some((&line[2..line.len() - (rest.len() - name.len())], "n"));
    }
    line.split_once('=').filter(|(name, _)| name.starts_with("CONFIG_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_options_are_named() {
        let mut settings = Settings::default();
        settings.add("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=m\nCONFIG_D=y\n");
        let unknown: Vec<_> = [
            "make: Entering directory",
            ".config:3:warning: unknown symbol: B",
            ".config:4:warning: unknown symbol: C",
            ".config:5:warning: unknown symbol: E",
        ]
        .into_iter()
        .filter_map(unknown)
        .collect();
        assert_eq!(unknown, ["CONFIG_B", "CONFIG_C", "CONFIG_E"]);
        assert_eq!(settings.set_among(&unknown), ["CONFIG_C"]);
        settings.remove(&unknown);
        assert!(settings.set_among(&unknown).is_empty());
    }

    #[test]
    fn a_difference_from_debian_that_no_fragment_sets_is_named() {
        let source = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("drivers/net/Kconfig", "config A\n\tbool \"A\"\nmenuconfig B\n"),
            ("drivers/iommu/Kconfig", "config C\n"),
            ("lib/Kconfig.debug", "config D\n"),
            ("sound/Kconfig", "if B\n  config E\nendif\nconfig D\n"),
        ] {
            let file = source.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let settings = |text: &str| {
            let mut settings = Settings::default();
            settings.add(text);
            settings
        };
        let debian = settings("CONFIG_A=m\nCONFIG_B=y\nCONFIG_C=y\nCONFIG_D=y\nCONFIG_E=m\nCONFIG_F=\"x\"\n");
        let fragments = settings("# CONFIG_B is not set\nCONFIG_RUST=y\n");
        let check = |ours: &str| {
            let ours = settings(&format!("CONFIG_RUST=y\nCONFIG_RUST_OVERFLOW_CHECKS=y\n{ours}"));
            debian.require_kept(&fragments, &ours, source.path()).map_err(|error| error.to_string())
        };
        assert_eq!(check("CONFIG_A=m\nCONFIG_C=y\nCONFIG_D=y\nCONFIG_E=m\nCONFIG_F=\"x\"\n"), Ok(0));
        assert_eq!(check("CONFIG_C=y\nCONFIG_D=y\nCONFIG_F=\"x\"\nCONFIG_BUILD_SALT=\"\"\n"), Ok(2));
        let error = check("CONFIG_A=y\nCONFIG_F=\"y\"\nCONFIG_G=y\n").unwrap_err();
        let named = "CONFIG_A=y (Debian: m), CONFIG_C=n (Debian: y), CONFIG_D=n (Debian: y), \
                     CONFIG_F=\"y\" (Debian: \"x\"), CONFIG_G=y (Debian: n)";
        assert!(error.ends_with(named), "{error}");
    }

    #[test]
    fn options_that_were_not_accepted_are_named() {
        let mut wanted = Settings::default();
        wanted.add("# a comment\nCONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\nCONFIG_D=\"x\"\n");
        wanted.add("# CONFIG_B is not set\n# CONFIG_E is not set\nCONFIG_F=64\n");
        let accepted = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_D=\"x\"\nCONFIG_F=64\n";
        assert_eq!(wanted.broken(accepted), [""; 0]);
        let config = "CONFIG_A=m\nCONFIG_B=y\nCONFIG_C=y\nCONFIG_D=\"y\"\n";
        assert_eq!(
            wanted.broken(config),
            [
                "CONFIG_A=y (is m)",
                "CONFIG_B=n (is y)",
                "CONFIG_C=n (is y)",
                "CONFIG_D=\"x\" (is \"y\")",
                "CONFIG_F=64 (is n)"
            ]
        );
    }
}
