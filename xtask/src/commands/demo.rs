// SPDX-License-Identifier: GPL-2.0-only
//! `demo`: replays a recorded capture and prints what the guest counted.

use anyhow::{Context, Result};
use clap::Args;
use vm_harness::replay::{self, Backend, Pace, Receiver};

use crate::builds::kernel::{self, Config};
use crate::host;
use crate::images::guest;
use crate::workspace::Workspace;

/// The capture, made by `vm-tests/captures/record.sh`.
const CAPTURE: &str = "vm-tests/captures/web.pcap";
/// The table's name.
const NAME: &str = "demo";

#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    kernel: kernel::Options,
    #[command(flatten)]
    consent: host::Consent,
}

pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    let choice = options.kernel.choose(ws, Config::Test)?;
    host::ensure_ready(ws, &options.consent)?;
    let rule = format!("-A PROMISC -m traffic --traffic --net 0.0.0.0/0 --name {NAME}");
    let tables = replay::replay(&replay::Options {
        artifacts: guest::artifacts(ws, &choice)?,
        backend: Backend::Nft,
        rules: vec![rule.clone()],
        captures: vec![ws.repo().join(CAPTURE)],
        receiver: Receiver::Mirror { sliced: false },
        // Bytes do not depend on time.
        pace: Pace::Fast,
        check: true,
    })?;
    let table = tables.iter().find(|table| table.name == NAME);
    let table = table.with_context(|| format!("the guest has no table {NAME}"))?;
    let text = String::from_utf8_lossy(&table.text);
    println!("In the guest, with the frames of {CAPTURE} arriving at its mirror port:\n");
    println!("  # iptables {rule}");
    println!("  # cat /proc/net/xt_traffic/{NAME}\n");
    print!("{}", aligned(&text));
    println!("\n{}", summary(&text));
    Ok(())
}

/// The table with aligned columns, and a line that names the direction of each column.
fn aligned(table: &str) -> String {
    let mut rows: Vec<Vec<&str>> = table.lines().map(|line| line.split('\t').collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let directions = [""].into_iter().chain(["out", "in"].into_iter().cycle());
    rows.insert(rows.len().min(1), directions.take(columns).collect());
    let width = |column: usize| rows.iter().filter_map(|row| Some(row.get(column)?.len())).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<&str>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("  {cell:<width$}"),
            _ => format!("  {cell:>width$}"),
        });
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    rows.iter().map(line).collect()
}

/// One sentence about the table.
fn summary(table: &str) -> String {
    let rows = table.lines().skip(1).filter_map(|line| {
        let mut cells = line.split('\t');
        Some((cells.next()?, cells.next()?.parse::<u64>().ok()?))
    });
    let rows: Vec<_> = rows.collect();
    let sent: u64 = rows.iter().map(|(_, out)| out).sum();
    let count = rows.len();
    match rows.iter().max_by_key(|(_, out)| out) {
        Some((address, out)) => format!(
            "None of these packets was addressed to the guest, and it counted all of them: {count} addresses \
             sent {sent} bytes, {address} most of them ({out} bytes)."
        ),
        None => "The guest counted nothing.".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "IP\t\tTOTAL\t\tTCP\n10.0.0.1\t1234\t5\t1234\t5\n10.0.0.20\t5\t1234\t5\t1234\n";

    #[test]
    fn columns_are_aligned() {
        assert_eq!(
            aligned(TABLE),
            "  IP               TOTAL         TCP\n\
             \x20             out     in   out    in\n"
                .to_owned()
                + "  10.0.0.1   1234      5  1234     5\n  10.0.0.20     5   1234     5  1234\n"
        );
    }

    #[test]
    fn the_summary_has_the_sums() {
        let summary = summary(TABLE);
        assert!(summary.contains("2 addresses sent 1239 bytes"), "{summary}");
        assert!(summary.contains("10.0.0.1 most of them"), "{summary}");
    }
}
