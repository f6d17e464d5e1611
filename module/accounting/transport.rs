// SPDX-License-Identifier: GPL-2.0

//! Transport headers: whether a packet can start a connection, by its own contents.

use super::{
    counters::Protocol,
    packet::{Family, Header, Packet, Part},
};

/// The ports of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The source port.
    pub source: u16,
    /// The destination port.
    pub destination: u16,
}

/// The transport header of a packet that can be the first one of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// A TCP SYN. It can be a retransmission.
    Syn {
        /// The ports.
        ports: Ports,
        /// The sequence number. A retransmission has the same one.
        sequence: u32,
    },
    /// A UDP datagram, the first or a later one of its flow.
    Datagram {
        /// The ports.
        ports: Ports,
    },
    /// An ICMP request. Each one is a connection.
    Request,
    /// A packet of another protocol, the first or a later one of its flow.
    Packet {
        /// The protocol number.
        protocol: u8,
    },
}

/// The bytes of a TCP header without options: <https://www.rfc-editor.org/rfc/rfc9293#section-3.1>.
const TCP_SIZE: usize = 20;
/// The bytes of a UDP header: <https://www.rfc-editor.org/rfc/rfc768>.
const UDP_SIZE: usize = 8;
/// The bytes of an ICMP header: <https://www.rfc-editor.org/rfc/rfc792>.
const ICMP_SIZE: usize = 8;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

impl Opening {
    /// Parses the transport header. `None` if the packet neither starts a connection nor belongs to
    /// a flow: a TCP segment that is not a plain SYN, an ICMP message that is not a request, a
    /// later fragment, or a truncated header.
    #[inline]
    pub fn parse<A: Family>(packet: impl Packet, header: &Header<A>) -> Option<Self> {
        if let Part::Later = header.part {
            return None;
        }
        let payload = usize::from(header.payload);
        match A::protocol(header.protocol) {
            Protocol::Tcp => Self::parse_tcp(&packet.array(payload)?),
            Protocol::Udp => Some(Self::parse_udp(&packet.array(payload)?)),
            Protocol::Icmp => Self::parse_icmp::<A>(&packet.array(payload)?),
            Protocol::Other => Some(Self::Packet {
                protocol: header.protocol,
            }),
        }
    }

    #[inline]
    fn parse_tcp(h: &[u8; TCP_SIZE]) -> Option<Self> {
        let sequence = u32::from_be_bytes([h[4], h[5], h[6], h[7]]);
        (h[13] & (SYN | ACK | RST | FIN) == SYN).then_some(Self::Syn {
            ports: Ports::parse([h[0], h[1], h[2], h[3]]),
            sequence,
        })
    }

    #[inline]
    fn parse_udp(h: &[u8; UDP_SIZE]) -> Self {
        Self::Datagram {
            ports: Ports::parse([h[0], h[1], h[2], h[3]]),
        }
    }

    #[inline]
    fn parse_icmp<A: Family>(h: &[u8; ICMP_SIZE]) -> Option<Self> {
        A::is_request(h[0]).then_some(Self::Request)
    }

    /// The port that the connection is counted under: the destination port, or 0 without ports.
    #[inline]
    pub fn port(&self) -> u16 {
        match self {
            Self::Syn { ports, .. } | Self::Datagram { ports } => ports.destination,
            Self::Request | Self::Packet { .. } => 0,
        }
    }

    /// The protocol that the connection is counted under.
    #[inline]
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Syn { .. } => Protocol::Tcp,
            Self::Datagram { .. } => Protocol::Udp,
            Self::Request => Protocol::Icmp,
            Self::Packet { .. } => Protocol::Other,
        }
    }
}

impl Ports {
    #[inline]
    fn parse([a, b, c, d]: [u8; 4]) -> Self {
        Self {
            source: u16::from_be_bytes([a, b]),
            destination: u16::from_be_bytes([c, d]),
        }
    }

    /// The ports of a packet in the other direction.
    #[inline]
    pub fn swapped(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::host::Bytes;
    use std::vec::Vec;

    const PORTS: Ports = Ports {
        source: 0x1234,
        destination: 0x5678,
    };

    fn header<A: Family + From<u8>>(protocol: u8, part: Part) -> Header<A> {
        Header {
            source: 1.into(),
            destination: 2.into(),
            protocol,
            part,
            payload: 4,
        }
    }

    /// A packet with `payload` at offset 4, as in [`header`].
    fn packet(payload: &[u8]) -> Vec<u8> {
        [&[0xff; 4], payload].concat()
    }

    fn tcp(flags: u8) -> Vec<u8> {
        let mut segment = [0; 20];
        segment[..8].copy_from_slice(&[0x12, 0x34, 0x56, 0x78, 0xfe, 0xdc, 0xba, 0x98]);
        segment[13] = flags;
        packet(&segment)
    }

    fn of_v4(packet: &[u8], protocol: u8) -> Option<Opening> {
        Opening::parse(Bytes(packet), &header::<u32>(protocol, Part::First))
    }

    fn of_v6(packet: &[u8], protocol: u8) -> Option<Opening> {
        Opening::parse(Bytes(packet), &header::<u128>(protocol, Part::First))
    }

    #[test]
    fn only_a_plain_syn_opens_a_tcp_connection() {
        let syn = Opening::Syn {
            ports: PORTS,
            sequence: 0xfedc_ba98,
        };
        for flags in 0..=255 {
            let opens = flags & 0x17 == 0x02;
            assert_eq!(of_v4(&tcp(flags), 6), opens.then_some(syn), "{flags:x}");
        }
        assert_eq!((syn.port(), syn.protocol()), (0x5678, Protocol::Tcp));
    }

    #[test]
    fn a_udp_datagram_has_its_ports() {
        let datagram = packet(&[0x12, 0x34, 0x56, 0x78, 0, 8, 0, 0]);
        let opening = of_v6(&datagram, 17).unwrap();
        assert_eq!(opening, Opening::Datagram { ports: PORTS });
        assert_eq!(
            (opening.port(), opening.protocol()),
            (0x5678, Protocol::Udp)
        );
    }

    #[test]
    fn only_icmp_requests_open_a_connection() {
        for kind in 0..=255 {
            let message = packet(&[kind, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(
                of_v4(&message, 1).is_some(),
                [8, 13, 15, 17, 42].contains(&kind),
                "{kind}"
            );
            assert_eq!(
                of_v6(&message, 58).is_some(),
                [128, 160].contains(&kind),
                "{kind}"
            );
        }
        assert_eq!(
            (Opening::Request.port(), Opening::Request.protocol()),
            (0, Protocol::Icmp)
        );
    }

    #[test]
    fn a_truncated_header_opens_nothing() {
        let full = [0x02; 20];
        for (protocol, size) in [(6, 20), (17, 8)] {
            assert!(of_v4(&packet(&full[..size]), protocol).is_some());
            assert_eq!(of_v4(&packet(&full[..size - 1]), protocol), None);
        }
        let ping = [8, 0, 0, 0, 0, 0, 0, 0];
        assert!(of_v4(&packet(&ping), 1).is_some());
        assert_eq!(of_v4(&packet(&ping[..7]), 1), None);
    }

    #[test]
    fn a_later_fragment_opens_nothing() {
        let later = |protocol| {
            Opening::parse(
                Bytes(&packet(&[8; 20])),
                &header::<u32>(protocol, Part::Later),
            )
        };
        assert_eq!([6, 17, 1, 47].map(later), [None; 4]);
    }

    #[test]
    fn other_protocols_need_no_header() {
        let opening = of_v4(&packet(&[]), 47).unwrap();
        assert_eq!(opening, Opening::Packet { protocol: 47 });
        assert_eq!((opening.port(), opening.protocol()), (0, Protocol::Other));
        assert_eq!(
            of_v4(&packet(&[]), 58),
            Some(Opening::Packet { protocol: 58 })
        );
        assert_eq!(
            of_v6(&packet(&[]), 1),
            Some(Opening::Packet { protocol: 1 })
        );
    }
}
