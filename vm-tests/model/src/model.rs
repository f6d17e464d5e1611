// SPDX-License-Identifier: GPL-2.0-only
//! Computes the text of the files in `/proc/net/xt_traffic` from a list of frames.
//!
//! The model implements the specification and the checks of the kernel's receive path. It shares no
//! code with the kernel module: the parser is `etherparse`. A packet is counted when it reaches IP
//! receive as a packet for another host, passes the checks there (`packet`), and has an address in
//! the network of the [`Rule`]. Whether it starts a connection depends on the flows before it
//! (`flows`). The model never forgets a flow.

mod flows;
mod packet;
mod rule;
mod statistics;
#[cfg(test)]
mod tests;
mod unwrap;

pub use packet::Fault;
pub use rule::{File, Internal, Rule};
pub use statistics::{has_ethernet_header, statistics};

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use self::flows::Flows;
use self::packet::Packet;
use crate::frames::Mac;

/// How frames arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// At a port in promiscuous mode with this address. Frames for other hosts pass through
    /// PROMISC.
    Plain(Mac),
    /// At a port with a mirror device: all frames pass through PROMISC.
    Mirror {
        /// Whether packets whose end is missing are counted.
        sliced: bool,
    },
}

impl From<Mac> for Port {
    fn from(mac: Mac) -> Self {
        Self::Plain(mac)
    }
}

/// Why a frame of a mirror device reaches no rule; `None` when it does.
pub fn fault(frame: &[u8], sliced: bool) -> Option<Fault> {
    Packet::mirrored(frame, sliced).err()
}

/// The expected counts after some frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// How many frames matched the rule.
    pub packets: u64,
    /// The bytes of their IP packets.
    pub bytes: u64,
    /// The indexes of the frames that started a connection; empty when the rule does not count
    /// connections.
    pub started: Vec<usize>,
    /// The rows of each [`File`]: "out" and "in" for each pair of columns after TOTAL.
    rows: [BTreeMap<Key, [[u64; 2]; 4]>; 3],
    /// What follows the address in a row of addresses.
    row_ending: String,
}

/// The first cell of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Address(IpAddr),
    Port(u16),
}

impl Expected {
    /// Counts frames that arrive at the same time at a port.
    pub fn of<F: AsRef<[u8]>>(rule: &Rule, port: impl Into<Port>, frames: impl IntoIterator<Item = F>) -> Self {
        Self::at_times(rule, port, frames.into_iter().map(|frame| (Duration::ZERO, frame)))
    }

    /// Counts frames with their arrival times, which must not decrease.
    pub fn at_times<F: AsRef<[u8]>>(
        rule: &Rule,
        port: impl Into<Port>,
        frames: impl IntoIterator<Item = (Duration, F)>,
    ) -> Self {
        let port = port.into();
        let empty = Self { row_ending: rule.row_ending(), ..Self::default() };
        let (mut expected, mut flows) = (empty, Flows::default());
        for (number, (time, frame)) in frames.into_iter().enumerate() {
            if let Some(packet) = Packet::received(frame.as_ref(), port) {
                expected.count(rule, &mut flows, time, &packet, number);
            }
        }
        expected
    }

    fn count(&mut self, rule: &Rule, flows: &mut Flows, time: Duration, packet: &Packet, number: usize) {
        let Some(inside) = rule.counts_packet(packet.source, packet.destination) else {
            return;
        };
        let started = if rule.counts_connections() { flows.start(packet, time) } else { None };
        let addresses = [packet.source, packet.destination].map(|address| Key::Address(rule.row(address)));
        if let Some((class, port)) = started {
            self.started.push(number);
            self.add(rule, File::Ipconn, addresses, inside, class as usize, 1);
            self.add(rule, File::Portconn, [Key::Port(port); 2], inside, class as usize, 1);
        }
        self.add(rule, File::Traffic, addresses, inside, byte_column(packet.protocol), packet.bytes);
        if rule.has(File::Traffic) || started.is_some() {
            self.packets += 1;
            self.bytes += packet.bytes;
        }
    }

    /// Adds to "out" of the source's row and to "in" of the destination's, for those inside the
    /// network, if the rule has the file.
    fn add(&mut self, rule: &Rule, file: File, keys: [Key; 2], inside: [bool; 2], column: usize, amount: u64) {
        for way in [0, 1] {
            if rule.has(file) && inside[way] {
                self.rows[file as usize].entry(keys[way]).or_default()[column][way] += amount;
            }
        }
    }

    /// The text of `/proc/net/xt_traffic/NAME`.
    pub fn text(&self) -> String {
        self.text_of(File::Traffic)
    }

    /// The text of one of the files.
    pub fn text_of(&self, file: File) -> String {
        let mut text = file.header().to_owned();
        for (key, columns) in &self.rows[file as usize] {
            let columns = if file == File::Traffic { &columns[..3] } else { columns };
            let total = [0, 1].map(|way| columns.iter().map(|pair| pair[way]).sum::<u64>());
            text += &match key {
                Key::Address(address) => format!("{address}{}", self.row_ending),
                Key::Port(port) => port.to_string(),
            };
            for [out, into] in [&[total], columns].concat() {
                write!(text, "\t{out}\t{into}").expect("writing to a String cannot fail");
            }
            text.push('\n');
        }
        text
    }
}

/// The names and texts of a table's files, when all frames arrive at the same time.
pub fn texts<F: AsRef<[u8]>>(
    name: &str,
    rule: &Rule,
    port: impl Into<Port>,
    frames: impl IntoIterator<Item = F>,
) -> Vec<(String, String)> {
    texts_at_times(name, rule, port, frames.into_iter().map(|frame| (Duration::ZERO, frame)))
}

/// As [`texts`], for frames with their arrival times, which must not decrease.
pub fn texts_at_times<F: AsRef<[u8]>>(
    name: &str,
    rule: &Rule,
    port: impl Into<Port>,
    frames: impl IntoIterator<Item = (Duration, F)>,
) -> Vec<(String, String)> {
    let expected = Expected::at_times(rule, port, frames);
    rule.files().map(|file| (file.name(name), expected.text_of(file))).collect()
}

/// Compares a table of the kernel with the model's.
///
/// # Errors
/// When they differ: with the first line that differs.
pub fn same_table(name: &str, got: &str, want: &str) -> Result<()> {
    for (number, (got, want)) in got.lines().zip(want.lines()).enumerate() {
        ensure!(got == want, "{name}, line {}: the kernel has\n{got}\nthe model has\n{want}", number + 1);
    }
    let (lines, wanted) = (got.lines().count(), want.lines().count());
    ensure!(lines == wanted, "{name}: the kernel has {lines} lines, the model {wanted}");
    ensure!(got == want, "{name}: line endings differ");
    Ok(())
}

/// The bytes of ICMP count as OTHER.
fn byte_column(protocol: u8) -> usize {
    match protocol {
        packet::TCP => 0,
        packet::UDP => 1,
        _ => 2,
    }
}
