// SPDX-License-Identifier: GPL-2.0-only
//! Sums of rows: of those that a reader got, and with `sum PATH` of tables that are too long to be
//! copied to the host.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use fs_err::File;

/// The sums of complete rows, by their first cell.
#[derive(Default)]
pub struct Rows {
    sums: BTreeMap<String, Vec<u64>>,
    /// How many complete rows there were.
    pub count: u64,
}

impl Rows {
    /// Adds a line without its newline. Ignores the header.
    pub fn add(&mut self, line: &str) -> Result<()> {
        if is_header(line) {
            return Ok(());
        }
        let (key, cells) = parse(line)?;
        self.count += 1;
        let sums = self.sums.entry(key.to_owned()).or_insert_with(|| vec![0; cells.len()]);
        ensure!(sums.len() == cells.len(), "a row with another number of cells than the rows before: {line:?}");
        sums.iter_mut().zip(cells).for_each(|(sum, cell)| *sum += cell);
        Ok(())
    }

    /// Adds the complete lines of `text`: those up to the last newline.
    pub fn add_whole_lines(&mut self, text: &str) -> Result<()> {
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
fn parse(line: &str) -> Result<(&str, Vec<u64>)> {
    let (key, cells) = line.split_once('\t').with_context(|| format!("not a row: {line:?}"))?;
    let cells = cells.split('\t').map(str::parse).collect::<Result<Vec<u64>, _>>();
    let cells = cells.with_context(|| format!("{line:?}"))?;
    ensure!(cells.len() >= 8 && cells.len() % 2 == 0, "{} numbers in a row: {line:?}", cells.len());
    // More than any test sends: the result of an underflow.
    ensure!(cells.iter().all(|cell| *cell <= u64::MAX / 2), "a number is too large: {line:?}");
    for way in [0, 1] {
        let sum = cells[2 + way..].iter().step_by(2).sum::<u64>();
        ensure!(cells[way] == sum, "TOTAL is not the sum of the other columns: {line:?}");
    }
    Ok((key, cells))
}

/// The sums of the lines so far.
#[derive(Default)]
struct Summary {
    rows: u64,
    sums: Vec<u64>,
    last: Option<IpAddr>,
    others: Option<Vec<u64>>,
}

/// `sum PATH`: prints the number of rows without `*` and the sums of all rows, then the row `*` if
/// there is one. Fails if a row occurs twice, has only zeros, or is out of order.
pub fn sum(path: &str) -> Result<()> {
    let mut lines = BufReader::with_capacity(1 << 16, File::open(path)?).lines();
    ensure!(is_header(&lines.next().context("the file is empty")??), "the file has no header");
    let mut summary = Summary::default();
    lines.try_for_each(|line| summary.add(&line?))?;
    println!("{}\t{}", summary.rows, tabbed(&summary.sums));
    if let Some(others) = summary.others {
        println!("*\t{}", tabbed(&others));
    }
    Ok(())
}

impl Summary {
    fn add(&mut self, line: &str) -> Result<()> {
        let (key, cells) = parse(line)?;
        ensure!(self.others.is_none(), "a row after the row *: {line:?}");
        ensure!(cells[0] + cells[1] > 0, "a row with zeros: {line:?}");
        self.sums.resize(cells.len(), 0);
        self.sums.iter_mut().zip(&cells).for_each(|(sum, cell)| *sum += cell);
        if key == "*" {
            self.others = Some(cells);
            return Ok(());
        }
        let sort_key = Some(sort_key(key)?);
        ensure!(self.last < sort_key, "a row is out of order: {line:?}");
        self.last = sort_key;
        self.rows += 1;
        Ok(())
    }
}

/// The sort key of a row: its address, or an address with its port's number.
fn sort_key(key: &str) -> Result<IpAddr> {
    match key.parse::<u16>() {
        Ok(port) => Ok(Ipv4Addr::from_bits(port.into()).into()),
        Err(_) => key.parse().with_context(|| key.to_owned()),
    }
}
