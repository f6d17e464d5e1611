// SPDX-License-Identifier: GPL-2.0-only
//! Frames inside IP packets, as remote mirrors send them.

use super::{GRE, IPV4, IPV6, Ip, UDP};

/// How a frame travels in an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// Ethernet in GRE, <https://www.rfc-editor.org/rfc/rfc2784>.
    Gretap,
    /// ERSPAN types I (version 0), II (1) and III (2) with this session. Type I has none:
    /// <https://datatracker.ietf.org/doc/html/draft-foschiano-erspan-03>.
    Erspan {
        /// 0, 1 or 2.
        version: u8,
        /// 10 bits.
        session: u16,
    },
    /// VXLAN with this network identifier, <https://www.rfc-editor.org/rfc/rfc7348>.
    Vxlan(u32),
    /// GENEVE with this network identifier, <https://www.rfc-editor.org/rfc/rfc8926>.
    Geneve(u32),
    /// GENEVE as Google Cloud sends it: the packet has no Ethernet header, the network identifier
    /// is 0, and there is an option,
    /// <https://docs.cloud.google.com/network-security-integration/docs/understand-geneve>.
    GenevePacket,
}

impl Tunnel {
    /// The packet with these addresses that carries a frame, or an IP packet in
    /// [`Self::GenevePacket`].
    pub fn packet(self, ip: &Ip, frame: &[u8]) -> Vec<u8> {
        let with = |head: &[u8]| [head, frame].concat();
        match self {
            Self::Gretap => ip.packet(GRE, &with(&[0, 0, 0x65, 0x58])),
            Self::Erspan { version: 0, .. } => ip.packet(GRE, &with(&[0, 0, 0x88, 0xbe])),
            Self::Erspan { version, session } => {
                let [high, low] = session.to_be_bytes();
                // The bit for the sequence number, EtherType, sequence number.
                let kind = if version == 1 { [0x88, 0xbe] } else { [0x22, 0xeb] };
                let gre = [&[0x10, 0][..], &kind, &[0, 0, 0, 1]].concat();
                // Version and VLAN, session, and the fields of the version, all 0.
                let erspan = [&[version << 4, 1, high, low][..], &vec![0; usize::from(version) * 4]].concat();
                ip.packet(GRE, &with(&[gre, erspan].concat()))
            }
            Self::Vxlan(network) => {
                let head = [[8, 0, 0, 0], (network << 8).to_be_bytes()].concat();
                ip.packet(UDP, &ip.datagram((40_000, 4789), &with(&head)))
            }
            Self::Geneve(network) => {
                let head = [[0, 0, 0x65, 0x58], (network << 8).to_be_bytes()].concat();
                ip.packet(UDP, &ip.datagram((40_000, 6081), &with(&head)))
            }
            Self::GenevePacket => {
                let [high, low] = if frame[0] >> 4 == 6 { IPV6 } else { IPV4 }.to_be_bytes();
                // Two words of options; then class, type and length of the option, and its value.
                let head = [[2, 0, high, low], [0; 4], [0x01, 0x32, 1, 1], [0, 0, 0, 7]].concat();
                ip.packet(UDP, &ip.datagram((40_000, 6081), &with(&head)))
            }
        }
    }
}
