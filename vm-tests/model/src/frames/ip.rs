// SPDX-License-Identifier: GPL-2.0
//! Packets of either family.

use std::net::IpAddr;

use super::ipv6::chain;
use super::transport::{icmp, tcp, udp};
use super::{
    ACK, ALICE, BOB, DONT_FRAGMENT, Ethernet, Extension, ICMP, ICMPV6, IPV4, IPV6, Ipv4, Ipv6, TCP, UDP, checksum,
};

/// A packet of either family in the making.
#[derive(Clone, Debug)]
pub enum Ip {
    /// IPv4.
    V4(Ipv4),
    /// IPv6, with extension headers.
    V6(Ipv6, Vec<Extension>),
}

impl Ip {
    /// From one address to another, without options and extension headers.
    ///
    /// # Panics
    /// When the addresses are of different families.
    pub fn new(source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Self {
        match (source.into(), destination.into()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Self::V4(Ipv4::new(source, destination)),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Self::V6(Ipv6 { source, destination }, vec![]),
            (source, destination) => panic!("from {source} to {destination}"),
        }
    }

    /// Where an answer goes.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::V4(ip) => Self::V4(Ipv4 { source: ip.destination, destination: ip.source, ..ip }),
            Self::V6(ip, extensions) => Self::V6(Ipv6 { source: ip.destination, destination: ip.source }, extensions),
        }
    }

    /// What Ethernet calls it.
    pub fn ethertype(&self) -> u16 {
        match self {
            Self::V4(_) => IPV4,
            Self::V6(..) => IPV6,
        }
    }

    /// The number of its ICMP.
    pub fn icmp_number(&self) -> u8 {
        match self {
            Self::V4(_) => ICMP,
            Self::V6(..) => ICMPV6,
        }
    }

    /// The packet with any payload.
    pub fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        match self {
            Self::V4(ip) => ip.packet(protocol, payload),
            Self::V6(ip, extensions) => ip.extended(extensions, protocol, payload),
        }
    }

    /// A frame from [`ALICE`] to [`BOB`] with one of its packets.
    pub fn mirrored(&self, packet: &[u8]) -> Vec<u8> {
        Ethernet::new(ALICE, BOB).wrap(self.ethertype(), packet)
    }

    /// The payload that is a UDP datagram.
    pub fn datagram(&self, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
        udp(ports, data, |segment| self.transport_checksum(UDP, segment))
    }

    /// The payload that is a TCP segment.
    pub fn segment(&self, ports: (u16, u16), sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
        tcp(ports, sequence, flags, data, |segment| self.transport_checksum(TCP, segment))
    }

    /// The payload that is a message of its ICMP.
    pub fn message(&self, kind: u8, rest: [u8; 4], data: &[u8]) -> Vec<u8> {
        icmp(kind, rest, data, |message| match self {
            Self::V4(_) => checksum(0, message),
            Self::V6(ip, _) => ip.transport_checksum(ICMPV6, message),
        })
    }

    /// A UDP datagram.
    pub fn udp(&self, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
        self.packet(UDP, &self.datagram(ports, data))
    }

    /// A TCP segment with the given sequence number and flags, without options.
    pub fn tcp(&self, ports: (u16, u16), sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
        self.packet(TCP, &self.segment(ports, sequence, flags, data))
    }

    /// A message of its ICMP, with code 0.
    pub fn icmp(&self, kind: u8, rest: [u8; 4], data: &[u8]) -> Vec<u8> {
        self.packet(self.icmp_number(), &self.message(kind, rest, data))
    }

    /// An echo request.
    pub fn ping(&self, sequence: u16, data: &[u8]) -> Vec<u8> {
        let [high, low] = sequence.to_be_bytes();
        let kind = if matches!(self, Self::V4(_)) { 8 } else { 128 };
        self.icmp(kind, [0, 1, high, low], data)
    }

    /// A stream of `count` full TCP segments, as [`super::tcp_stream`].
    pub fn stream(&self, ports: (u16, u16), count: usize, data: &[u8]) -> Vec<Vec<u8>> {
        (0..count)
            .map(|n| {
                let mut ip = self.clone();
                if let Self::V4(ip) = &mut ip {
                    (ip.id, ip.fragment) = (n as u16, DONT_FRAGMENT);
                }
                ip.tcp(ports, 1 + (n * data.len()) as u32, ACK, data)
            })
            .collect()
    }

    /// The fragments of a packet, each with at most `step` bytes of its payload (a multiple of eight). In IPv6
    /// the fragment header is the last of the extension headers.
    pub fn fragments(&self, protocol: u8, payload: &[u8], step: usize) -> Vec<Vec<u8>> {
        let (ip, extensions) = match self {
            Self::V4(ip) => return ip.fragments(protocol, payload, step),
            Self::V6(ip, extensions) => (ip, extensions),
        };
        let count = payload.len().div_ceil(step);
        let parts = payload.chunks(step).enumerate().map(|(n, part)| {
            let header = Extension::Fragment((n * step / 8) as u16, n + 1 < count, 0x4242);
            let (first, rest) = chain(&[header], protocol, part);
            ip.extended(extensions, first, &rest)
        });
        parts.collect()
    }

    fn transport_checksum(&self, protocol: u8, segment: &[u8]) -> u16 {
        match self {
            Self::V4(ip) => ip.transport_checksum(protocol, segment),
            Self::V6(ip, _) => ip.transport_checksum(protocol, segment),
        }
    }
}
