// SPDX-License-Identifier: GPL-2.0
//! From a frame to the packet that the rules see.

use std::net::IpAddr;

use etherparse::checksum::Sum16BitWords;
use etherparse::{
    EtherType, Ethernet2HeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice,
    Ipv6RawExtHeaderSlice, SingleVlanHeaderSlice,
};

use crate::frames::Mac;

pub(super) const TCP: u8 = IpNumber::TCP.0;
pub(super) const UDP: u8 = IpNumber::UDP.0;

/// How many extension headers are walked.
const MAX_EXTENSIONS: usize = 16;

/// What is known of a packet that has passed the checks of IP receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// The protocol behind all headers of IP itself.
    pub protocol: u8,
    /// Not the first fragment: what it carries does not begin with a transport header.
    pub later_fragment: bool,
    /// What the protocol got, without padding.
    pub payload: &'a [u8],
    /// At the IP layer.
    pub bytes: u64,
}

impl<'a> Packet<'a> {
    /// The packet in a frame that comes to a port with the address `box_mac`; none when it is not for the
    /// PROMISC hook.
    pub fn received(frame: &'a [u8], box_mac: Mac) -> Option<Self> {
        let (kind, rest) = for_another_host(frame, box_mac)?;
        match kind {
            EtherType::IPV4 => Self::version4(rest),
            EtherType::IPV6 => Self::version6(rest),
            _ => None,
        }
    }

    /// The checks of IPv4 receive: version, header length, checksum, total length.
    fn version4(packet: &'a [u8]) -> Option<Self> {
        // The version is 4, the header has at least 20 bytes, and all that it claims is there.
        let header = Ipv4HeaderSlice::from_slice(packet).ok()?;
        let total = usize::from(header.total_len());
        if !checksum_is_right(&header) {
            return None;
        }
        Some(Self {
            source: header.source_addr().into(),
            destination: header.destination_addr().into(),
            protocol: header.protocol().0,
            later_fragment: header.fragments_offset().value() != 0,
            payload: packet.get(header.slice().len()..total)?,
            bytes: total as u64,
        })
    }

    /// The checks that the PROMISC hook makes of IPv6: version and payload length. Unlike IPv6 receive it lets
    /// every address pass, and looks into no options.
    fn version6(packet: &'a [u8]) -> Option<Self> {
        let header = Ipv6HeaderSlice::from_slice(packet).ok()?;
        let rest = &packet[header.slice().len()..];
        let length = usize::from(header.payload_length());
        let payload = if length == 0 && header.next_header() == IpNumber::IPV6_HEADER_HOP_BY_HOP {
            // The length is left to a jumbo payload option: the kernel takes the packet as long as it came.
            rest
        } else {
            rest.get(..length)?
        };
        let end = end_of_extensions(header.next_header(), payload);
        Some(Self {
            source: header.source_addr().into(),
            destination: header.destination_addr().into(),
            protocol: end.protocol.0,
            later_fragment: end.later_fragment,
            payload: end.payload,
            bytes: (header.slice().len() + payload.len()) as u64,
        })
    }
}

/// The frame's EtherType and what follows it, if the kernel takes the frame for another host's.
///
/// That is so when its destination address is neither the port's nor a group's, or when it has a tag of a VLAN
/// that the box has no interface for (here: any VLAN). A tag with VLAN 0 gives a priority alone: the kernel
/// strips it, and looks at what is below as if it had not been there. It strips one tag with a VLAN, and if
/// another one follows, nobody receives the frame.
fn for_another_host(frame: &[u8], box_mac: Mac) -> Option<(EtherType, &[u8])> {
    let header = Ethernet2HeaderSlice::from_slice(frame).ok()?;
    let group = header.destination()[0] & 1 != 0;
    let mut other = !group && header.destination() != box_mac;
    let mut kind = header.ether_type();
    let mut rest = &frame[header.slice().len()..];
    while matches!(kind, EtherType::VLAN_TAGGED_FRAME | EtherType::PROVIDER_BRIDGING) {
        let tag = SingleVlanHeaderSlice::from_slice(rest).ok()?;
        kind = tag.ether_type();
        rest = &rest[tag.slice().len()..];
        if tag.vlan_identifier().value() != 0 {
            other = true;
            break;
        }
    }
    other.then_some((kind, rest))
}

/// The sum over the header as it came, its checksum included. (`etherparse` can compute the checksum of a parsed
/// header, but that has lost the reserved flag bit.)
fn checksum_is_right(header: &Ipv4HeaderSlice) -> bool {
    Sum16BitWords::new().add_slice(header.slice()).ones_complement() == 0
}

/// Where a walk along extension headers ends.
struct End<'a> {
    protocol: IpNumber,
    later_fragment: bool,
    payload: &'a [u8],
}

/// Walks the extension headers, wherever each stands. (`etherparse` can walk them, too, but stops at those that
/// are not where RFC 8200 wants them.) A header that cannot be passed is the end: it is not whole, or one too
/// many.
fn end_of_extensions(mut protocol: IpNumber, mut payload: &[u8]) -> End<'_> {
    for _ in 0..MAX_EXTENSIONS {
        let Some(header) = Extension::of(protocol, payload) else {
            break;
        };
        protocol = header.next;
        payload = &payload[header.length..];
        if header.later_fragment {
            return End { protocol, later_fragment: true, payload };
        }
    }
    End { protocol, later_fragment: false, payload }
}

struct Extension {
    next: IpNumber,
    length: usize,
    later_fragment: bool,
}

impl Extension {
    /// The extension header of a kind that a slice begins with, if the kind is one and the header whole.
    fn of(kind: IpNumber, slice: &[u8]) -> Option<Self> {
        match kind {
            IpNumber::IPV6_HEADER_HOP_BY_HOP | IpNumber::IPV6_ROUTE_HEADER | IpNumber::IPV6_DESTINATION_OPTIONS => {
                let header = Ipv6RawExtHeaderSlice::from_slice(slice).ok()?;
                Some(Self { next: header.next_header(), length: header.slice().len(), later_fragment: false })
            }
            IpNumber::IPV6_FRAGMENTATION_HEADER => {
                let header = Ipv6FragmentHeaderSlice::from_slice(slice).ok()?;
                let later_fragment = header.fragment_offset().value() != 0;
                Some(Self { next: header.next_header(), length: header.slice().len(), later_fragment })
            }
            IpNumber::AUTHENTICATION_HEADER => {
                // `etherparse` refuses one of eight bytes, which is too short to be of use, but can be passed.
                let &[next, words] = slice.first_chunk()?;
                let length = (usize::from(words) + 2) * 4;
                (length <= slice.len()).then_some(Self { next: IpNumber(next), length, later_fragment: false })
            }
            _ => None,
        }
    }
}
