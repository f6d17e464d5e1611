// SPDX-License-Identifier: GPL-2.0-only
//! Builds frames, valid and invalid ones. Packets and frames are plain bytes in network byte
//! order, so that a test can change any of them afterwards.

mod extension;
mod generate;
mod ip;
mod layer;
#[cfg(test)]
mod tests;
mod tunnel;

pub use extension::Extension;
pub use generate::Generator;
pub use ip::{DONT_FRAGMENT, Ip, MORE_FRAGMENTS, fix_checksum};
pub use layer::{LAYERS, Layer, wrapped};
pub use tunnel::Tunnel;

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

/// Types of providers' VLAN tags before IEEE 802.1ad.
pub const QINQ: [u16; 3] = [0x9100, 0x9200, 0x9300];
/// The service tag of IEEE 802.1ah. The addresses of the customer's frame belong to it.
pub const ITAG: u16 = 0x88e7;
/// The VN-Tag of Cisco's fabric extenders.
pub const VN_TAG: u16 = 0x8926;
/// The metadata header of Cisco TrustSec.
pub const TRUSTSEC: u16 = 0x8909;
/// A stack of labels, RFC 3032.
pub const MPLS: u16 = 0x8847;
/// See [`MPLS`].
pub const MPLS_MULTICAST: u16 = 0x8848;
/// PPP over Ethernet, RFC 2516.
pub const PPPOE_SESSION: u16 = 0x8864;
/// The address resolution protocol.
pub const ARP: u16 = 0x0806;
/// See [`ARP`]: IEEE 802.1AB.
pub const LLDP: u16 = 0x88cc;
/// See [`ARP`]: IEEE 802.1AE.
pub const MACSEC: u16 = 0x88e5;
/// See [`ARP`]: IEEE 802.1X.
pub const EAPOL: u16 = 0x888e;
/// Lower numbers are the length of a frame with LLC (IEEE 802.3).
pub const LOWEST_ETHERTYPE: u16 = 0x600;

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
