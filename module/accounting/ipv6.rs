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

/// Returns whether the length of a packet whose payload length is 0 is valid. It is above 65,535,
/// and a jumbo payload option holds it: <https://www.rfc-editor.org/rfc/rfc2675#section-3>. An
/// aggregate of that length need not have the option. The PROMISC hook only gets valid packets, but
/// other hooks get others.
#[cold]
fn is_jumbo(packet: impl Packet) -> bool {
    let payload = packet.length().saturating_sub(SIZE);
    payload > usize::from(u16::MAX)
        && (packet.is_aggregate() || jumbo_length(packet) == u32::try_from(payload).ok())
}

/// The length in the jumbo payload option of the hop-by-hop header.
fn jumbo_length(packet: impl Packet) -> Option<u32> {
    const PAD1: u8 = 0;
    const JUMBO: u8 = 0xc2;
    let [_, units] = packet.array(SIZE)?;
    let end = SIZE + (usize::from(units) + 1) * 8;
    let mut at = SIZE + 2;
    // Saturating, because the packet path must not contain code that panics.
    while end.saturating_sub(at) >= 2 {
        let step = match packet.array(at)? {
            [PAD1, _] => 1,
            [JUMBO, 4] if end.saturating_sub(at) >= 6 => {
                return packet.array(at.saturating_add(2)).map(u32::from_be_bytes);
            }
            [JUMBO, _] => return None,
            [_, length] => 2 + usize::from(length),
        };
        at = at.saturating_add(step);
    }
    None
}

impl Family for u128 {
    const ICMP: u8 = 58;

    /// Echo request (<https://www.rfc-editor.org/rfc/rfc4443#section-4.1>) and extended echo request
    /// (<https://www.rfc-editor.org/rfc/rfc8335#section-2>).
    #[inline]
    fn is_request(icmp_type: u8) -> bool {
        matches!(icmp_type, 128 | 160)
    }

    /// The protocol is the number of the header after the extension headers. If an extension header
    /// is truncated or is one too many, its number is the protocol.
    #[inline]
    fn header(packet: impl Packet) -> Option<Header<Self>> {
        let h: &[u8; SIZE] = packet.linear().first_chunk()?;
        let (source, destination) = h[8..].split_first_chunk()?;
        if [h[4], h[5]] == [0, 0] && h[6] == HOP_BY_HOP && !is_jumbo(packet) {
            return None;
        }
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
        let length = (packet.len() - SIZE) as u16;
        packet[4..6].copy_from_slice(&length.to_be_bytes());
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

    /// A packet with payload length 0 and these options in a hop-by-hop header. `length` is the
    /// number of bytes of that header and what follows it.
    fn jumbo(options: &[u8], length: usize) -> Vec<u8> {
        let mut packet = packet(&[], HOP_BY_HOP);
        packet.truncate(SIZE);
        packet[4..6].fill(0);
        packet.extend([UDP, ((options.len() + 2) / 8).saturating_sub(1) as u8]);
        packet.extend(options);
        packet.resize(SIZE + length, 0);
        packet
    }

    #[test]
    fn a_payload_length_of_0_needs_a_jumbo_option_with_the_length() {
        let option = |length: u32| [&[0xc2, 4][..], &length.to_be_bytes()].concat();
        let is_parsed =
            |options: &[u8], length| u128::header(Bytes(&jumbo(options, length))).is_some();
        assert!(is_parsed(&option(70_000), 70_000));
        assert!(is_parsed(&option(65_536), 65_536));
        assert!(is_parsed(
            &[&[0, 1, 0, 0, 1, 2, 0, 0][..], &option(70_000)].concat(),
            70_000
        ));
        assert!(!is_parsed(&option(70_000), 70_001));
        assert!(!is_parsed(&option(70_000), 69_999));
        assert!(!is_parsed(&option(65_535), 65_535));
        assert!(!is_parsed(&option(1_000), 1_000));
        assert!(!is_parsed(&[1, 4, 0, 0, 0, 0], 70_000), "padding only");
        assert!(!is_parsed(&[0xc2, 2, 0, 1, 0, 0], 65_536), "a short option");
        assert!(
            !is_parsed(&[1, 2, 0, 0, 0xc2, 4], 70_000),
            "the option ends behind the header"
        );
        assert!(!is_parsed(&option(70_000)[..0], 1));
        // Without a hop-by-hop header, the packet has no payload.
        let mut empty = packet(&[], UDP);
        empty.truncate(SIZE);
        empty[4..6].fill(0);
        assert!(u128::header(Bytes(&empty)).is_some());
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
