// SPDX-License-Identifier: GPL-2.0-only
//! Builds frames, valid and invalid ones. Packets and frames are plain bytes in network byte
//! order, so that a test can change any of them afterwards.

mod extension;
mod generate;
mod ip;
#[cfg(test)]
mod tests;

pub use extension::Extension;
pub use generate::Generator;
pub use ip::{DONT_FRAGMENT, Ip, MORE_FRAGMENTS, fix_checksum};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Two hosts on the mirrored network. Neither is the host with the mirror port.
pub const ALICE: Mac = [0x02, 0xa1, 0xce, 0, 0, 1];
/// See [`ALICE`].
pub const BOB: Mac = [0x02, 0xb0, 0xb0, 0, 0, 2];
/// The broadcast address.
pub const BROADCAST: Mac = [0xff; 6];

/// EtherTypes: <https://www.iana.org/assignments/ieee-802-numbers>.
pub const IPV4: u16 = 0x0800;
/// See [`IPV4`].
pub const IPV6: u16 = 0x86dd;
/// The customer's VLAN tag, IEEE 802.1Q.
pub const DOT1Q: u16 = 0x8100;
/// The provider's VLAN tag, IEEE 802.1ad.
pub const DOT1AD: u16 = 0x88a8;

/// IP protocol numbers: <https://www.iana.org/assignments/protocol-numbers>.
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

/// The flag bits of a TCP header (RFC 9293, section 3.1).
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
    /// A header without tags.
    pub fn new(source: Mac, destination: Mac) -> Self {
        Self { destination, source, tags: Vec::new() }
    }

    /// Appends a tag. `kind` is [`DOT1Q`] or [`DOT1AD`]; `vlan` is the VLAN identifier (12 bits)
    /// with the priority bits above it.
    #[must_use]
    pub fn tag(mut self, kind: u16, vlan: u16) -> Self {
        self.tags.push((kind, vlan));
        self
    }

    /// The frame that carries `payload`, without padding.
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

/// A frame from [`ALICE`] to [`BOB`]. Its EtherType is [`IPV6`] when the packet's version field is
/// 6, and [`IPV4`] otherwise.
pub fn mirrored(packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet.first().is_some_and(|byte| byte >> 4 == 6) { IPV6 } else { IPV4 };
    Ethernet::new(ALICE, BOB).wrap(ethertype, packet)
}

/// Pads a frame to 60 bytes, the shortest Ethernet frame without its checksum.
pub fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(60), 0);
    frame
}

/// An SCTP packet (RFC 9260). Its checksum is zero: a mirror port does not verify it.
pub fn sctp(ports: (u16, u16), tag: u32, chunks: &[u8]) -> Vec<u8> {
    let head = [ports.0, ports.1].map(u16::to_be_bytes).concat();
    [&head[..], &tag.to_be_bytes(), &[0; 4], chunks].concat()
}

/// A GRE packet without optional fields (RFC 2784).
pub fn gre(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&[0, 0][..], &ethertype.to_be_bytes(), payload].concat()
}
