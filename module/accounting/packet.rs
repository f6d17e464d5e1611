// SPDX-License-Identifier: GPL-2.0

//! Packets, and how to find one's way in them.

use super::{counters::Protocol, key::Address};

/// A packet that IP receive has checked: version, header length, checksum, and no more bytes than
/// the length in its header says. It begins with the IP header.
pub trait Packet: Copy {
    /// The bytes that lie at hand: at least the IP header without options and extensions.
    fn linear(&self) -> &[u8];

    /// Bytes in all.
    fn length(&self) -> usize;

    /// `N` bytes from anywhere in the packet, if it is that long.
    fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Was it several packets on the wire, merged by an offload?
    fn is_aggregate(&self) -> bool;

    /// Bytes at the IP layer on the wire. What an offload has merged counts as it came. `payload`
    /// is where the payload of the IP header and its extensions begins.
    fn wire_len(&self, payload: u16) -> u64;
}

/// Which part of a datagram a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it, or the first fragment: what is behind the IP header is a transport header.
    First,
    /// A later fragment.
    Later,
}

/// What the IP header, with its extensions, says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<A> {
    /// Who sent it.
    pub source: A,
    /// Whom it is for.
    pub destination: A,
    /// The number of the transport protocol.
    pub protocol: u8,
    /// Whether the transport header is here.
    pub part: Part,
    /// Where the payload begins, in bytes from the start of the packet. With extensions as long as they may be
    /// that is 32 KiB.
    pub payload: u16,
}

/// A family of addresses, with its header.
pub trait Family: Address {
    /// The protocol number of this family's ICMP.
    const ICMP: u8;

    /// Does an ICMP message of this type ask for something, so that it starts a connection?
    fn is_request(icmp_type: u8) -> bool;

    /// Reads the header of a packet, or says that it is not all there.
    fn header(packet: impl Packet) -> Option<Header<Self>>;

    /// The columns of a protocol number.
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

/// Bytes of an IPv4 header without options.
const IPV4_SIZE: usize = 20;
/// The bits of the fragment field that are the offset.
const OFFSET_MASK: u16 = 0x1fff;

impl Family for u32 {
    const ICMP: u8 = 1;

    /// Echo, timestamp, information and address mask.
    #[inline]
    fn is_request(icmp_type: u8) -> bool {
        matches!(icmp_type, 8 | 13 | 15 | 17)
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
    fn reads_an_ipv4_header() {
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
    fn a_fragment_with_an_offset_has_no_transport_header() {
        let part = |fragment| u32::header(Bytes(&ipv4(17, fragment))).unwrap().part;
        for first in [0, 0x2000, 0x4000, 0x8000, 0xe000] {
            assert_eq!(part(first), Part::First, "{first:x}");
        }
        for later in [1, 0x2001, 0x1fff, 0xffff] {
            assert_eq!(part(later), Part::Later, "{later:x}");
        }
    }

    #[test]
    fn protocols_of_the_families() {
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
    fn refuses_a_short_header() {
        for length in 0..20 {
            assert_eq!(u32::header(Bytes(&ipv4(6, 0)[..length])), None);
        }
    }
}
