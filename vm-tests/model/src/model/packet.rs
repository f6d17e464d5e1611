// SPDX-License-Identifier: GPL-2.0-only
//! Parses a frame as the kernel's receive path does, up to the PROMISC hook.

use std::net::IpAddr;

use etherparse::checksum::Sum16BitWords;
use etherparse::{
    EtherType, Ethernet2HeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice,
    Ipv6RawExtHeaderSlice, SingleVlanHeaderSlice,
};

use crate::frames::Mac;

pub(super) const TCP: u8 = IpNumber::TCP.0;
pub(super) const UDP: u8 = IpNumber::UDP.0;

/// How many extension headers are parsed.
const MAX_EXTENSIONS: usize = 16;

/// A packet that has passed the checks of IP receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// The protocol after the IP header and the extension headers.
    pub protocol: u8,
    /// Not the first fragment, so that the payload does not begin with a transport header.
    pub later_fragment: bool,
    /// The payload of the protocol, without padding.
    pub payload: &'a [u8],
    /// The length of the IP packet.
    pub bytes: u64,
}

impl<'a> Packet<'a> {
    /// The packet in a frame that arrives at a port with the address `port_mac`; `None` when it
    /// does not reach the PROMISC hook.
    pub fn received(frame: &'a [u8], port_mac: Mac) -> Option<Self> {
        let (kind, rest) = for_another_host(frame, port_mac)?;
        match kind {
            EtherType::IPV4 => Self::version4(rest),
            EtherType::IPV6 => Self::version6(rest),
            _ => None,
        }
    }

    /// The checks of IPv4 receive: version, header length, checksum, total length.
    fn version4(packet: &'a [u8]) -> Option<Self> {
        // This checks that the version is 4 and that the header is complete.
        let header = Ipv4HeaderSlice::from_slice(packet).ok()?;
        let total = usize::from(header.total_len());
        if !checksum_is_valid(&header) {
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

    /// The checks of the PROMISC hook for IPv6: version and payload length. Unlike IPv6 receive, it
    /// does not check addresses and options.
    fn version6(packet: &'a [u8]) -> Option<Self> {
        let header = Ipv6HeaderSlice::from_slice(packet).ok()?;
        let rest = &packet[header.slice().len()..];
        let length = usize::from(header.payload_length());
        let payload = if length == 0 && header.next_header() == IpNumber::IPV6_HEADER_HOP_BY_HOP {
            // A jumbo payload option holds the length (RFC 2675): the kernel uses the received
            // length.
            rest
        } else {
            rest.get(..length)?
        };
        let bytes = (header.slice().len() + payload.len()) as u64;
        let (protocol, later_fragment, payload) = after_extensions(header.next_header(), payload);
        Some(Self {
            source: header.source_addr().into(),
            destination: header.destination_addr().into(),
            protocol: protocol.0,
            later_fragment,
            payload,
            bytes,
        })
    }
}

/// The frame's EtherType and its payload, if the kernel classifies the frame as one for another
/// host.
///
/// It does when the destination is neither the port's address nor a group address, or when the
/// frame has the tag of a VLAN without an interface (here: any VLAN). A tag with VLAN 0 carries a
/// priority alone: the kernel strips it and continues. It strips one tag with a VLAN. If another
/// tag follows, no protocol receives the frame.
fn for_another_host(frame: &[u8], port_mac: Mac) -> Option<(EtherType, &[u8])> {
    let header = Ethernet2HeaderSlice::from_slice(frame).ok()?;
    let group = header.destination()[0] & 1 != 0;
    let mut for_another = !group && header.destination() != port_mac;
    let mut kind = header.ether_type();
    let mut rest = &frame[header.slice().len()..];
    while matches!(kind, EtherType::VLAN_TAGGED_FRAME | EtherType::PROVIDER_BRIDGING) {
        let tag = SingleVlanHeaderSlice::from_slice(rest).ok()?;
        kind = tag.ether_type();
        rest = &rest[tag.slice().len()..];
        if tag.vlan_identifier().value() != 0 {
            for_another = true;
            break;
        }
    }
    for_another.then_some((kind, rest))
}

/// Sums the received bytes. (`etherparse` computes the checksum of a parsed header, which has lost
/// the reserved flag bit.)
fn checksum_is_valid(header: &Ipv4HeaderSlice) -> bool {
    Sum16BitWords::new().add_slice(header.slice()).ones_complement() == 0
}

/// Parses extension headers in any order. (`etherparse` stops at headers in an order that RFC 8200
/// does not recommend.) The chain ends at an incomplete header or after [`MAX_EXTENSIONS`]. Returns
/// the protocol after it, whether the packet is a later fragment, and the payload.
fn after_extensions(mut protocol: IpNumber, mut payload: &[u8]) -> (IpNumber, bool, &[u8]) {
    for _ in 0..MAX_EXTENSIONS {
        let Some((next, length, later_fragment)) = extension(protocol, payload) else { break };
        (protocol, payload) = (next, &payload[length..]);
        if later_fragment {
            return (protocol, true, payload);
        }
    }
    (protocol, false, payload)
}

/// The extension header at the start of a slice: the number of the next header, its length, and
/// whether the packet is a later fragment. `None` when `kind` is not an extension header or the
/// header is incomplete.
fn extension(kind: IpNumber, slice: &[u8]) -> Option<(IpNumber, usize, bool)> {
    match kind {
        IpNumber::IPV6_HEADER_HOP_BY_HOP | IpNumber::IPV6_ROUTE_HEADER | IpNumber::IPV6_DESTINATION_OPTIONS => {
            let header = Ipv6RawExtHeaderSlice::from_slice(slice).ok()?;
            Some((header.next_header(), header.slice().len(), false))
        }
        IpNumber::IPV6_FRAGMENTATION_HEADER => {
            let header = Ipv6FragmentHeaderSlice::from_slice(slice).ok()?;
            Some((header.next_header(), header.slice().len(), header.fragment_offset().value() != 0))
        }
        IpNumber::AUTHENTICATION_HEADER => {
            // `etherparse` refuses a header of eight bytes, which the kernel accepts.
            let &[next, words] = slice.first_chunk()?;
            let length = (usize::from(words) + 2) * 4;
            (length <= slice.len()).then_some((IpNumber(next), length, false))
        }
        _ => None,
    }
}
