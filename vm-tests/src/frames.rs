// SPDX-License-Identifier: GPL-2.0
//! Makes frames, right ones and wrong ones. Everything is plain bytes in network order, so that a test can
//! break any of them afterwards.

mod generate;

pub use generate::Generator;

use std::net::{Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Two hosts on the mirrored network, neither of which is the box.
pub const ALICE: Mac = [0x02, 0xa1, 0xce, 0, 0, 1];
/// See [`ALICE`].
pub const BOB: Mac = [0x02, 0xb0, 0xb0, 0, 0, 2];
/// Everybody.
pub const BROADCAST: Mac = [0xff; 6];

/// EtherTypes.
pub const IPV4: u16 = 0x0800;
/// See [`IPV4`].
pub const IPV6: u16 = 0x86dd;
/// The customer's VLAN tag, 802.1Q.
pub const DOT1Q: u16 = 0x8100;
/// The provider's VLAN tag, 802.1ad.
pub const DOT1AD: u16 = 0x88a8;

/// IP protocol numbers.
pub const ICMP: u8 = 1;
/// See [`ICMP`].
pub const TCP: u8 = 6;
/// See [`ICMP`].
pub const UDP: u8 = 17;

/// The flag bits of a TCP header.
pub const FIN: u8 = 1;
/// See [`FIN`].
pub const SYN: u8 = 2;
/// See [`FIN`].
pub const ACK: u8 = 16;

/// An Ethernet header with any number of VLAN tags.
#[derive(Clone, Debug)]
pub struct Ethernet {
    destination: Mac,
    source: Mac,
    tags: Vec<(u16, u16)>,
}

impl Ethernet {
    /// No tag.
    pub fn new(source: Mac, destination: Mac) -> Self {
        Self { destination, source, tags: Vec::new() }
    }

    /// Adds a tag after the ones there are: [`DOT1Q`] or [`DOT1AD`], and the VLAN's number (12 bits; with
    /// priority bits above if wanted).
    #[must_use]
    pub fn tag(mut self, kind: u16, vlan: u16) -> Self {
        self.tags.push((kind, vlan));
        self
    }

    /// The frame that carries `payload` as `ethertype`. Nothing pads it.
    pub fn wrap(&self, ethertype: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = [self.destination, self.source].concat();
        for (kind, vlan) in &self.tags {
            frame.extend(kind.to_be_bytes());
            frame.extend(vlan.to_be_bytes());
        }
        frame.extend(ethertype.to_be_bytes());
        frame.extend(payload);
        frame
    }
}

/// A frame from [`ALICE`] to [`BOB`] that carries an IPv4 packet.
pub fn mirrored(packet: &[u8]) -> Vec<u8> {
    Ethernet::new(ALICE, BOB).wrap(IPV4, packet)
}

/// Fills a frame up to the 60 bytes that an Ethernet frame has at least.
pub fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(60), 0);
    frame
}

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
        let mut message = [&[8, 0, 0, 0, 0, 1][..], &sequence.to_be_bytes(), data].concat();
        let sum = checksum(0, &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        self.packet(ICMP, &message)
    }

    fn transport_checksum(&self, protocol: u8, segment: &[u8]) -> u16 {
        let ends = [self.source.octets(), self.destination.octets()].concat();
        pseudo_checksum(&ends, protocol, segment)
    }
}

/// An IPv6 packet in the making, without extension headers.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6 {
    /// From.
    pub source: Ipv6Addr,
    /// To.
    pub destination: Ipv6Addr,
}

impl Ipv6 {
    /// The packet with any payload.
    pub fn packet(&self, next_header: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len() as u16;
        let head = [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[next_header, 64]].concat();
        [&head[..], &self.source.octets(), &self.destination.octets(), payload].concat()
    }

    /// A UDP datagram.
    pub fn udp(&self, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
        let ends = [self.source.octets(), self.destination.octets()].concat();
        self.packet(UDP, &udp(ports, data, |segment| pseudo_checksum(&ends, UDP, segment)))
    }
}

fn udp(ports: (u16, u16), data: &[u8], sum: impl Fn(&[u8]) -> u16) -> Vec<u8> {
    let length = (8 + data.len()) as u16;
    let head = [ports.0, ports.1, length, 0].map(u16::to_be_bytes).concat();
    let mut segment = [&head[..], data].concat();
    // In UDP a sum of zero means that there is none.
    let sum = match sum(&segment) {
        0 => 0xffff,
        sum => sum,
    };
    segment[6..8].copy_from_slice(&sum.to_be_bytes());
    segment
}

fn tcp(ports: (u16, u16), sequence: u32, flags: u8, data: &[u8], sum: impl Fn(&[u8]) -> u16) -> Vec<u8> {
    let mut segment = [ports.0, ports.1].map(u16::to_be_bytes).concat();
    segment.extend(sequence.to_be_bytes());
    segment.extend([0, 0, 0, 1, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(data);
    let sum = sum(&segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
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

fn pseudo_checksum(ends: &[u8], protocol: u8, segment: &[u8]) -> u16 {
    // Source, destination, protocol and length (RFC 768, 9293); IPv6 has the same numbers in wider fields.
    let start = sum_of(0, ends) + u32::from(protocol) + segment.len() as u32;
    checksum(start, segment)
}

/// The Internet checksum (RFC 1071).
fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = sum_of(start, bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn sum_of(start: u32, bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(start, |sum, pair| {
        let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        let sum = sum + u32::from(word);
        (sum & 0xffff) + (sum >> 16)
    })
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
    let count = datagram.len().div_ceil(step);
    datagram
        .chunks(step)
        .enumerate()
        .map(|(n, part)| {
            let more = if n + 1 < count { MORE_FRAGMENTS } else { 0 };
            let fragment = (n * step / 8) as u16 | more;
            Ipv4 { fragment, id: 0x4242, ..ip.clone() }.packet(UDP, part)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_parser_agrees_with_the_builders() {
        let ip = Ipv4 { options: vec![7, 4, 4, 0, 1], ..Ipv4::new([10, 0, 0, 1], [10, 0, 0, 2]) };
        for packet in [ip.udp((1, 2), b"data"), ip.tcp((1, 2), 3, SYN, b"odd"), ip.ping(4, b"ping")] {
            let sliced = etherparse::SlicedPacket::from_ethernet(&mirrored(&packet)).map(drop);
            sliced.expect("a whole packet");
            let (header, payload) = etherparse::Ipv4Header::from_slice(&packet).unwrap();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(usize::from(header.total_len), packet.len());
            assert_eq!(header.header_len(), 28);
            check_transport(&header, payload);
        }
    }

    fn check_transport(header: &etherparse::Ipv4Header, payload: &[u8]) {
        match header.protocol.0 {
            TCP => {
                let (tcp, data) = etherparse::TcpHeader::from_slice(payload).unwrap();
                assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4(header, data).unwrap());
            }
            UDP => {
                let (udp, data) = etherparse::UdpHeader::from_slice(payload).unwrap();
                assert_eq!(udp.checksum, udp.calc_checksum_ipv4(header, data).unwrap());
            }
            _ => assert_eq!(checksum(0, payload), 0),
        }
    }

    #[test]
    fn ipv6_checksums_are_right_too() {
        let ip = Ipv6 { source: Ipv6Addr::LOCALHOST, destination: "2001:db8::1".parse().unwrap() };
        let packet = ip.udp((53, 53), b"six");
        let (header, rest) = etherparse::Ipv6Header::from_slice(&packet).unwrap();
        let (udp, data) = etherparse::UdpHeader::from_slice(rest).unwrap();
        assert_eq!(udp.checksum, udp.calc_checksum_ipv6(&header, data).unwrap());
    }

    #[test]
    fn fragments_put_together_are_the_datagram() {
        let ip = Ipv4::new([10, 0, 0, 1], [10, 0, 0, 2]);
        let parts = fragments(&ip, (1, 2), 3000, 1480);
        let sizes: Vec<usize> = parts.iter().map(Vec::len).collect();
        assert_eq!(sizes, [1500, 1500, 20 + 3008 - 2 * 1480]);
        let joined: Vec<u8> = parts.iter().flat_map(|part| &part[20..]).copied().collect();
        assert_eq!(joined, ip.udp((1, 2), &(0..3000).map(|n| n as u8).collect::<Vec<_>>())[20..]);
    }

    #[test]
    fn tags_come_before_the_ethertype() {
        let frame = Ethernet::new(ALICE, BOB).tag(DOT1AD, 5).tag(DOT1Q, 6).wrap(IPV4, b"x");
        assert_eq!(frame[12..], [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 8, 0, b'x']);
    }
}
