// SPDX-License-Identifier: GPL-2.0-only
//! Packets of both families: IPv4 (RFC 791) and IPv6 (RFC 8200).

use std::net::IpAddr;

use etherparse::checksum::Sum16BitWords;

use super::{ACK, Extension, ICMP, ICMPV6, IPV4, IPV6, TCP, UDP};

/// A builder of packets between two addresses of one family.
#[derive(Clone, Debug)]
pub struct Ip {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// IPv4 only: option bytes, at most 40. Zeros fill the header to a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv4 only: the flags (top three bits) and the fragment offset in units of eight bytes.
    pub fragment: u16,
    /// IPv4 only: the identification, equal in all fragments of a packet.
    pub id: u16,
    /// IPv6 only.
    pub extensions: Vec<Extension>,
}

/// More fragments follow; see [`Ip::fragment`].
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// Don't fragment; see [`Ip::fragment`].
pub const DONT_FRAGMENT: u16 = 0x4000;

/// The identification in the fragment headers of [`Ip::fragments`].
const FRAGMENT_ID: u32 = 0x4242;

impl Ip {
    /// No options, no extension headers, not a fragment.
    ///
    /// # Panics
    /// When the addresses are of different families.
    pub fn new(source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Self {
        let (source, destination) = (source.into(), destination.into());
        assert_eq!(source.is_ipv6(), destination.is_ipv6(), "from {source} to {destination}");
        Self { source, destination, options: vec![], fragment: 0, id: 0, extensions: vec![] }
    }

    /// As [`Ip::new`], with addresses as text.
    ///
    /// # Panics
    /// When they are not addresses, or of different families.
    pub fn between(source: &str, destination: &str) -> Self {
        let [source, destination] = [source, destination].map(|text| text.parse::<IpAddr>().expect("an IP address"));
        Self::new(source, destination)
    }

    /// Swaps source and destination.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source, ..self }
    }

    /// Whether the addresses are IPv6 addresses.
    pub fn is_ipv6(&self) -> bool {
        self.source.is_ipv6()
    }

    /// Its EtherType.
    pub fn ethertype(&self) -> u16 {
        if self.is_ipv6() { IPV6 } else { IPV4 }
    }

    /// The protocol number of its family's ICMP.
    pub fn icmp_number(&self) -> u8 {
        if self.is_ipv6() { ICMPV6 } else { ICMP }
    }

    /// The packet with any payload. The length field holds the length modulo 2^16; the IPv4
    /// checksum is valid.
    pub fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = vec![0; 20];
                header.extend(&self.options);
                header.resize(header.len().next_multiple_of(4), 0);
                header[0] = 0x40 | (header.len() / 4) as u8;
                let total = (header.len() + payload.len()) as u16;
                header[2..4].copy_from_slice(&total.to_be_bytes());
                header[4..6].copy_from_slice(&self.id.to_be_bytes());
                header[6..8].copy_from_slice(&self.fragment.to_be_bytes());
                header[8..10].copy_from_slice(&[64, protocol]);
                header[12..16].copy_from_slice(&source.octets());
                header[16..20].copy_from_slice(&destination.octets());
                fix_checksum(&mut header);
                header.extend(payload);
                header
            }
            _ => {
                let (first, chain) =
                    self.extensions.iter().rev().fold((protocol, payload.to_vec()), |(next, rest), header| {
                        (header.number(), [header.bytes(next), rest].concat())
                    });
                let length = (chain.len() as u16).to_be_bytes();
                [&[0x60, 0, 0, 0][..], &length, &[first, 64], &self.addresses(), &chain].concat()
            }
        }
    }

    /// A UDP datagram without the IP header.
    pub fn datagram(&self, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
        let length = (8 + data.len()) as u16;
        let head = [ports.0, ports.1, length, 0].map(u16::to_be_bytes).concat();
        let mut datagram = [&head[..], data].concat();
        // RFC 768: zero means that there is no checksum.
        let sum = self.sum(UDP, &datagram).to_ones_complement_with_no_zero();
        datagram[6..8].copy_from_slice(&sum.to_ne_bytes());
        datagram
    }

    /// A TCP segment without the IP header.
    pub fn segment(&self, ports: (u16, u16), sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
        let mut segment = [ports.0, ports.1].map(u16::to_be_bytes).concat();
        segment.extend(sequence.to_be_bytes());
        segment.extend([0, 0, 0, 1, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend(data);
        let sum = self.sum(TCP, &segment).ones_complement();
        segment[16..18].copy_from_slice(&sum.to_ne_bytes());
        segment
    }

    /// A message of its family's ICMP with code 0, without the IP header. The meaning of `rest` and
    /// `data` depends on the type.
    pub fn message(&self, kind: u8, rest: [u8; 4], data: &[u8]) -> Vec<u8> {
        let mut message = [&[kind, 0, 0, 0][..], &rest, data].concat();
        // RFC 792 has no pseudo-header, RFC 4443 has.
        let sum = if self.is_ipv6() { self.sum(ICMPV6, &message) } else { Sum16BitWords::new().add_slice(&message) };
        message[2..4].copy_from_slice(&sum.ones_complement().to_ne_bytes());
        message
    }

    /// A UDP packet.
    pub fn udp(&self, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
        self.packet(UDP, &self.datagram(ports, data))
    }

    /// A TCP packet without TCP options.
    pub fn tcp(&self, ports: (u16, u16), sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
        self.packet(TCP, &self.segment(ports, sequence, flags, data))
    }

    /// An ICMP or ICMPv6 packet; see [`Ip::message`].
    pub fn icmp(&self, kind: u8, rest: [u8; 4], data: &[u8]) -> Vec<u8> {
        self.packet(self.icmp_number(), &self.message(kind, rest, data))
    }

    /// An echo request.
    pub fn ping(&self, sequence: u16, data: &[u8]) -> Vec<u8> {
        let [high, low] = sequence.to_be_bytes();
        self.icmp(if self.is_ipv6() { 128 } else { 8 }, [0, 1, high, low], data)
    }

    /// `count` TCP packets of one connection, which GRO can merge: each continues the one before,
    /// with ACK as the only flag.
    pub fn stream(&self, ports: (u16, u16), count: usize, data: &[u8]) -> Vec<Vec<u8>> {
        (0..count)
            .map(|n| {
                let ip = Self { id: n as u16, fragment: DONT_FRAGMENT, ..self.clone() };
                ip.tcp(ports, 1 + (n * data.len()) as u32, ACK, data)
            })
            .collect()
    }

    /// One fragment. The offset counts units of eight bytes. In IPv6 the fragment header follows
    /// the other extension headers.
    pub fn fragment_at(&self, offset: u16, more: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut ip = self.clone();
        ip.fragment = offset | if more { MORE_FRAGMENTS } else { 0 };
        ip.extensions.push(Extension::Fragment(offset, more, FRAGMENT_ID));
        ip.packet(protocol, payload)
    }

    /// The fragments of a packet, each with at most `step` bytes of payload (a multiple of eight).
    pub fn fragments(&self, protocol: u8, payload: &[u8], step: usize) -> Vec<Vec<u8>> {
        let parts = payload.chunks(step).enumerate();
        let more = |n: usize| (n + 1) * step < payload.len();
        parts.map(|(n, part)| self.fragment_at((n * step / 8) as u16, more(n), protocol, part)).collect()
    }

    /// The source and the destination as bytes.
    fn addresses(&self) -> Vec<u8> {
        let bytes = |address| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        [bytes(self.source), bytes(self.destination)].concat()
    }

    /// The sum with a pseudo-header: addresses, protocol and length (RFC 768, RFC 9293). IPv6 has
    /// the same numbers in wider fields (RFC 8200, section 8.1).
    fn sum(&self, protocol: u8, segment: &[u8]) -> Sum16BitWords {
        let length = (segment.len() as u32).to_be_bytes();
        let addresses = Sum16BitWords::new().add_slice(&self.addresses());
        addresses.add_2bytes([0, protocol]).add_4bytes(length).add_slice(segment)
    }
}

/// Sets the checksum of the IPv4 header at the start of the slice. Does nothing when the slice is
/// shorter than the header length field says, or that length is less than 20 bytes.
pub fn fix_checksum(packet: &mut [u8]) {
    let length = packet.first().map_or(0, |byte| usize::from(byte & 0xf) * 4);
    let Some(header) = packet.get_mut(..length).filter(|header| header.len() >= 20) else {
        return;
    };
    header[10..12].fill(0);
    let sum = Sum16BitWords::new().add_slice(header).ones_complement();
    header[10..12].copy_from_slice(&sum.to_ne_bytes());
}
