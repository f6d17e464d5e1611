// SPDX-License-Identifier: GPL-2.0
//! IPv6 packets.

use std::net::Ipv6Addr;

use super::transport::{icmp, tcp, udp};
use super::{ICMPV6, TCP, UDP, pseudo_checksum};

/// The header of an IPv6 packet in the making.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6 {
    /// From.
    pub source: Ipv6Addr,
    /// To.
    pub destination: Ipv6Addr,
}

impl Ipv6 {
    /// The packet with any payload. Its payload length is the true one modulo 2^16.
    pub fn packet(&self, next_header: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len() as u16;
        let head = [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[next_header, 64]].concat();
        [&head[..], &self.source.octets(), &self.destination.octets(), payload].concat()
    }

    /// The packet with extension headers before the payload.
    pub fn extended(&self, extensions: &[Extension], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let (first, chain) = chain(extensions, protocol, payload);
        self.packet(first, &chain)
    }

    /// A UDP datagram.
    pub fn udp(&self, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
        self.packet(UDP, &udp(ports, data, |segment| self.transport_checksum(UDP, segment)))
    }

    /// A TCP segment with the given sequence number and flags, without options.
    pub fn tcp(&self, ports: (u16, u16), sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
        self.packet(TCP, &tcp(ports, sequence, flags, data, |segment| self.transport_checksum(TCP, segment)))
    }

    /// An ICMPv6 message of any type (128 is an echo request), with code 0.
    pub fn icmp(&self, kind: u8, rest: [u8; 4], data: &[u8]) -> Vec<u8> {
        self.packet(ICMPV6, &icmp(kind, rest, data, |message| self.transport_checksum(ICMPV6, message)))
    }

    pub(super) fn transport_checksum(&self, protocol: u8, segment: &[u8]) -> u16 {
        let ends = [self.source.octets(), self.destination.octets()].concat();
        pseudo_checksum(&ends, protocol, segment)
    }
}

/// An extension header. The vectors hold what follows its length; it is filled up with zeros to the next
/// possible length, which in options means padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Options for every router.
    HopByHop(Vec<u8>),
    /// A routing header, beginning with its type.
    Routing(Vec<u8>),
    /// Options for the destination.
    Destination(Vec<u8>),
    /// A fragment header: the offset in units of eight bytes, whether more follow, and the packet's number.
    Fragment(u16, bool, u32),
    /// An authentication header: what follows the two reserved bytes (its length is in units of four bytes).
    /// With less than index and sequence number, eight bytes, it is shorter than RFC 4302 allows.
    Authentication(Vec<u8>),
}

impl Extension {
    /// A fragment header in a packet that is no fragment.
    pub const ATOMIC: Self = Self::Fragment(0, false, 0);

    /// Its protocol number.
    pub fn number(&self) -> u8 {
        match self {
            Self::HopByHop(_) => 0,
            Self::Routing(_) => 43,
            Self::Fragment(..) => 44,
            Self::Authentication(_) => 51,
            Self::Destination(_) => 60,
        }
    }

    /// Its bytes, when the header after it has the number `next`.
    pub fn bytes(&self, next: u8) -> Vec<u8> {
        match self {
            Self::HopByHop(rest) | Self::Routing(rest) | Self::Destination(rest) => {
                let mut header = [&[next, 0][..], rest].concat();
                header.resize(header.len().next_multiple_of(8), 0);
                header[1] = (header.len() / 8 - 1) as u8;
                header
            }
            Self::Fragment(offset, more, id) => {
                let place = offset << 3 | u16::from(*more);
                [&[next, 0][..], &place.to_be_bytes(), &id.to_be_bytes()].concat()
            }
            Self::Authentication(rest) => {
                let mut header = [&[next, 0, 0, 0][..], rest].concat();
                header.resize(header.len().next_multiple_of(4).max(8), 0);
                header[1] = (header.len() / 4 - 2) as u8;
                header
            }
        }
    }
}

/// Extension headers and payload in a row, and the number of the first.
pub(super) fn chain(extensions: &[Extension], protocol: u8, payload: &[u8]) -> (u8, Vec<u8>) {
    extensions.iter().rev().fold((protocol, payload.to_vec()), |(next, rest), header| {
        (header.number(), [header.bytes(next), rest].concat())
    })
}
