// SPDX-License-Identifier: GPL-2.0-only
//! Tables in Markdown, and their places in documents: between two markers,
//! `<!-- NAME -->` and `<!-- /NAME -->`.

use std::ops::Range;

use anyhow::{Context, Result};

/// The cells of a row. A cell without a figure is empty.
pub type Row = Vec<String>;

/// A table. All rows of a column have the same width. `header` has the names of the columns. Those
/// with a colon at the end are aligned to the right.
pub fn table(header: &[String], rows: Vec<Row>) -> String {
    let names = header.iter().map(|name| name.trim_end_matches(':').to_owned()).collect();
    let lines = header.iter().map(|name| if name.ends_with(':') { "---:" } else { "---" }.to_owned()).collect();
    let rows = [vec![names, lines], rows].concat();
    let mut text = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
            let right = header[column].ends_with(':');
            text += &if right { format!("| {cell:>width$} ") } else { format!("| {cell:width$} ") };
        }
        text += "|\n";
    }
    text
}

/// The range of what is between the markers of `name` in a document.
pub fn between(document: &str, name: &str) -> Result<Range<usize>> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let start = document.find(&begin).with_context(|| format!("there is no marker {begin}"))? + begin.len();
    let length = document[start..].find(&end);
    Ok(start..start + length.with_context(|| format!("there is no marker {end} after {begin}"))?)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// The text without the padding of cells.
    pub fn without_padding(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn columns_are_aligned() {
        let header = ["name", "figure:"].map(str::to_owned);
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["long one".to_owned(), String::new()]];
        assert_eq!(
            table(&header, rows),
            "| name     | figure |\n| ---      |   ---: |\n| a        |      1 |\n| long one |        |\n"
        );
    }

    #[test]
    fn a_missing_marker_is_an_error() {
        let document = "<!-- a:b -->\ntext\n<!-- /a:b -->\n";
        assert_eq!(&document[between(document, "a:b").unwrap()], "text\n");
        for marker in ["<!-- a:b -->", "<!-- /a:b -->"] {
            let error = between(&document.replace(marker, ""), "a:b").unwrap_err().to_string();
            assert!(error.contains(marker), "{error}");
        }
    }
}
