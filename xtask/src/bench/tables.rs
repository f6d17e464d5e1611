// SPDX-License-Identifier: GPL-2.0-only
//! The figures of a report as Markdown tables, for the terminal and for `docs/performance.md`.
//! There, each table is between two markers, `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`.

use std::fmt::Display;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use indicatif::HumanCount;

use super::instructions::{Cost, MOST, Reading, by_series};
use super::native;
use super::rate::Rate;
use super::report::{Origin, Report};
use super::targets::{Bound, Target};
use crate::markdown::{self, Row};
use crate::stamp::write_atomically;
use crate::workspace::Workspace;

/// The document, relative to the repository.
const DOCUMENT: &str = "docs/performance.md";

/// A table.
struct Table {
    /// The title on the terminal, and the name in the markers.
    name: &'static str,
    /// The names of the columns. Those with a colon at the end are aligned to the right.
    header: fn(&Report) -> Vec<String>,
    rows: fn(&Report) -> Vec<Row>,
}

const TABLES: &[Table] = &[
    Table { name: "machine", header: |_| columns(&["", ""]), rows: machine },
    Table { name: "targets", header: |_| columns(&["figure", "target:", "result:", ""]), rows: targets },
    Table { name: "instructions", header: instructions_header, rows: instructions },
    Table {
        name: "reading",
        header: |_| columns(&["rows:", "million instructions:", "instructions per row:"]),
        rows: reading,
    },
    Table { name: "rates", header: |_| columns(&["counter", "packets per second without loss:", ""]), rows: rates },
    Table {
        name: "nanoseconds",
        header: |_| columns(&["addresses", "1:", "256:", "65,536:", "1,000,000:"]),
        rows: nanoseconds,
    },
];

fn columns(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

impl Table {
    /// The table in Markdown.
    fn markdown(&self, report: &Report) -> String {
        markdown::table(&(self.header)(report), (self.rows)(report))
    }

    /// The range of the table in the document, between its markers.
    fn range(&self, document: &str) -> Result<Range<usize>> {
        markdown::between(document, &format!("bench:{}", self.name))
    }
}

/// The tables with the given names, or all tables if there are no names.
fn named(names: &[&str]) -> impl Iterator<Item = &'static Table> {
    TABLES.iter().filter(move |table| names.is_empty() || names.contains(&table.name))
}

/// Prints the tables with the given names, or all tables if there are no names.
pub fn print(report: &Report, names: &[&str]) {
    for table in named(names) {
        println!("{}\n\n{}", table.name, table.markdown(report));
    }
}

/// Writes the tables with the given names to the document, or all tables if there are no names.
///
/// # Errors
/// If the document lacks a marker, if the report lacks a kernel series, or if all tables are wanted
/// and the report is from a short run.
pub fn write(ws: &Workspace, report: &Report, names: &[&str]) -> Result<()> {
    let all = ws.pins().kernel.all_series().all(|series| self::series(report).any(|of| of == series));
    ensure!(all, "the tables are for all kernel series: use --series all");
    let complete = !report.origin.quick || !names.is_empty();
    ensure!(complete, "the report is from a run with --quick: its figures are not precise enough");
    let file = ws.repo().join(DOCUMENT);
    let text =
        replace(&fs::read_to_string(&file)?, report, names).with_context(|| format!("cannot update {DOCUMENT}"))?;
    write_atomically(&file, text.as_bytes())
}

/// The document with the [`named`] tables of the report between its markers.
fn replace(document: &str, report: &Report, names: &[&str]) -> Result<String> {
    let mut text = document.to_owned();
    for table in named(names) {
        text.replace_range(table.range(&text)?, &table.markdown(report));
    }
    Ok(text)
}

fn machine(report: &Report) -> Vec<Row> {
    let Origin { cpu, cpus, caches, kernels, config, xtables_addons, .. } = &report.origin;
    let row = |name: &str, value: &dyn Display| vec![name.to_owned(), value.to_string()];
    vec![
        row("CPU", cpu),
        row("processors", cpus),
        row("caches", caches),
        row("kernels of the guests", &format!("{}, configuration `{config}`", kernels.join(" and "))),
        row("xtables-addons", xtables_addons),
    ]
}

fn targets(report: &Report) -> Vec<Row> {
    let row = |Target { what, value, bound, met }: &Target| {
        let bound = match bound {
            Bound::AtMost(most) => format!("at most {most}"),
            Bound::AtLeast(least) => format!("at least {least}"),
        };
        let result = if *value < 5.0 { format!("{value:.2}") } else { format!("{value:.1}") };
        vec![code(what), bound, result, mark(*met).into()]
    };
    report.targets.iter().map(row).collect()
}

/// The series in the table of instructions.
fn series(report: &Report) -> impl Iterator<Item = &str> {
    by_series(&report.instructions).map(|costs| costs[0].series.as_str())
}

fn instructions_header(report: &Report) -> Vec<String> {
    let group = |series| [format!("{series}: instructions:"), "added:".into(), "limit:".into(), String::new()];
    ["case".to_owned()].into_iter().chain(series(report).flat_map(group)).collect()
}

/// A row for each case, with the cells of all series.
fn instructions(report: &Report) -> Vec<Row> {
    let cells = |cost: &Cost| {
        // Without a decimal, 230.4 instructions would not look above the limit 230.
        let near = cost.limit.is_some_and(|limit| cost.added > limit && cost.added <= limit + 0.5);
        let digits = usize::from(near);
        let added = match cost.limit {
            Some(0.0) => format!("{:.0}", cost.added.abs()),
            _ if cost.added > 0.0 => format!("{:.digits$}", cost.added),
            _ => String::new(),
        };
        let limit = cost.limit.map(|limit| limit.to_string()).unwrap_or_default();
        let mark = cost.met().map(mark).unwrap_or_default();
        [format!("{:.0}", cost.instructions), added, limit, mark.into()]
    };
    let Some(first) = series(report).next() else { return Vec::new() };
    let with = |case: &str, series: &str| {
        let is_wanted = |cost: &&Cost| cost.addresses == MOST && cost.case == case && cost.series == series;
        report.instructions.iter().find(is_wanted).map_or_else(Default::default, cells)
    };
    let row = |case: &str| [code(case)].into_iter().chain(series(report).flat_map(|of| with(case, of))).collect();
    let cases = report.instructions.iter().filter(|cost| cost.addresses == MOST && cost.series == first);
    cases.map(|cost| row(&cost.case)).collect()
}

fn reading(report: &Report) -> Vec<Row> {
    let Reading { rows, instructions } = report.reading;
    let per_row = instructions / f64::from(rows);
    vec![vec![grouped(rows.into(), 1.0), format!("{:.0}", instructions / 1e6), grouped(per_row, 100.0)]]
}

/// The fastest counter first.
fn rates(report: &Report) -> Vec<Row> {
    let mut rates: Vec<_> = report.rates.iter().collect();
    rates.sort_by(|a, b| b.packets.total_cmp(&a.packets));
    let row = |rate: &&Rate| {
        let name = format!("{} {}", code(&rate.counter), rate.version);
        let note = if rate.receive_limit { "limit of the receive path" } else { "" };
        vec![name.trim_end().to_owned(), grouped(rate.packets, 1000.0), note.to_owned()]
    };
    rates.iter().map(row).collect()
}

/// The rows of the table of nanoseconds: name, and the id for [`native::find`] with an `N` for the
/// number of addresses.
const TIMES: &[(&str, &str)] = &[
    ("draw", "draw/nothing/1"),
    ("`--traffic`, direct, hot", "hot/traffic/16/N"),
    ("`--traffic`, direct, mixed", "mixed/traffic/16/N"),
    ("`--traffic`, direct, cold", "cold/traffic/16/N"),
    ("`--traffic`, hashed, hot", "hot/traffic/8/N"),
    ("`--traffic`, hashed, mixed", "mixed/traffic/8/N"),
    ("`--traffic`, hashed, cold", "cold/traffic/8/N"),
    ("all three, direct, hot", "hot/all/16/N"),
    ("all three, direct, cold", "cold/all/16/N"),
    ("all three, hashed, hot", "hot/all/8/N"),
    ("all three, hashed, cold", "cold/all/8/N"),
    ("`--traffic`, direct, two threads", "threads/traffic/16/N/2"),
    ("`--traffic`, hashed, two threads", "threads/traffic/8/N/2"),
    ("`--traffic`, direct, read", "read/traffic/16/N"),
];

fn nanoseconds(report: &Report) -> Vec<Row> {
    let cell = |id: &str, addresses: &str| {
        // A time that does not depend on the number of addresses is in the first column.
        if !id.contains('N') && addresses != "1" {
            return String::new();
        }
        let time = native::find(&report.native, &id.replace('N', addresses));
        time.map(|time| if time < 10.0 { format!("{time:.1}") } else { format!("{time:.0}") }).unwrap_or_default()
    };
    let row = |(name, id): &(&str, &str)| {
        let cells = ["1", "256", "65536", "1000000"].map(|addresses| cell(id, addresses));
        [name.to_string()].into_iter().chain(cells).collect()
    };
    TIMES.iter().map(row).collect()
}

fn mark(met: bool) -> &'static str {
    if met { "met" } else { "**missed**" }
}

/// A text with its command-line options as inline code.
fn code(text: &str) -> String {
    let quoted = |word: &str| match word.strip_suffix(',') {
        _ if !word.starts_with("--") => word.to_owned(),
        Some(option) => format!("`{option}`,"),
        None => format!("`{word}`"),
    };
    text.split(' ').map(quoted).collect::<Vec<_>>().join(" ").replace("` `", " ")
}

/// A number, rounded to a multiple of `unit`, with commas between thousands.
fn grouped(number: f64, unit: f64) -> String {
    HumanCount(((number / unit).round() * unit) as u64).to_string()
}

#[cfg(test)]
mod tests {
    use super::{
        super::report::tests::{cost, report},
        *,
    };
    use crate::markdown::tests::without_padding;

    /// Text between the markers of all tables, and around them.
    fn document(between: &str) -> String {
        let part =
            |Table { name, .. }: &Table| format!("before\n<!-- bench:{name} -->\n{between}<!-- /bench:{name} -->\n");
        TABLES.iter().map(part).collect::<String>() + "end\n"
    }

    #[test]
    fn exactly_the_text_between_markers_is_replaced() {
        let mut text = replace(&document("old\n"), &report(), &[]).unwrap();
        assert_eq!(replace(&text, &report(), &[]).unwrap(), text);
        for table in TABLES {
            let markdown = table.markdown(&report());
            assert_eq!(text[table.range(&text).unwrap()], markdown);
            text = text.replacen(&markdown, "", 1);
        }
        assert_eq!(text, document(""));
    }

    #[test]
    fn only_the_named_tables_are_replaced() {
        let old = document("old\n");
        let new = replace(&old, &report(), &["rates"]).unwrap();
        for table in TABLES {
            let expected = if table.name == "rates" { table.markdown(&report()) } else { "old\n".to_owned() };
            assert_eq!(new[table.range(&new).unwrap()], expected, "{}", table.name);
        }
    }

    #[test]
    fn a_missing_marker_is_an_error() {
        for Table { name, .. } in TABLES {
            for marker in [format!("<!-- bench:{name} -->"), format!("<!-- /bench:{name} -->")] {
                let error = replace(&document("").replace(&marker, ""), &report(), &[]).unwrap_err().to_string();
                assert!(error.contains(&marker), "{error}");
            }
        }
    }

    #[test]
    fn the_tables_have_the_figures_of_the_report() {
        for (name, row) in [
            ("machine", "| kernels of the guests | 6.12.1-1 and 7.3.1-1, configuration `test` |"),
            ("targets", "| a target | at most 0.8 | 0.75 | met |"),
            ("targets", "| a target | at most 0.8 | 0.85 | **missed** |"),
            ("instructions", "| case | 6.12: instructions | added | limit | | 7.3: instructions | added | limit | |"),
            ("instructions", "| `--traffic`, hashed | 1500 | 250 | 245 | **missed** | 1500 | 250 | 245 | **missed** |"),
            ("reading", "| 65,536 | 66 | 1,000 |"),
            ("rates", "| one 1 | 64,000 | limit of the receive path |"),
            ("nanoseconds", "| `--traffic`, direct, hot | 9.0 | | 9.0 | |"),
            ("nanoseconds", "| `--traffic`, direct, two threads | 9.0 | | | |"),
            ("nanoseconds", "| draw | | | | |"),
        ] {
            let table = TABLES.iter().find(|table| table.name == name).unwrap().markdown(&report());
            assert!(table.lines().any(|line| without_padding(line) == row), "{row}\n{table}");
        }
    }

    #[test]
    fn a_narrowly_missed_limit_shows_a_decimal() {
        let added = |added| {
            let costs = vec![cost("--traffic", MOST, added, Some(230.0))];
            instructions(&Report { instructions: costs, ..report() })[0][2].clone()
        };
        assert_eq!([229.6, 230.0, 230.4, 231.4].map(added), ["230", "230", "230.4", "231"]);
    }

    #[test]
    fn a_case_that_must_add_nothing_shows_the_figure() {
        let costs = vec![cost("unused", MOST, -0.4, Some(0.0)), cost("empty", MOST, 0.0, None)];
        let rows = instructions(&Report { instructions: costs, ..report() });
        assert_eq!((rows[0][2].as_str(), rows[0][4].as_str()), ("0", "met"));
        assert_eq!(rows[1][2], "");
    }

    #[test]
    fn options_become_code() {
        assert_eq!(code("a, --traffic / ACCOUNT"), "a, `--traffic` / ACCOUNT");
        assert_eq!(code("--traffic --ipconn, b"), "`--traffic --ipconn`, b");
    }

    #[test]
    fn the_document_has_the_markers_and_columns_of_the_tables() {
        let document = include_str!("../../../docs/performance.md");
        let markers = document.lines().filter(|line| line.contains("bench:"));
        let expected =
            TABLES.iter().flat_map(|Table { name, .. }| ["", "/"].map(|end| format!("<!-- {end}bench:{name} -->")));
        assert_eq!(markers.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        for table in TABLES {
            let columns = |text: &str| text.lines().take(2).map(without_padding).collect::<Vec<_>>();
            let expected = columns(&table.markdown(&report()));
            assert_eq!(columns(&document[table.range(document).unwrap()]), expected, "{}", table.name);
        }
    }
}
