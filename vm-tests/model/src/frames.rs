// SPDX-License-Identifier: GPL-2.0
//! Makes frames, right ones and wrong ones. Everything is plain bytes in network order, so that a test can
//! break any of them afterwards.

mod generate;
mod ip;
mod ipv4;
mod ipv6;
#[cfg(test)]
mod tests;
mod transport;

pub use generate::Generator;
pub use ip::Ip;
pub use ipv4::{DONT_FRAGMENT, Ipv4, MORE_FRAGMENTS, fix_checksum, fragments, tcp_stream};
pub use ipv6::{Extension, Ipv6};
pub use transport::{gre, sctp};

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
/// See [`ICMP`].
pub const GRE: u8 = 47;
/// See [`ICMP`].
pub const ICMPV6: u8 = 58;
/// See [`ICMP`].
pub const SCTP: u8 = 132;

/// The flag bits of a TCP header.
pub const FIN: u8 = 1;
/// See [`FIN`].
pub const SYN: u8 = 2;
/// See [`FIN`].
pub const RST: u8 = 4;
/// See [`FIN`].
pub const PSH: u8 = 8;
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

/// The same for an IPv6 packet.
pub fn mirrored6(packet: &[u8]) -> Vec<u8> {
    Ethernet::new(ALICE, BOB).wrap(IPV6, packet)
}

/// Fills a frame up to the 60 bytes that an Ethernet frame has at least.
pub fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(60), 0);
    frame
}

/// The checksum of a TCP, UDP or ICMPv6 message between two addresses, which are one after the other in `ends`.
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
