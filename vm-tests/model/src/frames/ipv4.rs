// SPDX-License-Identifier: GPL-2.0
//! IPv4 packets.

use std::net::Ipv4Addr;

use super::transport::{icmp, tcp, udp};
use super::{ACK, ICMP, TCP, UDP, checksum, pseudo_checksum};

/// An IPv4 packet in the making.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    /// From.
    pub source: Ipv4Addr,
    /// To.
    pub destination: Ipv4Addr,
    /// Bytes; the header rounds them up to a multiple of four with zeros. At most 40.
    pub options: Vec<u8>,
    /// The flags (top three bits) and the offset in units of eight bytes.
    pub fragment: u16,
    /// The datagram's number, equal in all its fragments.
    pub id: u16,
}

/// More fragments follow; see [`Ipv4::fragment`].
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// Don't fragment; see [`Ipv4::fragment`].
pub const DONT_FRAGMENT: u16 = 0x4000;

impl Ipv4 {
    /// Without options, not a fragment.
    pub fn new(source: impl Into<Ipv4Addr>, destination: impl Into<Ipv4Addr>) -> Self {
        Self { source: source.into(), destination: destination.into(), options: vec![], fragment: 0, id: 0 }
    }

    /// The packet with any payload. Its checksum is right; its total length is the true one modulo 2^16.
    pub fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut header = vec![0; 20];
        header.extend(&self.options);
        header.resize(header.len().next_multiple_of(4), 0);
        header[0] = 0x40 | (header.len() / 4) as u8;
        let total = (header.len() + payload.len()) as u16;
        header[2..4].copy_from_slice(&total.to_be_bytes());
        header[4..6].copy_from_slice(&self.id.to_be_bytes());
        header[6..8].copy_from_slice(&self.fragment.to_be_bytes());
        header[8] = 64;
        header[9] = protocol;
        header[12..16].copy_from_slice(&self.source.octets());
        header[16..20].copy_from_slice(&self.destination.octets());
        fix_checksum(&mut header);
        header.extend(payload);
        header
    }

    /// A UDP datagram.
    pub fn udp(&self, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
        self.packet(UDP, &udp(ports, data, |segment| self.transport_checksum(UDP, segment)))
    }

    /// A TCP segment with the given sequence number and flags, without options.
    pub fn tcp(&self, ports: (u16, u16), sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
        self.packet(TCP, &tcp(ports, sequence, flags, data, |segment| self.transport_checksum(TCP, segment)))
    }

    /// An ICMP echo request.
    pub fn ping(&self, sequence: u16, data: &[u8]) -> Vec<u8> {
        let [high, low] = sequence.to_be_bytes();
        self.icmp(8, [0, 1, high, low], data)
    }

    /// An ICMP message of any type, with code 0. What `rest` and `data` mean depends on the type.
    pub fn icmp(&self, kind: u8, rest: [u8; 4], data: &[u8]) -> Vec<u8> {
        self.packet(ICMP, &icmp(kind, rest, data, |message| checksum(0, message)))
    }

    /// The fragments of a packet, each with at most `step` bytes of payload (a multiple of eight).
    pub fn fragments(&self, protocol: u8, payload: &[u8], step: usize) -> Vec<Vec<u8>> {
        let count = payload.len().div_ceil(step);
        payload
            .chunks(step)
            .enumerate()
            .map(|(n, part)| {
                let more = if n + 1 < count { MORE_FRAGMENTS } else { 0 };
                Self { fragment: (n * step / 8) as u16 | more, ..self.clone() }.packet(protocol, part)
            })
            .collect()
    }

    pub(super) fn transport_checksum(&self, protocol: u8, segment: &[u8]) -> u16 {
        let ends = [self.source.octets(), self.destination.octets()].concat();
        pseudo_checksum(&ends, protocol, segment)
    }
}

/// Puts the right checksum into an IPv4 header, which starts the slice and says its own length; does nothing
/// if that is impossible.
pub fn fix_checksum(packet: &mut [u8]) {
    let length = packet.first().map_or(0, |byte| usize::from(byte & 0xf) * 4);
    let Some(header) = packet.get_mut(..length).filter(|header| header.len() >= 20) else {
        return;
    };
    header[10..12].fill(0);
    let sum = checksum(0, header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// A stream of `count` full TCP segments of one connection, which GRO can merge: each follows the one before
/// it, with ACK alone set.
pub fn tcp_stream(ip: &Ipv4, ports: (u16, u16), count: usize, size: usize) -> Vec<Vec<u8>> {
    let data: Vec<u8> = (0..size).map(|n| n as u8).collect();
    (0..count)
        .map(|n| {
            let ip = Ipv4 { id: n as u16, fragment: DONT_FRAGMENT, ..ip.clone() };
            ip.tcp(ports, 1 + (n * size) as u32, ACK, &data)
        })
        .collect()
}

/// The fragments of a UDP datagram with `size` bytes of data, each with at most `step` bytes of IP payload
/// (a multiple of eight).
pub fn fragments(ip: &Ipv4, ports: (u16, u16), size: usize, step: usize) -> Vec<Vec<u8>> {
    let data: Vec<u8> = (0..size).map(|n| n as u8).collect();
    let datagram = udp(ports, &data, |segment| ip.transport_checksum(UDP, segment));
    Ipv4 { id: 0x4242, ..ip.clone() }.fragments(UDP, &datagram, step)
}
