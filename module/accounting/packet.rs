// SPDX-License-Identifier: GPL-2.0

//! Packets and their IP headers.

use super::{counters::Protocol, key::Address};

/// A packet that the kernel's IP receive path has checked. It starts with the IP header. The
/// version, the header length and the checksum are right, and there are no more bytes than the
/// header's total length.
pub trait Packet: Copy {
    /// The bytes in the linear area: at least the IP header without options and extension headers.
    fn linear(&self) -> &[u8];

    /// The length in bytes.
    fn length(&self) -> usize;

    /// The `N` bytes at `offset`. `None` if the packet is shorter.
    fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Returns whether an offload has merged it from several packets.
    fn is_aggregate(&self) -> bool;

    /// The bytes at the IP layer on the wire: of an aggregate, those of all the packets that an
    /// offload has merged. `payload` is the offset of the transport header, in bytes.
    fn wire_len(&self, payload: u16) -> u64;
}

/// The part of a datagram that a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it, or the first fragment: a transport header follows the IP header.
    First,
    /// A later fragment.
    Later,
}

/// The fields of an IP header and its extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<A> {
    /// The source address.
    pub source: A,
    /// The destination address.
    pub destination: A,
    /// The number of the transport protocol.
    pub protocol: u8,
    /// Whether the packet starts with a transport header after the IP header.
    pub part: Part,
    /// The offset of the payload in bytes: at most 32 KiB, which the longest extension headers
    /// take.
    pub payload: u16,
}

/// An address family and its IP header.
pub trait Family: Address {
    /// The protocol number of this family's ICMP.
    const ICMP: u8;

    /// Returns whether an ICMP message of this type is a request, which starts a connection.
    fn is_request(icmp_type: u8) -> bool;

    /// Parses the header of a packet. `None` if the linear area is too short for it, or if the
    /// packet has no valid length.
    fn header(packet: impl Packet) -> Option<Header<Self>>;

    /// The protocol that a number stands for in this family.
    #[inline]
    fn protocol(number: u8) -> Protocol {
        match number {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            number if number == Self::ICMP => Protocol::Icmp,
            _ => Protocol::Other,
        }
    }
}

/// The bytes of an IPv4 header without options:
/// <https://www.rfc-editor.org/rfc/rfc791#section-3.1>.
const IPV4_SIZE: usize = 20;
/// The bits of the fragment offset in the field that also has the flags.
const OFFSET_MASK: u16 = 0x1fff;

impl Family for u32 {
    const ICMP: u8 = 1;

    /// Echo, timestamp and information request (<https://www.rfc-editor.org/rfc/rfc792>), address
    /// mask request (<https://www.rfc-editor.org/rfc/rfc950>), and extended echo request
    /// (<https://www.rfc-editor.org/rfc/rfc8335#section-2>).
    #[inline]
    fn is_request(icmp_type: u8) -> bool {
        matches!(icmp_type, 8 | 13 | 15 | 17 | 42)
    }

    #[inline]
    fn header(packet: impl Packet) -> Option<Header<Self>> {
        let h: &[u8; IPV4_SIZE] = packet.linear().first_chunk()?;
        let offset = u16::from_be_bytes([h[6], h[7]]) & OFFSET_MASK;
        Some(Header {
            source: u32::from_be_bytes([h[12], h[13], h[14], h[15]]),
            destination: u32::from_be_bytes([h[16], h[17], h[18], h[19]]),
            protocol: h[9],
            part: if offset == 0 {
                Part::First
            } else {
                Part::Later
            },
            payload: u16::from(h[0] & 0x0f) * 4,
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::host::Bytes;

    fn ipv4(protocol: u8, fragment: u16) -> [u8; 28] {
        let mut h = [0; 28];
        h[0] = 0x46;
        h[6..8].copy_from_slice(&fragment.to_be_bytes());
        h[9] = protocol;
        h[12..16].copy_from_slice(&[192, 0, 2, 1]);
        h[16..20].copy_from_slice(&[198, 51, 100, 255]);
        h
    }

    #[test]
    fn an_ipv4_header_is_parsed() {
        let expected = Header {
            source: 0xc000_0201,
            destination: 0xc633_64ff,
            protocol: 17,
            part: Part::First,
            payload: 24,
        };
        assert_eq!(u32::header(Bytes(&ipv4(17, 0))), Some(expected));
    }

    #[test]
    fn a_fragment_with_an_offset_is_a_later_part() {
        let part = |fragment| u32::header(Bytes(&ipv4(17, fragment))).unwrap().part;
        for first in [0, 0x2000, 0x4000, 0x8000, 0xe000] {
            assert_eq!(part(first), Part::First, "{first:x}");
        }
        for later in [1, 0x2001, 0x1fff, 0xffff] {
            assert_eq!(part(later), Part::Later, "{later:x}");
        }
    }

    #[test]
    fn each_family_knows_its_own_icmp_only() {
        use Protocol::*;
        for number in 0..=255 {
            let (v4, v6) = match number {
                1 => (Icmp, Other),
                6 => (Tcp, Tcp),
                17 => (Udp, Udp),
                58 => (Other, Icmp),
                _ => (Other, Other),
            };
            assert_eq!(u32::protocol(number), v4, "{number}");
            assert_eq!(u128::protocol(number), v6, "{number}");
        }
    }

    #[test]
    fn a_truncated_header_is_refused() {
        for length in 0..20 {
            assert_eq!(u32::header(Bytes(&ipv4(6, 0)[..length])), None);
        }
    }
}
