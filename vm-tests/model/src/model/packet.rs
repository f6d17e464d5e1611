// SPDX-License-Identifier: GPL-2.0-only
//! Parses a frame as the kernel's receive path does, up to the PROMISC hook.

use std::borrow::Cow;
use std::net::IpAddr;

use etherparse::checksum::Sum16BitWords;
use etherparse::{
    EtherType, Ethernet2HeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice,
    Ipv6RawExtHeaderSlice, SingleVlanHeaderSlice,
};

use super::Port;
use super::unwrap::unwrap;
use crate::frames::{IPV4, IPV6, Mac};

pub(super) const TCP: u8 = IpNumber::TCP.0;
pub(super) const UDP: u8 = IpNumber::UDP.0;

/// How many extension headers are parsed.
const MAX_EXTENSIONS: usize = 16;

/// A packet that has passed the checks of IP receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// The protocol after the IP header and the extension headers.
    pub protocol: u8,
    /// Not the first fragment, so that the payload does not begin with a transport header.
    pub later_fragment: bool,
    /// The payload of the protocol, without padding. Bytes that are missing at the end of a sliced
    /// packet are zero.
    pub payload: Cow<'a, [u8]>,
    /// The length of the IP packet.
    pub bytes: u64,
}

/// Why a frame of a mirror device reaches no rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It holds no IP packet.
    NotIp,
    /// A header is not valid.
    Broken,
    /// The end of a header or of the packet is missing.
    Cut,
    /// More headers are around the packet than a mirror device removes.
    TooDeep,
}

impl<'a> Packet<'a> {
    /// The packet in a frame that arrives at a port. `None` when it does not reach the PROMISC
    /// hook.
    pub fn received(frame: &'a [u8], port: Port) -> Option<Self> {
        match port {
            Port::Plain(mac) => {
                let (kind, rest) = for_another_host(frame, mac)?;
                Self::checked(kind.0, rest, false).ok()
            }
            Port::Mirror { sliced } => Self::mirrored(frame, sliced).ok(),
        }
    }

    /// The packet in a frame that a mirror device receives.
    pub fn mirrored(frame: &'a [u8], sliced: bool) -> Result<Self, Fault> {
        let (kind, rest) = unwrap(frame)?;
        Self::checked(kind, rest, sliced)
    }

    fn checked(kind: u16, packet: &'a [u8], sliced: bool) -> Result<Self, Fault> {
        match kind {
            IPV4 => Self::version4(packet, sliced),
            IPV6 => Self::version6(packet, sliced),
            _ => Err(Fault::NotIp),
        }
    }

    /// The checks of IPv4 receive: version, header length, checksum, total length. If `sliced`, the
    /// end of the packet may be missing.
    fn version4(packet: &'a [u8], sliced: bool) -> Result<Self, Fault> {
        let first: &[u8; 20] = packet.first_chunk().ok_or(Fault::Cut)?;
        let length = usize::from(first[0] & 0xf) * 4;
        if first[0] >> 4 != 4 || length < 20 {
            return Err(Fault::Broken);
        }
        let header = packet.get(..length).ok_or(Fault::Cut)?;
        if !checksum_is_valid(header) {
            return Err(Fault::Broken);
        }
        let header = Ipv4HeaderSlice::from_slice(header).map_err(|_| Fault::Broken)?;
        let total = usize::from(header.total_len());
        let later_fragment = header.fragments_offset().value() != 0;
        let transport = length + transport_length(header.protocol(), later_fragment);
        if total > packet.len() && !(sliced && packet.len() >= total.min(transport)) {
            return Err(Fault::Cut);
        }
        if total < length {
            return Err(Fault::Broken);
        }
        Ok(Self {
            source: header.source_addr().into(),
            destination: header.destination_addr().into(),
            protocol: header.protocol().0,
            later_fragment,
            payload: extended(&packet[length..], total - length),
            bytes: total as u64,
        })
    }

    /// The checks of the PROMISC hook for IPv6: version and payload length. Unlike IPv6 receive, it
    /// does not check addresses and options. If `sliced`, the end of the packet may be missing.
    fn version6(packet: &'a [u8], sliced: bool) -> Result<Self, Fault> {
        let (first, rest): (&[u8; 40], _) = packet.split_first_chunk().ok_or(Fault::Cut)?;
        if first[0] >> 4 != 6 {
            return Err(Fault::Broken);
        }
        let header = Ipv6HeaderSlice::from_slice(first).map_err(|_| Fault::Broken)?;
        let length = match usize::from(header.payload_length()) {
            0 if header.next_header() == IpNumber::IPV6_HEADER_HOP_BY_HOP => jumbo_length(rest)?,
            length if length > rest.len() && !(sliced && has_transport(header.next_header(), rest, length)) => {
                return Err(Fault::Cut);
            }
            length => length,
        };
        let payload = extended(rest, length);
        let (protocol, later_fragment, behind) = after_extensions(header.next_header(), &payload);
        let headers = payload.len() - behind.len();
        Ok(Self {
            source: header.source_addr().into(),
            destination: header.destination_addr().into(),
            protocol: protocol.0,
            later_fragment,
            payload: match payload {
                Cow::Borrowed(payload) => Cow::Borrowed(&payload[headers..]),
                Cow::Owned(payload) => Cow::Owned(payload[headers..].to_vec()),
            },
            bytes: (first.len() + length) as u64,
        })
    }
}

/// How many bytes of the transport header must not be missing in a sliced packet.
fn transport_length(protocol: IpNumber, later_fragment: bool) -> usize {
    match protocol {
        _ if later_fragment => 0,
        IpNumber::TCP => 20,
        _ => 8,
    }
}

/// Whether a sliced payload has all extension headers and the transport header. `length` is the
/// length of the whole payload.
fn has_transport(first: IpNumber, payload: &[u8], length: usize) -> bool {
    let (protocol, later_fragment, behind) = after_extensions(first, payload);
    let is_incomplete = matches!(
        protocol,
        IpNumber::IPV6_HEADER_HOP_BY_HOP
            | IpNumber::IPV6_ROUTE_HEADER
            | IpNumber::IPV6_FRAGMENTATION_HEADER
            | IpNumber::IPV6_DESTINATION_OPTIONS
            | IpNumber::AUTHENTICATION_HEADER
            | IpNumber::IPV6_NO_NEXT_HEADER
    );
    let headers = payload.len() - behind.len();
    later_fragment
        || !is_incomplete && payload.len() >= length.min(headers + transport_length(protocol, later_fragment))
}

/// The first `length` bytes of a slice, with zeros after its end.
fn extended(slice: &[u8], length: usize) -> Cow<'_, [u8]> {
    match slice.get(..length) {
        Some(all) => Cow::Borrowed(all),
        None => Cow::Owned([slice, &vec![0; length - slice.len()]].concat()),
    }
}

/// The length in the jumbo payload option of the hop-by-hop header at the start of a slice. It must
/// be above 65,535: <https://www.rfc-editor.org/rfc/rfc2675#section-3>.
fn jumbo_length(payload: &[u8]) -> Result<usize, Fault> {
    const PAD1: u8 = 0;
    const JUMBO: u8 = 0xc2;
    let header: &[u8; 8] = payload.first_chunk().ok_or(Fault::Cut)?;
    let header = payload.get(..(usize::from(header[1]) + 1) * 8).ok_or(Fault::Cut)?;
    let mut options = &header[2..];
    loop {
        match options {
            [PAD1, rest @ ..] => options = rest,
            [JUMBO, 4, a, b, c, d, ..] => {
                let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                return match length {
                    0..=0xffff => Err(Fault::Broken),
                    _ if length > payload.len() => Err(Fault::Cut),
                    _ => Ok(length),
                };
            }
            [JUMBO, ..] => return Err(Fault::Broken),
            [_, length, rest @ ..] => options = rest.get(usize::from(*length)..).ok_or(Fault::Broken)?,
            _ => return Err(Fault::Broken),
        }
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
pub(super) fn checksum_is_valid(header: &[u8]) -> bool {
    Sum16BitWords::new().add_slice(header).ones_complement() == 0
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
