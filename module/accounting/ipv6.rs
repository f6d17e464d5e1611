// SPDX-License-Identifier: GPL-2.0

//! IPv6 headers and their extensions (RFC 8200).

use super::packet::{Family, Header, Packet, Part};

/// Bytes of the header that every packet has.
const SIZE: usize = 40;

/// How many extension headers are passed. RFC 8200 expects each of its kinds once, one of them
/// twice; whoever sends more wants the box to be busy.
const MAX_EXTENSIONS: usize = 16;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
/// Authentication (RFC 4302).
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Where the walk along the chain of headers has come to.
#[derive(Clone, Copy)]
struct Step {
    /// The number of the header at `offset`.
    protocol: u8,
    offset: u16,
    part: Part,
}

impl Step {
    /// Passes the extension header here. `None` if there is none, or not all of it.
    #[inline]
    fn next(self, packet: impl Packet) -> Option<Self> {
        match (self.part, self.protocol) {
            (
                Part::First,
                HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS,
            ) => self.pass(packet),
            _ => None,
        }
    }

    fn pass(self, packet: impl Packet) -> Option<Self> {
        // No extension header is shorter than that.
        let [protocol, length, offset_high, offset_low, ..] =
            packet.array::<8>(self.offset.into())?;
        let mut part = Part::First;
        let size = match self.protocol {
            FRAGMENT => {
                // The lowest three bits are reserved and "more fragments".
                if u16::from_be_bytes([offset_high, offset_low]) >> 3 != 0 {
                    part = Part::Later;
                }
                8
            }
            AUTHENTICATION => (u16::from(length) + 2) * 4,
            _ => (u16::from(length) + 1) * 8,
        };
        let offset = self.offset.checked_add(size)?;
        (usize::from(offset) <= packet.length()).then_some(Self {
            protocol,
            offset,
            part,
        })
    }
}

impl Family for u128 {
    const ICMP: u8 = 58;

    /// Echo.
    #[inline]
    fn is_request(icmp_type: u8) -> bool {
        icmp_type == 128
    }

    /// The protocol is the number at the end of the chain of extension headers, or of the one that
    /// cannot be passed: because it is not whole, or comes after too many.
    #[inline]
    fn header(packet: impl Packet) -> Option<Header<Self>> {
        let h: &[u8; SIZE] = packet.linear().first_chunk()?;
        let (source, destination) = h[8..].split_first_chunk()?;
        let mut step = Step {
            protocol: h[6],
            offset: SIZE as u16,
            part: Part::First,
        };
        for _ in 0..MAX_EXTENSIONS {
            let Some(next) = step.next(packet) else {
                break;
            };
            step = next;
        }
        Some(Header {
            source: u128::from_be_bytes(*source),
            destination: u128::from_be_bytes(*destination.first_chunk()?),
            protocol: step.protocol,
            part: step.part,
            payload: step.offset,
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::host::Bytes;
    use std::{vec, vec::Vec};

    const UDP: u8 = 17;

    /// A packet with these extension headers: their numbers and bytes, without the first.
    fn packet(chain: &[(u8, Vec<u8>)], last: u8) -> Vec<u8> {
        let mut numbers = chain.iter().map(|(number, _)| *number).chain([last]);
        let mut packet = vec![0; SIZE];
        packet[0] = 0x60;
        packet[6] = numbers.next().unwrap();
        packet[8..24].fill(0x11);
        packet[24..40].fill(0x22);
        for (_, body) in chain {
            packet.push(numbers.next().unwrap());
            packet.extend(body);
        }
        packet.extend([0; 8]);
        packet
    }

    /// An extension header of `units` times 8 bytes.
    fn options(number: u8, units: u8) -> (u8, Vec<u8>) {
        let mut body = vec![0; usize::from(units) * 8 - 1];
        body[0] = units - 1;
        (number, body)
    }

    fn fragment(offset: u16, more: bool) -> (u8, Vec<u8>) {
        let field = (offset << 3 | u16::from(more)).to_be_bytes();
        (FRAGMENT, vec![0, field[0], field[1], 1, 2, 3, 4])
    }

    /// An authentication header of `words` times 4 bytes.
    fn authentication(words: u8) -> (u8, Vec<u8>) {
        let mut body = vec![0; usize::from(words) * 4 - 1];
        body[0] = words - 2;
        (AUTHENTICATION, body)
    }

    fn read(packet: &[u8]) -> (u8, Part, u16) {
        let header = u128::header(Bytes(packet)).unwrap();
        (header.protocol, header.part, header.payload)
    }

    #[test]
    fn reads_a_header_without_extensions() {
        let header = u128::header(Bytes(&packet(&[], UDP))).unwrap();
        assert_eq!(header.source, u128::from_be_bytes([0x11; 16]));
        assert_eq!(header.destination, u128::from_be_bytes([0x22; 16]));
        assert_eq!(
            (header.protocol, header.part, header.payload),
            (UDP, Part::First, 40)
        );
    }

    #[test]
    fn refuses_a_short_header() {
        for length in 0..40 {
            assert_eq!(u128::header(Bytes(&packet(&[], UDP)[..length])), None);
        }
    }

    #[test]
    fn passes_every_kind() {
        let chain = [
            options(HOP_BY_HOP, 1),
            options(DESTINATION_OPTIONS, 2),
            options(ROUTING, 3),
            fragment(0, true),
            authentication(6),
            options(DESTINATION_OPTIONS, 1),
        ];
        assert_eq!(
            read(&packet(&chain, UDP)),
            (UDP, Part::First, 40 + 8 + 16 + 24 + 8 + 24 + 8)
        );
    }

    #[test]
    fn fragments() {
        assert_eq!(
            read(&packet(&[fragment(0, false)], UDP)),
            (UDP, Part::First, 48),
            "atomic"
        );
        assert_eq!(
            read(&packet(&[fragment(0, true)], UDP)),
            (UDP, Part::First, 48),
            "first"
        );
        assert_eq!(
            read(&packet(&[fragment(1, false)], UDP)),
            (UDP, Part::Later, 48),
            "last"
        );
        // What follows in a later fragment is data, whatever it looks like.
        let chain = [fragment(185, true), options(DESTINATION_OPTIONS, 1)];
        assert_eq!(
            read(&packet(&chain, UDP)),
            (DESTINATION_OPTIONS, Part::Later, 48)
        );
    }

    #[test]
    fn other_headers_end_the_chain() {
        for number in [50, 59, 135, 139, 253] {
            assert_eq!(
                read(&packet(&[options(ROUTING, 1), options(number, 1)], UDP)),
                (number, Part::First, 48)
            );
        }
    }

    #[test]
    fn a_header_that_is_cut_short_is_not_passed() {
        let whole = packet(
            &[options(HOP_BY_HOP, 1), options(DESTINATION_OPTIONS, 2)],
            UDP,
        );
        for length in 48..64 {
            assert_eq!(
                read(&whole[..length]),
                (DESTINATION_OPTIONS, Part::First, 48),
                "{length}"
            );
        }
        assert_eq!(read(&whole[..64]), (UDP, Part::First, 64));
        for length in 40..48 {
            assert_eq!(
                read(&whole[..length]),
                (HOP_BY_HOP, Part::First, 40),
                "{length}"
            );
        }
    }

    #[test]
    fn the_walk_has_an_end() {
        let chain = |count| vec![options(DESTINATION_OPTIONS, 1); count];
        assert_eq!(
            read(&packet(&chain(16), UDP)),
            (UDP, Part::First, 40 + 16 * 8)
        );
        assert_eq!(
            read(&packet(&chain(17), UDP)),
            (DESTINATION_OPTIONS, Part::First, 40 + 16 * 8)
        );
    }
}
