// SPDX-License-Identifier: GPL-2.0-only
//! Headers between the Ethernet header of a frame and an IP packet.

use super::{
    ALICE, BOB, DOT1AD, DOT1Q, Ethernet, IPV4, IPV6, ITAG, MPLS, MPLS_MULTICAST, PPPOE_SESSION, QINQ, TRUSTSEC, VN_TAG,
};

/// One layer of each kind.
pub const LAYERS: [Layer; 14] = [
    Layer::Vlan(DOT1Q, 5),
    Layer::Vlan(DOT1Q, 0xe000),
    Layer::Vlan(DOT1AD, 6),
    Layer::Vlan(QINQ[0], 7),
    Layer::Vlan(QINQ[2], 7),
    Layer::ServiceTag,
    Layer::VnTag,
    Layer::TrustSec(1),
    Layer::TrustSec(4),
    Layer::Label,
    Layer::PseudoWire { control_word: true },
    Layer::PseudoWire { control_word: false },
    Layer::Pppoe,
    Layer::Snap,
];

/// A header around a packet, or around further headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// A VLAN tag: its EtherType and its VLAN.
    Vlan(u16, u16),
    /// A service tag of IEEE 802.1ah, with the addresses of the customer's frame.
    ServiceTag,
    /// A VN-Tag.
    VnTag,
    /// A tag of Cisco TrustSec with this number of options.
    TrustSec(u8),
    /// A label of MPLS. If neither a label nor an IP packet follows, it is as
    /// [`Layer::PseudoWire`] without a control word.
    Label,
    /// The last label of MPLS, followed by a frame of Ethernet with or without a control word.
    PseudoWire {
        /// Whether the frame has a control word.
        control_word: bool,
    },
    /// A PPPoE session. Its protocol is LCP if no IP packet follows.
    Pppoe,
    /// LLC and SNAP with an EtherType.
    Snap,
}

impl Layer {
    /// The EtherType of the layer and its bytes, around those of another EtherType. For
    /// [`Layer::Snap`], the first number is the length of the frame.
    fn wrap(self, kind: u16, inner: &[u8]) -> (u16, Vec<u8>) {
        let typed = |head: &[u8]| [head, &kind.to_be_bytes(), inner].concat();
        match self {
            Self::Vlan(own, vlan) => (own, typed(&vlan.to_be_bytes())),
            Self::ServiceTag => (ITAG, typed(&[&[0, 1, 2, 3][..], &BOB, &ALICE].concat())),
            Self::VnTag => (VN_TAG, typed(&[0, 0, 0, 0x14])),
            Self::TrustSec(options) => {
                (TRUSTSEC, typed(&[vec![1, options], [0, 1, 0, 0x10].repeat(options.into())].concat()))
            }
            Self::Label => match kind {
                MPLS | MPLS_MULTICAST => (kind, [&label(false)[..], inner].concat()),
                IPV4 | IPV6 => (MPLS, [&label(true)[..], inner].concat()),
                _ => Self::PseudoWire { control_word: false }.wrap(kind, inner),
            },
            Self::PseudoWire { control_word } => {
                let word: &[u8] = if control_word { &[0, 0, 0, 7] } else { &[] };
                (MPLS, [&label(true), word, &Ethernet::new(ALICE, BOB).wrap(kind, inner)].concat())
            }
            Self::Pppoe => {
                let protocol: u16 = match kind {
                    IPV4 => 0x0021,
                    IPV6 => 0x0057,
                    _ => 0xc021,
                };
                let length = (inner.len() + 2) as u16;
                let head = [0x1100, 5, length, protocol].map(u16::to_be_bytes).concat();
                (PPPOE_SESSION, [&head, inner].concat())
            }
            Self::Snap => {
                let body = typed(&[0xaa, 0xaa, 3, 0, 0, 0]);
                // The longest frame of IEEE 802.3. The kernel does not use the length.
                (body.len().min(1500) as u16, body)
            }
        }
    }
}

/// Label 100 with the time to live 64.
fn label(last: bool) -> [u8; 4] {
    (100 << 12 | u32::from(last) << 8 | 64).to_be_bytes()
}

/// A frame from [`ALICE`] to [`BOB`] with these headers, the outermost first, around a packet. Its
/// EtherType is that of the packet's version.
pub fn wrapped(layers: &[Layer], packet: &[u8]) -> Vec<u8> {
    let kind = if packet.first().is_some_and(|byte| byte >> 4 == 6) { IPV6 } else { IPV4 };
    Ethernet::new(ALICE, BOB).wrap_in(layers, kind, packet)
}

impl Ethernet {
    /// The frame with these headers, the outermost first, around `payload`. `ethertype` is the type
    /// of the payload.
    pub fn wrap_in(&self, layers: &[Layer], ethertype: u16, payload: &[u8]) -> Vec<u8> {
        let inner = (ethertype, payload.to_vec());
        let (kind, body) = layers.iter().rev().fold(inner, |(kind, inner), layer| layer.wrap(kind, &inner));
        self.wrap(kind, &body)
    }
}
