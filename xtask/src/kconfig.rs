// SPDX-License-Identifier: GPL-2.0
//! Kernel configuration fragments: what they ask for, and whether the kernel took it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// What fragments ask for: the value of each option, `n` for one that must not be set.
#[derive(Debug, Default)]
pub struct Wishes(BTreeMap<String, String>);

impl Wishes {
    /// Reads fragments; a later one overrides an earlier one, as in `merge_config.sh`.
    pub fn read(fragments: &[PathBuf]) -> Result<Self> {
        let mut wishes = Self::default();
        for file in fragments {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            wishes.add(&text);
        }
        Ok(wishes)
    }

    fn add(&mut self, text: &str) {
        for (name, value) in text.lines().filter_map(setting) {
            self.0.insert(name.to_owned(), value.to_owned());
        }
    }

    /// An error that names each option that the configuration at `file` does not have as wished.
    pub fn check(&self, file: &Path) -> Result<()> {
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
        let is = |name: &str| found.0.get(name).map_or("n", String::as_str);
        self.0
            .iter()
            .filter(|(name, value)| is(name) != value.as_str())
            .map(|(name, value)| format!("{name}={value} (is {})", is(name)))
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
    fn what_was_not_taken_is_named() {
        let mut wishes = Wishes::default();
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
