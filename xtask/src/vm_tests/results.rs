// SPDX-License-Identifier: GPL-2.0-only
//! The results of the tests in QEMU on one kernel series, in `target/results/SERIES.json`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::sources::patches;
use crate::stamp::{Recipe, write_atomically};
use crate::workspace::Workspace;

/// How a test ended.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Passed,
    Failed,
    /// It is ignored, was not chosen, or has not come to its end.
    NotRun,
}

/// The names of a program's tests, and how they ended.
pub type Outcomes = BTreeMap<String, Outcome>;

/// The folders whose files run in a guest or in the Debian VM, or make what runs there, in addition
/// to the patches of the series.
const INPUTS: [&str; 6] = ["iptables-patches", "kernel-patches/config", "libxt", "module", "vm-tests", "xtask/deb"];

/// The results of one state of the code on one kernel.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Results {
    /// The version of the kernel's source.
    pub kernel: String,
    /// The hash of the files that the results depend on.
    pub inputs: String,
    /// The commit of the last run, followed by `+` if the work tree differs.
    pub commit: String,
    /// The day of the last run, in UTC.
    pub date: String,
    /// The tests of each program.
    pub programs: BTreeMap<String, Outcomes>,
}

impl Results {
    fn file(ws: &Workspace, series: &str) -> PathBuf {
        ws.target("results").join(format!("{series}.json"))
    }

    /// The results of a series.
    ///
    /// # Errors
    /// When there are none.
    pub fn read(ws: &Workspace, series: &str) -> Result<Self> {
        let file = Self::file(ws, series);
        let text = fs::read(&file).with_context(|| format!("no tests have run on {series}"))?;
        serde_json::from_slice(&text).with_context(|| format!("cannot parse {}", file.display()))
    }

    /// Empty results for a run of the current files.
    ///
    /// # Errors
    /// When pins.toml does not have the series, or a file cannot be read.
    pub fn of_now(ws: &Workspace, series: &str) -> Result<Self> {
        let mut recipe = Recipe::new("test results");
        for folder in INPUTS {
            recipe = recipe.folder(&ws.repo().join(folder))?;
        }
        for patch in patches::files(&ws.repo().join("kernel-patches").join(series))? {
            recipe = recipe.file(&patch)?;
        }
        Ok(Self {
            kernel: ws.pins().kernel_source(series)?.version.clone(),
            inputs: recipe.stamp().short().to_owned(),
            commit: ws.commit(),
            date: Timestamp::now().strftime("%Y-%m-%d").to_string(),
            programs: BTreeMap::new(),
        })
    }

    /// Begins the file of the series for a run. `tests` are the names of all tests, by program.
    /// Results of the same files and of the same version of the kernel stay. Others are dropped: a
    /// table must not mix them.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn begin<'a>(
        self,
        ws: &Workspace,
        series: &str,
        tests: impl Iterator<Item = (&'a str, &'a [String])>,
    ) -> Result<()> {
        let old = Self::read(ws, series).unwrap_or_default();
        fs::create_dir_all(ws.target("results"))?;
        self.after(&old, tests).write(ws, series)
    }

    /// Adds the results of a run to the file.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn add(ws: &Workspace, series: &str, program: &str, outcomes: Outcomes) -> Result<()> {
        // Two programs can end at the same time.
        static FILES: Mutex<()> = Mutex::new(());
        let _only = FILES.lock().unwrap_or_else(PoisonError::into_inner);
        let mut results = Self::read(ws, series)?;
        results.programs.entry(program.to_owned()).or_default().extend(outcomes);
        results.write(ws, series)
    }

    fn write(&self, ws: &Workspace, series: &str) -> Result<()> {
        write_atomically(&Self::file(ws, series), serde_json::to_string_pretty(self)?.as_bytes())
    }

    /// All tests, with the results of `old` if they are for the same files and kernel.
    fn after<'a>(mut self, old: &Self, tests: impl Iterator<Item = (&'a str, &'a [String])>) -> Self {
        let same = (&self.kernel, &self.inputs) == (&old.kernel, &old.inputs);
        for (program, names) in tests {
            let known = old.programs.get(program).filter(|_| same);
            let outcome = |name| known.and_then(|known| known.get(name)).copied().unwrap_or(Outcome::NotRun);
            let outcomes = names.iter().map(|name| (name.clone(), outcome(name))).collect();
            self.programs.insert(program.to_owned(), outcomes);
        }
        self
    }
}

/// The name and the outcome in a line that libtest prints for a test. The text before the name is
/// `test `, and `--nocapture` can put output of the test before it.
pub fn parse_line(line: &str) -> Option<(&str, Outcome)> {
    let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let outcome = match outcome.trim_end() {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed,
        other if other.starts_with("ignored") => Outcome::NotRun,
        _ => return None,
    };
    Some((name.strip_suffix(" - should panic").unwrap_or(name), outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(of: &[(&str, Outcome)]) -> Outcomes {
        of.iter().map(|(name, outcome)| ((*name).to_owned(), *outcome)).collect()
    }

    #[test]
    fn the_lines_of_libtest_are_understood() {
        for (line, expected) in [
            ("test mirror::a ... ok", Some(("mirror::a", Outcome::Passed))),
            ("test mirror::a ... FAILED", Some(("mirror::a", Outcome::Failed))),
            ("test b - should panic ... ok", Some(("b", Outcome::Passed))),
            ("test b ... ignored, for a reason", Some(("b", Outcome::NotRun))),
            ("test result: ok. 3 passed; 0 failed", None),
            ("test mirror::a has been running for over 60 seconds", None),
            ("running 3 tests", None),
        ] {
            assert_eq!(parse_line(line), expected, "{line}");
        }
    }

    #[test]
    fn results_of_the_same_files_and_kernel_stay() {
        let at = |kernel: &str, inputs: &str| Results {
            kernel: kernel.to_owned(),
            inputs: inputs.to_owned(),
            ..Results::default()
        };
        let names = ["one", "new"].map(str::to_owned);
        let tests = || [("guest", &names[..]), ("fast", &names[1..])].into_iter();
        let mut old = at("6.12.1-1", "a");
        old.programs.insert("guest".to_owned(), outcomes(&[("one", Outcome::Passed), ("gone", Outcome::Passed)]));
        let same = at("6.12.1-1", "a").after(&old, tests());
        assert_eq!(same.programs["guest"], outcomes(&[("one", Outcome::Passed), ("new", Outcome::NotRun)]));
        assert_eq!(same.programs["fast"], outcomes(&[("new", Outcome::NotRun)]));
        for now in [at("6.12.2-1", "a"), at("6.12.1-1", "b")] {
            let fresh = now.clone().after(&old, tests());
            assert_eq!(fresh.programs["guest"], outcomes(&[("one", Outcome::NotRun), ("new", Outcome::NotRun)]));
            assert_eq!((fresh.kernel, fresh.inputs), (now.kernel, now.inputs));
        }
    }
}
