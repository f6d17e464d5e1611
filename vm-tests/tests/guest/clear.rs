// SPDX-License-Identifier: GPL-2.0-only
//! `--clearonread`: every count is reported to exactly one reader.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use traffic_model::frames::{Ip, SYN, mirrored};
use traffic_model::model::File;
use vm_harness::command::COMMAND_TIMEOUT;
use vm_harness::guest::Guest;
use vm_harness::replay::{Backend, TABLES};
use vm_tests::{cells, file_steps, frame, guest_test, iptables, row_after, send_until_read, table};

const RULE: &str = "-m traffic --traffic --ipconn --portconn --net 10.0.0.0/24 --name t --clearonread";
/// The number of frames for each port before a pause, which gives the readers CPU time.
const BURST: u32 = 24;
/// The smallest number of bursts.
const BURSTS: u32 = 30;
/// The number of rows. Each address has ten characters, each port has five.
const ADDRESSES: u32 = 150;
const PORTS: u32 = 200;

/// The numbers of each row, by its first cell.
type Rows = BTreeMap<String, Vec<u64>>;

/// Frame `n` of a port. Each starts a connection.
struct Frame {
    address: u8,
    leaves: bool,
    tcp: bool,
    port: u16,
    packet: Vec<u8>,
}

impl Frame {
    fn new(arrives_at: u8, n: u32) -> Self {
        let (address, leaves, tcp) = (100 + (n * 7 % ADDRESSES) as u8, n % 3 != 0, n % 2 == 0);
        let (inside, outside) = ([10, 0, 0, address], [192, 0, 2, arrives_at]);
        let ip = if leaves { Ip::new(inside, outside) } else { Ip::new(outside, inside) };
        let (port, data) = ((50_000 + n % PORTS) as u16, vec![1; (n % 50) as usize]);
        let ports = (n as u16, port);
        let packet = if tcp { ip.tcp(ports, n, SYN, &data) } else { ip.udp(ports, &data) };
        Self { address, leaves, tcp, port, packet }
    }

    /// Adds the frame's counts in a file.
    fn count(&self, rows: &mut Rows, file: &str) {
        let (key, cells, amount) = match file {
            "t" => (format!("10.0.0.{}", self.address), 8, self.packet.len() as u64),
            "t.ipconn" => (format!("10.0.0.{}", self.address), 10, 1),
            _ => (self.port.to_string(), 10, 1),
        };
        let row = rows.entry(key).or_insert_with(|| vec![0; cells]);
        let way = usize::from(!self.leaves);
        row[way] += amount;
        row[way + if self.tcp { 2 } else { 4 }] += amount;
    }
}

fn sent(file: &str, frames: u32) -> Rows {
    let mut rows = Rows::new();
    for port in 0..2 {
        (0..frames).for_each(|n| Frame::new(port, n).count(&mut rows, file));
    }
    rows
}

/// Adds rows of text.
fn add(rows: &mut Rows, text: &str) -> Result<()> {
    for line in text.lines() {
        let (key, cells) = cells(line)?;
        let row = rows.entry(key.to_owned()).or_insert_with(|| vec![0; cells.len()]);
        row.iter_mut().zip(cells).for_each(|(sum, cell)| *sum += cell);
    }
    Ok(())
}

/// The rows of a file without its header. Reading clears them.
fn read_rows(guest: &mut Guest, file: &str) -> Result<String> {
    let text = table(guest, file)?;
    Ok(text.split_once('\n').context("no header")?.1.to_owned())
}

/// Sends a burst of frames to two ports, each with its own CPU.
fn send_burst(guest: &mut Guest, burst: u32) -> Result<()> {
    for port in 0..2 {
        let frames = burst * BURST..(burst + 1) * BURST;
        guest.sender(port).send_all(frames.map(|n| mirrored(&Frame::new(port as u8, n).packet)))?;
    }
    (0..2).try_for_each(|port| guest.await_frames(port))
}

/// Adds two rules, one for each port, with one table.
fn prepare(guest: &mut Guest) -> Result<()> {
    iptables(guest, Backend::Nft, &format!("-A PROMISC -i eth0 {RULE}"))?;
    iptables(guest, Backend::Legacy, &format!("-A PROMISC -i eth1 {RULE}"))?;
    (0..2).try_for_each(|port| guest.open_port(port))?;
    guest.steer_ports_to_cpus()
}

/// Readers with these patterns (`agent/tools/reader.rs` lists them) read a file at the same time
/// while frames arrive. The sum of what they read and of what remains is what was sent.
fn exactly_once(guest: &mut Guest, file: &str, patterns: &[&str]) -> Result<()> {
    prepare(guest)?;
    let mut readers = Vec::new();
    for (number, pattern) in patterns.iter().enumerate() {
        let line = format!("exec /init read {TABLES}/{file} {pattern} /tmp/stop {}", number % 2);
        readers.push((pattern, guest.start(&line)?));
    }
    let frames = BURST * send_until_read(guest, patterns, BURSTS, send_burst)?;
    guest.write("/tmp/stop", b"")?;
    let mut got = Rows::new();
    for (pattern, reader) in readers {
        let output = guest.finish_command(reader, COMMAND_TIMEOUT)?.success(pattern)?;
        add(&mut got, output.split_once('\n').context("no counts")?.1)?;
    }
    add(&mut got, &read_rows(guest, file)?)?;
    ensure!(read_rows(guest, file)?.is_empty(), "rows that were read are not cleared");
    let sent = sent(file, frames);
    for (key, row) in &sent {
        let got = got.get(key);
        ensure!(got == Some(row), "{file}, {key}: sent {row:?}, reported {got:?}");
    }
    ensure!(got.len() == sent.len(), "rows without frames");
    // The other files were not read, so they have all counts.
    for other in ["t", "t.ipconn", "t.portconn"].into_iter().filter(|other| *other != file) {
        let mut rows = Rows::new();
        add(&mut rows, &read_rows(guest, other)?)?;
        ensure!(rows == self::sent(other, frames), "{other} is incomplete");
    }
    Ok(())
}

guest_test!(bytes_are_reported_exactly_once, |guest| {
    exactly_once(guest, "t", &["whole", "bytes", "killed", "random:10"])?;
});

guest_test!(connections_of_addresses_are_reported_exactly_once, |guest| {
    exactly_once(guest, "t.ipconn", &["random:10", "rewind", "page", "killed"])?;
});

guest_test!(connections_of_ports_are_reported_exactly_once, |guest| {
    exactly_once(guest, "t.portconn", &["pieces", "bytes", "whole", "random:5", "killed"])?;
});

/// A table with three rows of one frame each. Returns its header.
fn three_rows(guest: &mut Guest) -> Result<String> {
    iptables(guest, Backend::Nft, &format!("-A PROMISC {RULE}"))?;
    guest.open_port(0)?;
    send(guest, &[1, 2, 3])?;
    Ok(File::Traffic.header().to_owned())
}

fn send(guest: &mut Guest, hosts: &[u8]) -> Result<()> {
    guest.send(0, hosts.iter().map(|host| frame(*host)))
}

fn one_each(hosts: &[u8]) -> String {
    hosts.iter().map(|host| row_after(*host, 1)).collect()
}

guest_test!(a_reader_that_stops_early_clears_the_rows_that_it_got, |guest| {
    let first = three_rows(guest)?;
    let (header, row) = (first.len(), row_after(1, 1).len());
    let read = |guest: &mut Guest, count: usize| file_steps(guest, "t", &[&format!("read:{count}")]);
    ensure!(read(guest, header)? == [format!("{first:?}")]);
    // The first row without its newline.
    ensure!(read(guest, header + row - 1)? == [format!("{:?}", first + row_after(1, 1).trim_end())]);
    // The first row and half of the second.
    read(guest, header + row + row / 2)?;
    ensure!(read_rows(guest, "t")? == one_each(&[2, 3]), "a row that was not read completely is cleared");
    ensure!(read_rows(guest, "t")?.is_empty(), "rows remain after a complete read");
    send(guest, &[2, 2])?;
    ensure!(read_rows(guest, "t")? == row_after(2, 2), "rows do not start at zero again");
});

guest_test!(a_row_that_is_being_read_is_hidden_from_other_readers, |guest| {
    let half = three_rows(guest)?.len() + 5;
    let reader = format!("/init file {TABLES}/t read:{half} touch:/tmp/half await:/tmp/end");
    let reader = guest.start(&reader)?;
    guest.must("until test -e /tmp/half; do :; done")?;
    ensure!(read_rows(guest, "t")? == one_each(&[2, 3]), "another reader gets a row that is being read");
    send(guest, &[1, 3])?;
    ensure!(read_rows(guest, "t")? == one_each(&[1, 3]), "later counts do not go to other readers");
    send(guest, &[1])?;
    guest.write("/tmp/end", b"")?;
    guest.finish_command(reader, COMMAND_TIMEOUT)?.success("the reader")?;
    ensure!(read_rows(guest, "t")? == row_after(1, 2), "the row does not return with the later counts");
    ensure!(read_rows(guest, "t")?.is_empty());
});

guest_test!(seeking_returns_rows_that_were_not_read, |guest| {
    let first = three_rows(guest)?;
    let (header, row) = (first.len(), row_after(1, 1).len());
    let whole = format!("{:?}", first + &one_each(&[1, 2, 3]));
    let output = file_steps(guest, "t", &[&format!("read:{}", header + 7), "set:0", "all:4096"])?;
    ensure!(output[2] == whole, "reading again does not start with the row that was not read: {output:?}");
    ensure!(read_rows(guest, "t")?.is_empty());
    send(guest, &[1, 2, 3])?;
    // The end of the third row, then the second row.
    let second = format!("pread:{}:{row}", header + row);
    let third = format!("pread:{}:10", header + 3 * row - 10);
    let output = file_steps(guest, "t", &[&third, &second])?;
    ensure!(output[1] == format!("{:?}", row_after(2, 1)), "{output:?}");
    ensure!(read_rows(guest, "t")? == one_each(&[1, 3]), "rows that were skipped are cleared");
});

guest_test!(a_failed_read_clears_nothing, |guest| {
    three_rows(guest)?;
    ensure!(file_steps(guest, "t", &["bad:4096"])? == ["errno 14"]);
    ensure!(read_rows(guest, "t")? == one_each(&[1, 2, 3]), "a failed read clears rows");
});
