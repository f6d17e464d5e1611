// SPDX-License-Identifier: GPL-2.0
//! `--clearonread`: whoever reads, and however, every count is reported exactly once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use traffic_model::frames::{Ipv4, SYN, mirrored};
use vm_harness::guest::{COMMAND_TIME, Guest, Output};
use vm_harness::replay::{Backend, TABLES};

use crate::support::{file_steps, in_guest, iptables, table};

const RULE: &str = "-m traffic --traffic --ipconn --portconn --net 10.0.0.0/24 --name t --clearonread";
/// Frames for each of two ports, before the guest has dealt with them: it has no time for readers otherwise.
const BURST: u32 = 24;
/// As many bursts at least.
const BURSTS: u32 = 30;
/// So long at most until all readers have done their part.
const PATIENCE: Duration = Duration::from_secs(90);
/// The rows: addresses whose text has ten characters, and ports whose text has five.
const ADDRESSES: u32 = 150;
const PORTS: u32 = 200;

/// By first cell, the numbers of a row.
type Rows = BTreeMap<String, Vec<u64>>;

/// Frame `n` of a port: each is a connection of its own.
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
        let ip = if leaves { Ipv4::new(inside, outside) } else { Ipv4::new(outside, inside) };
        let (port, data) = ((50_000 + n % PORTS) as u16, vec![1; (n % 50) as usize]);
        let ports = (n as u16, port);
        let packet = if tcp { ip.tcp(ports, n, SYN, &data) } else { ip.udp(ports, &data) };
        Self { address, leaves, tcp, port, packet }
    }

    /// Adds what a file must say about it.
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
        let (key, cells) = line.split_once('\t').context("no row")?;
        let cells = cells.split('\t').map(|cell| Ok(cell.parse()?)).collect::<Result<Vec<u64>>>()?;
        let row = rows.entry(key.to_owned()).or_insert_with(|| vec![0; cells.len()]);
        row.iter_mut().zip(cells).for_each(|(sum, cell)| *sum += cell);
    }
    Ok(())
}

/// A table's rows without its header.
fn rest(guest: &mut Guest, file: &str) -> Result<String> {
    let text = table(guest, file)?;
    Ok(text.split_once('\n').context("no header")?.1.to_owned())
}

/// Frames flow into two ports, each port's on a CPU of its own, until all readers have done their part. Gives the
/// number of frames for each port.
fn flow(guest: &mut Guest, readers: usize) -> Result<u32> {
    let deadline = Instant::now() + PATIENCE;
    let mut burst = 0;
    while Instant::now() < deadline {
        for port in 0..2 {
            let sender = guest.sender(port);
            for n in burst * BURST..(burst + 1) * BURST {
                sender.send(&mirrored(&Frame::new(port as u8, n).packet))?;
            }
        }
        (0..2).try_for_each(|port| guest.await_frames(port))?;
        let ready = guest.must("ls /tmp")?.lines().filter(|file| file.starts_with("stop.")).count();
        burst += 1;
        if ready == readers && burst >= BURSTS {
            return Ok(burst * BURST);
        }
    }
    bail!("some reader is hardly at work: {}", guest.must("ls /tmp")?)
}

/// Two rules, one for each port, that share a table.
fn prepare(guest: &mut Guest) -> Result<()> {
    iptables(guest, Backend::Nft, &format!("-A PROMISC -i eth0 {RULE}"))?;
    iptables(guest, Backend::Legacy, &format!("-A PROMISC -i eth1 {RULE}"))?;
    (0..2).try_for_each(|port| guest.open_port(port))?;
    guest.must("echo 1000000 >/proc/sys/net/core/netdev_max_backlog")?;
    guest.must("for n in 0 1; do echo $((n + 1)) >/sys/class/net/eth$n/queues/rx-0/rps_cpus; done").map(drop)
}

/// Adds what a reader says that it was given.
fn collect(rows: &mut Rows, habit: &str, Output { status, stdout, stderr }: &Output) -> Result<()> {
    ensure!(*status == 0, "{habit}: {stderr}");
    add(rows, stdout.split_once('\n').context("no counts")?.1)
}

/// Readers with these habits (`agent/tools/reader.rs` has them) read a file, all at once, while frames flow. What they were given and what is left
/// in the end is what was sent.
fn exactly_once(file: &str, habits: &[&str]) {
    in_guest(|guest| {
        prepare(guest)?;
        let mut readers = Vec::new();
        for (number, habit) in habits.iter().enumerate() {
            let line = format!("exec /init read {TABLES}/{file} {habit} /tmp/stop {}", number % 2);
            readers.push((habit, guest.start(&line)?));
        }
        let frames = flow(guest, habits.len())?;
        guest.write("/tmp/stop", b"")?;
        let mut got = Rows::new();
        for (habit, reader) in readers {
            collect(&mut got, habit, &guest.finish_command(reader, COMMAND_TIME)?)?;
        }
        add(&mut got, &rest(guest, file)?)?;
        ensure!(rest(guest, file)?.is_empty(), "what was read is still there");
        let sent = sent(file, frames);
        for (key, row) in &sent {
            let got = got.get(key);
            ensure!(got == Some(row), "{file}, {key}: {row:?} was sent, {got:?} was reported");
        }
        ensure!(got.len() == sent.len(), "rows for nobody");
        // The other files were not read, so they have everything.
        for other in ["t", "t.ipconn", "t.portconn"].into_iter().filter(|other| *other != file) {
            let mut rows = Rows::new();
            add(&mut rows, &rest(guest, other)?)?;
            ensure!(rows == self::sent(other, frames), "{other} is not complete");
        }
        Ok(())
    });
}

#[test]
fn bytes_are_reported_exactly_once() {
    exactly_once("t", &["whole", "bytes", "killed", "odd:10"]);
}

#[test]
fn connections_of_addresses_are_reported_exactly_once() {
    exactly_once("t.ipconn", &["odd:10", "rewind", "page", "killed"]);
}

#[test]
fn connections_of_ports_are_reported_exactly_once() {
    exactly_once("t.portconn", &["pieces", "bytes", "whole", "odd:5", "killed"]);
}

const HEADER: &str = "IP\t\tTOTAL\t\tTCP\t\tUDP\t\tOTHER\n";

/// The row of 10.0.0.`host` after so many frames.
fn row_after(host: u8, frames: u64) -> String {
    let bytes = frames * 100;
    format!("10.0.0.{host}\t{bytes}\t0\t0\t0\t{bytes}\t0\t0\t0\n")
}

fn frame(host: u8) -> Vec<u8> {
    mirrored(&Ipv4::new([10, 0, 0, host], [192, 0, 2, 1]).udp((1, 2), &[7; 72]))
}

/// A table with three rows of one frame each.
fn three_rows(guest: &mut Guest) -> Result<()> {
    iptables(guest, Backend::Nft, &format!("-A PROMISC {RULE}"))?;
    guest.open_port(0)?;
    more(guest, &[1, 2, 3])
}

fn more(guest: &mut Guest, hosts: &[u8]) -> Result<()> {
    guest.send(0, hosts.iter().map(|host| frame(*host)))
}

fn one_each(hosts: &[u8]) -> String {
    hosts.iter().map(|host| row_after(*host, 1)).collect()
}

#[test]
fn a_reader_that_stops_half_way_clears_what_it_was_given() {
    in_guest(|guest| {
        three_rows(guest)?;
        let (header, row) = (HEADER.len(), row_after(1, 1).len());
        let path = format!("{TABLES}/t");
        let read = |guest: &mut Guest, count: usize| file_steps(guest, &path, &[&format!("read:{count}")]);
        ensure!(read(guest, header)? == [format!("{HEADER:?}")]);
        // All of the first row but its newline.
        ensure!(read(guest, header + row - 1)? == [format!("{:?}", HEADER.to_owned() + row_after(1, 1).trim_end())]);
        // The whole first row, half of the second.
        read(guest, header + row + row / 2)?;
        ensure!(rest(guest, "t")? == one_each(&[2, 3]), "the first row alone was given");
        ensure!(rest(guest, "t")?.is_empty(), "now all of them were");
        more(guest, &[2, 2])?;
        ensure!(rest(guest, "t")? == row_after(2, 2), "rows begin at zero again");
        Ok(())
    });
}

#[test]
fn a_row_on_its_way_is_nobody_elses() {
    in_guest(|guest| {
        three_rows(guest)?;
        let half = HEADER.len() + 5;
        let reader = format!("/init file {TABLES}/t read:{half} touch:/tmp/half await:/tmp/end");
        let reader = guest.start(&reader)?;
        guest.must("until test -e /tmp/half; do :; done")?;
        ensure!(rest(guest, "t")? == one_each(&[2, 3]), "a row that is being read was given to another reader");
        more(guest, &[1, 3])?;
        ensure!(rest(guest, "t")? == one_each(&[1, 3]), "what came later is for other readers");
        more(guest, &[1])?;
        guest.write("/tmp/end", b"")?;
        let output = guest.finish_command(reader, COMMAND_TIME)?;
        ensure!(output.status == 0, "{output:?}");
        ensure!(rest(guest, "t")? == row_after(1, 2), "the row goes back, and what came later has been added");
        ensure!(rest(guest, "t")?.is_empty());
        Ok(())
    });
}

#[test]
fn seeking_gives_back_what_was_not_read() {
    in_guest(|guest| {
        three_rows(guest)?;
        let (header, row) = (HEADER.len(), row_after(1, 1).len());
        let path = format!("{TABLES}/t");
        let whole = format!("{:?}", HEADER.to_owned() + &one_each(&[1, 2, 3]));
        let said = file_steps(guest, &path, &[&format!("read:{}", header + 7), "set:0", "all:4096"])?;
        ensure!(said[2] == whole, "a new read begins with the row that was not read: {said:?}");
        ensure!(rest(guest, "t")?.is_empty());
        more(guest, &[1, 2, 3])?;
        // The second row alone, and the end of the third.
        let second = format!("pread:{}:{row}", header + row);
        let third = format!("pread:{}:10", header + 3 * row - 10);
        let said = file_steps(guest, &path, &[&third, &second])?;
        ensure!(said[1] == format!("{:?}", row_after(2, 1)), "{said:?}");
        ensure!(rest(guest, "t")? == one_each(&[1, 3]), "rows that were skipped are cleared");
        Ok(())
    });
}

#[test]
fn a_failed_read_clears_nothing() {
    in_guest(|guest| {
        three_rows(guest)?;
        ensure!(file_steps(guest, &format!("{TABLES}/t"), &["bad:4096"])? == ["errno 14"]);
        ensure!(rest(guest, "t")? == one_each(&[1, 2, 3]), "nobody was given what could not be copied");
        Ok(())
    });
}
