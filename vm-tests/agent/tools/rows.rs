// SPDX-License-Identifier: GPL-2.0-only
//! Sums of rows: of those that a reader got, and with `sum PATH` of tables that are too long to be
//! copied to the host.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};

use crate::context;

/// The sums of complete rows, by their first cell.
#[derive(Default)]
pub struct Rows {
    sums: BTreeMap<String, Vec<u64>>,
    /// How many complete rows there were.
    pub count: u64,
}

impl Rows {
    /// Adds a line without its newline. Ignores the header.
    pub fn add(&mut self, line: &str) -> Result<(), String> {
        if is_header(line) {
            return Ok(());
        }
        let (key, cells) = parse(line)?;
        self.count += 1;
        let sums = self.sums.entry(key.to_owned()).or_insert_with(|| vec![0; cells.len()]);
        if sums.len() != cells.len() {
            return Err(format!("a row with another number of cells than the rows before: {line:?}"));
        }
        sums.iter_mut().zip(cells).for_each(|(sum, cell)| *sum += cell);
        Ok(())
    }

    /// Adds the complete lines of `text`: those up to the last newline.
    pub fn add_whole_lines(&mut self, text: &str) -> Result<(), String> {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().try_for_each(|line| self.add(line))
    }

    /// Prints a row with the sums for each first cell.
    pub fn print(&self) {
        for (key, sums) in &self.sums {
            println!("{key}\t{}", tabbed(sums));
        }
    }
}

fn tabbed(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join("\t")
}

fn is_header(line: &str) -> bool {
    line.starts_with("IP\t") || line.starts_with("PORT\t")
}

/// Parses a row and checks that TOTAL is the sum of the other columns.
fn parse(line: &str) -> Result<(&str, Vec<u64>), String> {
    let (key, cells) = line.split_once('\t').ok_or_else(|| format!("not a row: {line:?}"))?;
    let cells = cells.split('\t').map(str::parse).collect::<Result<Vec<u64>, _>>();
    let cells = cells.map_err(|error| format!("{line:?}: {error}"))?;
    if cells.len() < 8 || cells.len() % 2 != 0 {
        return Err(format!("{} numbers in a row: {line:?}", cells.len()));
    }
    // More than any test sends: the result of an underflow.
    if cells.iter().any(|cell| *cell > u64::MAX / 2) {
        return Err(format!("a number is too large: {line:?}"));
    }
    for way in [0, 1] {
        if cells[way] != cells[2 + way..].iter().step_by(2).sum::<u64>() {
            return Err(format!("TOTAL is not the sum of the other columns: {line:?}"));
        }
    }
    Ok((key, cells))
}

/// The sums of the lines so far.
#[derive(Default)]
struct Summary {
    rows: u64,
    sums: Vec<u64>,
    last: Option<u128>,
    others: Option<Vec<u64>>,
}

/// `sum PATH`: prints the number of rows without `*` and the sums of all rows, then the row `*` if
/// there is one. Fails if a row occurs twice, has only zeros, or is out of order.
pub fn sum(path: &str) -> Result<(), String> {
    let mut lines = BufReader::with_capacity(1 << 16, context(path, File::open(path))?).lines();
    if !is_header(&context(path, lines.next().ok_or("the file is empty")?)?) {
        return Err("the file has no header".into());
    }
    let mut summary = Summary::default();
    lines.try_for_each(|line| summary.add(&context(path, line)?))?;
    println!("{}\t{}", summary.rows, tabbed(&summary.sums));
    if let Some(others) = summary.others {
        println!("*\t{}", tabbed(&others));
    }
    Ok(())
}

impl Summary {
    fn add(&mut self, line: &str) -> Result<(), String> {
        let (key, cells) = parse(line)?;
        if self.others.is_some() {
            return Err(format!("a row after the row *: {line:?}"));
        }
        if cells[0] + cells[1] == 0 {
            return Err(format!("a row with zeros: {line:?}"));
        }
        self.sums.resize(cells.len(), 0);
        self.sums.iter_mut().zip(&cells).for_each(|(sum, cell)| *sum += cell);
        if key == "*" {
            self.others = Some(cells);
            return Ok(());
        }
        let sort_key = Some(sort_key(key)?);
        if self.last >= sort_key {
            return Err(format!("a row is out of order: {line:?}"));
        }
        self.last = sort_key;
        self.rows += 1;
        Ok(())
    }
}

/// The sort key of a row.
fn sort_key(key: &str) -> Result<u128, String> {
    if let Ok(port) = key.parse::<u16>() {
        return Ok(port.into());
    }
    match context(key, key.parse())? {
        std::net::IpAddr::V4(address) => Ok(address.to_bits().into()),
        std::net::IpAddr::V6(address) => Ok(address.to_bits()),
    }
}
