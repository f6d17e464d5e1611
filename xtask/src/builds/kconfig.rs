// SPDX-License-Identifier: GPL-2.0-only
//! Kernel configuration fragments: the options they set, and whether the kernel accepted them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use fs_err as fs;

/// Makes the configuration targets warn of options that the kernel does not have.
/// <https://docs.kernel.org/kbuild/kconfig.html>
pub const WARN_UNKNOWN: &str = "KCONFIG_WARN_UNKNOWN_SYMBOLS=1";

/// The option in a warning of [`WARN_UNKNOWN`].
pub fn unknown(line: &str) -> Option<String> {
    line.split_once(":warning: unknown symbol: ").map(|(_, name)| format!("CONFIG_{name}"))
}

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

    fn set_among<'a>(&self, names: &'a [String]) -> Vec<&'a str> {
        names.iter().map(String::as_str).filter(|name| self.value(name) != "n").collect()
    }

    fn value(&self, name: &str) -> &str {
        self.0.get(name).map_or("n", String::as_str)
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
