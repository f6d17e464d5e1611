// SPDX-License-Identifier: GPL-2.0
//! Kernel configurations and fragments of them: what they ask for, and whether the kernel took it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// Has make's configuration targets name the options that the kernel does not have.
pub const NAME_THE_UNKNOWN: &str = "KCONFIG_WARN_UNKNOWN_SYMBOLS=1";

/// The option that a line of such a target's output says the kernel does not have.
pub fn unknown(line: &str) -> Option<String> {
    line.split_once(":warning: unknown symbol: ").map(|(_, name)| format!("CONFIG_{name}"))
}

/// The value of each option, `n` for one that must not be set.
#[derive(Debug, Default)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    /// Reads files; a later one overrides an earlier one, as in `merge_config.sh`.
    pub fn read(fragments: &[PathBuf]) -> Result<Self> {
        let mut settings = Self::default();
        for file in fragments {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            settings.add(&text);
        }
        Ok(settings)
    }

    fn add(&mut self, text: &str) {
        for (name, value) in text.lines().filter_map(setting) {
            self.0.insert(name.to_owned(), value.to_owned());
        }
    }

    /// An error that names each option that is set although the kernel does not have it: what such an
    /// option of Debian's does, a security default perhaps, would be lost without a word.
    pub fn require_known(&self, unknown: &[String]) -> Result<()> {
        let lost = self.set_among(unknown);
        if lost.is_empty() {
            return Ok(());
        }
        bail!("this kernel does not have {}: say in kernel-patches/config what becomes of them", lost.join(", "))
    }

    fn set_among<'a>(&self, names: &'a [String]) -> Vec<&'a str> {
        names.iter().map(String::as_str).filter(|name| self.value(name) != "n").collect()
    }

    fn value(&self, name: &str) -> &str {
        self.0.get(name).map_or("n", String::as_str)
    }

    /// An error that names each option that the configuration at `file` does not have as it is here.
    pub fn require_in(&self, file: &Path) -> Result<()> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let broken = self.broken(&text);
        if broken.is_empty() {
            return Ok(());
        }
        bail!(
            "the kernel does not take these options of kernel-patches/config \
             (renamed, or something that they need is missing): {}",
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
    fn what_the_kernel_does_not_have_is_named() {
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
    fn what_was_not_taken_is_named() {
        let mut wishes = Settings::default();
        wishes.add("# a comment\nCONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\nCONFIG_D=\"x\"\n");
        wishes.add("# CONFIG_B is not set\n# CONFIG_E is not set\nCONFIG_F=64\n");
        let taken = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_D=\"x\"\nCONFIG_F=64\n";
        assert_eq!(wishes.broken(taken), [""; 0]);
        let config = "CONFIG_A=m\nCONFIG_B=y\nCONFIG_C=y\nCONFIG_D=\"y\"\n";
        assert_eq!(
            wishes.broken(config),
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
