// SPDX-License-Identifier: GPL-2.0
//! A second opinion: what `/proc` must say about a list of frames.
//!
//! It is written from the contract and from the kernel's receive path, and shares no line with the module:
//! the parser is `etherparse`. A frame is accounted for when it reaches IP receive as a packet for another
//! host and passes the checks there (`packet`), and has an end in the network of the [`Rule`]. Whether it also
//! starts a connection depends on the flows before it (`flows`), of which the model forgets none.

mod flows;
mod packet;
mod rule;
#[cfg(test)]
mod tests;

pub use rule::{File, Internal, Rule};

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use self::flows::{Class, Flows};
use self::packet::Packet;
use crate::frames::Mac;

/// What the kernel must have after some frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// How many frames matched the rule.
    pub packets: u64,
    /// Their bytes at the IP layer.
    pub bytes: u64,
    /// Which frames started a connection, counted from 0; none when the rule does not look for connections.
    pub started: Vec<usize>,
    /// By address: for TCP, UDP and OTHER the bytes out and in.
    traffic: BTreeMap<IpAddr, [[u64; 2]; 3]>,
    /// By address: for each [`Class`] the connections out and in.
    ipconn: BTreeMap<IpAddr, [[u64; 2]; 4]>,
    /// By destination port: the same.
    portconn: BTreeMap<u16, [[u64; 2]; 4]>,
}

impl Expected {
    /// Counts frames that arrive all at once at a port with the address `box_mac`.
    pub fn of<F: AsRef<[u8]>>(rule: &Rule, box_mac: Mac, frames: impl IntoIterator<Item = F>) -> Self {
        Self::at_times(rule, box_mac, frames.into_iter().map(|frame| (Duration::ZERO, frame)))
    }

    /// Counts frames with the times at which they arrive, of which none is earlier than the one before.
    pub fn at_times<F: AsRef<[u8]>>(
        rule: &Rule,
        box_mac: Mac,
        frames: impl IntoIterator<Item = (Duration, F)>,
    ) -> Self {
        let (mut expected, mut flows) = (Self::default(), Flows::default());
        for (number, (time, frame)) in frames.into_iter().enumerate() {
            if let Some(packet) = Packet::received(frame.as_ref(), box_mac) {
                expected.count(rule, &mut flows, time, &packet, number);
            }
        }
        expected
    }

    fn count(&mut self, rule: &Rule, flows: &mut Flows, time: Duration, packet: &Packet, number: usize) {
        let Some(inside) = rule.accounts_for(packet.source, packet.destination) else {
            return;
        };
        let started = if rule.looks_for_connections() { flows.start(packet, time) } else { None };
        if let Some((class, port)) = started {
            self.started.push(number);
            self.count_connection(rule, inside, packet, class, port);
        }
        if rule.has(File::Traffic) {
            add_to_ends(&mut self.traffic, inside, packet, byte_column(packet.protocol), packet.bytes);
        }
        if rule.has(File::Traffic) || started.is_some() {
            self.packets += 1;
            self.bytes += packet.bytes;
        }
    }

    fn count_connection(&mut self, rule: &Rule, inside: [bool; 2], packet: &Packet, class: Class, port: u16) {
        if rule.has(File::Ipconn) {
            add_to_ends(&mut self.ipconn, inside, packet, class as usize, 1);
        }
        if rule.has(File::Portconn) {
            let pair = &mut self.portconn.entry(port).or_default()[class as usize];
            for (cell, inside) in pair.iter_mut().zip(inside) {
                *cell += u64::from(inside);
            }
        }
    }

    /// The text of `/proc/net/xt_traffic/NAME`.
    pub fn text(&self) -> String {
        self.text_of(File::Traffic)
    }

    /// The text of any of the files.
    pub fn text_of(&self, file: File) -> String {
        match file {
            File::Traffic => table("IP\t\tTOTAL\t\tTCP\t\tUDP\t\tOTHER\n", &self.traffic),
            File::Ipconn => table("IP\t\tTOTAL\t\tTCP\t\tUDP\t\tICMP\t\tOTHER\n", &self.ipconn),
            File::Portconn => table("PORT\t\tTOTAL\t\tTCP\t\tUDP\t\tICMP\t\tOTHER\n", &self.portconn),
        }
    }
}

/// The files that a rule's table has, with their names and texts, when all frames arrive at once.
pub fn texts<F: AsRef<[u8]>>(
    name: &str,
    rule: &Rule,
    box_mac: Mac,
    frames: impl IntoIterator<Item = F>,
) -> Vec<(String, String)> {
    let expected = Expected::of(rule, box_mac, frames);
    rule.files().map(|file| (file.name(name), expected.text_of(file))).collect()
}

/// Fails with the first line in which a table of the kernel differs from the model's.
///
/// # Errors
/// That line, of both.
pub fn same_table(name: &str, got: &str, want: &str) -> Result<()> {
    for (number, (got, want)) in got.lines().zip(want.lines()).enumerate() {
        ensure!(got == want, "{name}, line {}: the kernel says\n{got}\nthe model says\n{want}", number + 1);
    }
    let (lines, wanted) = (got.lines().count(), want.lines().count());
    ensure!(lines == wanted, "{name}: the kernel has {lines} lines, the model {wanted}");
    ensure!(got == want, "{name}: line endings differ");
    Ok(())
}

/// In the file of bytes ICMP is OTHER.
fn byte_column(protocol: u8) -> usize {
    match protocol {
        packet::TCP => 0,
        packet::UDP => 1,
        _ => 2,
    }
}

/// Out of the packet's source, in to its destination, each if it is inside the network.
fn add_to_ends<const COLUMNS: usize>(
    rows: &mut BTreeMap<IpAddr, [[u64; 2]; COLUMNS]>,
    inside: [bool; 2],
    packet: &Packet,
    column: usize,
    amount: u64,
) {
    for (way, address) in [packet.source, packet.destination].into_iter().enumerate() {
        if inside[way] {
            rows.entry(address).or_insert([[0; 2]; COLUMNS])[column][way] += amount;
        }
    }
}

fn table<K: Display, const COLUMNS: usize>(header: &str, rows: &BTreeMap<K, [[u64; 2]; COLUMNS]>) -> String {
    let mut text = header.to_owned();
    for (key, columns) in rows {
        let total = |way: usize| columns.iter().map(|pair| pair[way]).sum::<u64>();
        write!(text, "{key}").expect("a String takes everything");
        for [out, into] in std::iter::once([total(0), total(1)]).chain(columns.iter().copied()) {
            write!(text, "\t{out}\t{into}").expect("a String takes everything");
        }
        text.push('\n');
    }
    text
}
