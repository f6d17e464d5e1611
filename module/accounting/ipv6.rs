// SPDX-License-Identifier: GPL-2.0

//! IPv6 headers and extension headers: <https://www.rfc-editor.org/rfc/rfc8200>.

use super::packet::{Family, Header, Packet, Part};

/// The bytes of the fixed header.
const SIZE: usize = 40;

/// The largest number of extension headers that are skipped. Each kind should occur at most once,
/// Destination Options twice (<https://www.rfc-editor.org/rfc/rfc8200#section-4.1>). A sender of
/// more may want to cause load.
const MAX_EXTENSIONS: usize = 16;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
/// The Authentication Header: <https://www.rfc-editor.org/rfc/rfc4302>.
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// A position in the chain of headers.
#[derive(Clone, Copy)]
struct Step {
    /// The protocol number of the header at `offset`.
    protocol: u8,
    offset: u16,
    part: Part,
}

impl Step {
    /// Skips the extension header at this position. `None` if there is none or if it is truncated.
    #[inline]
    fn next(self, packet: impl Packet) -> Option<Self> {
        match (self.part, self.protocol) {
            (
                Part::First,
                HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS,
            ) => self.skip(packet),
            _ => None,
        }
    }

    fn skip(self, packet: impl Packet) -> Option<Self> {
        // Eight bytes are the shortest extension header.
        let [protocol, length, offset_high, offset_low, ..] =
            packet.array::<8>(self.offset.into())?;
        let mut part = Part::First;
        let size = match self.protocol {
            FRAGMENT => {
                // The lowest three bits are two reserved ones and "more fragments":
                // https://www.rfc-editor.org/rfc/rfc8200#section-4.5
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

    /// Echo Request: <https://www.rfc-editor.org/rfc/rfc4443#section-4.1>.
    #[inline]
    fn is_request(icmp_type: u8) -> bool {
        icmp_type == 128
    }

    /// The protocol is the number of the header after the extension headers. If an extension header
    /// is truncated or is one too many, its number is the protocol.
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

    /// A packet with a chain of extension headers: the number of each, and its bytes without the
    /// first one.
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
    fn a_header_without_extensions_is_parsed() {
        let header = u128::header(Bytes(&packet(&[], UDP))).unwrap();
        assert_eq!(header.source, u128::from_be_bytes([0x11; 16]));
        assert_eq!(header.destination, u128::from_be_bytes([0x22; 16]));
        assert_eq!(
            (header.protocol, header.part, header.payload),
            (UDP, Part::First, 40)
        );
    }

    #[test]
    fn a_truncated_header_is_refused() {
        for length in 0..40 {
            assert_eq!(u128::header(Bytes(&packet(&[], UDP)[..length])), None);
        }
    }

    #[test]
    fn every_kind_of_extension_header_is_skipped() {
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
    fn a_fragment_with_an_offset_is_a_later_part() {
        for (name, fragment, part) in [
            ("atomic", fragment(0, false), Part::First),
            ("first", fragment(0, true), Part::First),
            ("last", fragment(1, false), Part::Later),
        ] {
            assert_eq!(read(&packet(&[fragment], UDP)), (UDP, part, 48), "{name}");
        }
        // The bytes after the header of a later fragment are data, not extension headers.
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
    fn a_truncated_extension_header_is_not_skipped() {
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
    fn at_most_16_extension_headers_are_skipped() {
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
