// SPDX-License-Identifier: GPL-2.0-only
//! The table in the README: how many tests of each feature passed on each kernel series.

use anyhow::{Context, Result};
use fs_err as fs;

use super::features::{self, Feature};
use super::results::{Outcome, Results};
use crate::markdown::{self, Row};
use crate::stamp::write_atomically;
use crate::workspace::Workspace;

/// The document, relative to the repository.
const DOCUMENT: &str = "README.md";
/// The name in the markers.
const MARKER: &str = "tests:series";

/// Writes the table from the results of all series.
///
/// # Errors
/// When a series has no results, or the document has no markers.
pub fn write(ws: &Workspace) -> Result<()> {
    let results = ws.pins().kernel.all_series().map(|series| Ok((series, Results::read(ws, series)?)));
    let table = table(&results.collect::<Result<Vec<_>>>()?)?;
    let file = ws.repo().join(DOCUMENT);
    let mut text = fs::read_to_string(&file)?;
    let range = markdown::between(&text, MARKER).with_context(|| format!("cannot update {DOCUMENT}"))?;
    text.replace_range(range, &table);
    write_atomically(&file, text.as_bytes())
}

/// The table of the results, a column for each series.
fn table(results: &[(&str, Results)]) -> Result<String> {
    let header: Vec<_> =
        ["feature".to_owned()].into_iter().chain(results.iter().map(|(series, _)| format!("{series}:"))).collect();
    let row = |name: &str, cell: &dyn Fn(&Results) -> Result<String>| -> Result<Row> {
        let cells = results.iter().map(|(_, results)| cell(results));
        [Ok(name.to_owned())].into_iter().chain(cells).collect()
    };
    let mut rows = Vec::new();
    for feature in Feature::ALL {
        rows.push(row(feature.name(), &|results| count(results, Some(feature)))?);
    }
    rows.push(row("**all tests**", &|results| count(results, None))?);
    rows.push(row("version of the kernel", &|results| Ok(results.kernel.clone()))?);
    rows.push(row("day of the run", &|results| Ok(results.date.clone()))?);
    rows.push(row("commit", &|results| Ok(short(&results.commit)))?);
    Ok(markdown::table(&header, rows))
}

/// How many tests passed. If others failed or were not run, also how many there are. A number of
/// failed tests tells these from those that were not run.
fn count(results: &Results, of: Option<Feature>) -> Result<String> {
    let (mut passed, mut failed, mut all) = (0, 0, 0);
    for (program, outcomes) in &results.programs {
        for (test, outcome) in outcomes {
            let feature = features::feature(program, test)?;
            if of.is_none_or(|of| feature == of) {
                all += 1;
                passed += usize::from(*outcome == Outcome::Passed);
                failed += usize::from(*outcome == Outcome::Failed);
            }
        }
    }
    Ok(match (passed, failed) {
        (0, 0) => "not run".to_owned(),
        _ if passed == all => passed.to_string(),
        (_, 0) => format!("{passed} of {all}"),
        _ => format!("{passed} of {all}, {failed} failed"),
    })
}

/// The first twelve digits of a commit, with the `+` of a work tree that differs.
fn short(commit: &str) -> String {
    let id: String = commit.trim_end_matches('+').chars().take(12).collect();
    id + if commit.ends_with('+') { "+" } else { "" }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::markdown::tests::without_padding;
    use crate::sources::pins::Pins;

    fn results(tests: &[(&str, &str, Outcome)]) -> Results {
        let mut programs: BTreeMap<String, BTreeMap<String, Outcome>> = BTreeMap::new();
        for (program, test, outcome) in tests {
            programs.entry((*program).to_owned()).or_default().insert((*test).to_owned(), *outcome);
        }
        let commit = "0123456789abcdef+".to_owned();
        Results { kernel: "6.12.1-1".to_owned(), commit, date: "2026-01-02".to_owned(), programs, ..Results::default() }
    }

    #[test]
    fn a_cell_says_how_many_tests_passed() {
        let one = results(&[
            ("guest", "mirror::a", Outcome::Passed),
            ("guest", "isolation::b", Outcome::Passed),
            ("guest", "rules::c::nft", Outcome::Passed),
            ("guest", "rules::c::legacy", Outcome::Failed),
            ("fast", "d", Outcome::NotRun),
            ("fast", "memory::e", Outcome::Passed),
            ("fast", "memory::f", Outcome::NotRun),
            ("fast", "memory::g", Outcome::Failed),
        ]);
        let other = results(&[("guest", "mirror::a", Outcome::Failed), ("deploy", "deploy", Outcome::NotRun)]);
        let text = table(&[("6.12", one), ("7.3", other)]).unwrap();
        let lines: Vec<_> = text.lines().map(without_padding).collect();
        for expected in [
            "| feature | 6.12 | 7.3 |",
            "| the hook PROMISC | 2 | 0 of 1, 1 failed |",
            "| rules, iptables-nft | 1 | not run |",
            "| rules, iptables-legacy | 0 of 1, 1 failed | not run |",
            "| memory, full tables, sweeps | 1 of 4, 1 failed | not run |",
            "| deployment of the packages | not run | not run |",
            "| **all tests** | 4 of 8, 2 failed | 0 of 2, 1 failed |",
            "| commit | 0123456789ab+ | 0123456789ab+ |",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{expected}\n{text}");
        }
    }

    #[test]
    fn a_test_of_an_unknown_module_is_an_error() {
        assert!(table(&[("6.12", results(&[("guest", "new::test", Outcome::Passed)]))]).is_err());
    }

    #[test]
    fn the_document_has_each_series_and_each_feature() {
        let document = include_str!("../../../README.md");
        let shown = &document[markdown::between(document, MARKER).unwrap()];
        let pins = Pins::parse(include_str!("../../pins.toml")).unwrap();
        let columns: String = pins.kernel.all_series().map(|series| format!(" {series} |")).collect();
        assert_eq!(without_padding(shown.lines().next().unwrap()), format!("| feature |{columns}"));
        let first_cells: Vec<_> = shown.lines().skip(2).map(|line| line.split('|').nth(1).unwrap().trim()).collect();
        let names: Vec<_> = Feature::ALL.iter().map(|feature| feature.name()).collect();
        assert_eq!(first_cells[..names.len()], names);
    }
}
