// SPDX-License-Identifier: GPL-2.0-only
//! Link types: what the bytes of a captured frame begin with.
//!
//! <https://www.tcpdump.org/linktypes.html> describes them. Frames without an Ethernet header get
//! one, from [`ALICE`] to [`BOB`].

use std::fmt;

use pcap_parser::Linktype;

use crate::frames::{ALICE, BOB, Ethernet, IPV4, IPV6, LOWEST_ETHERTYPE};

/// The values of `DLT_RAW` that some systems have written into files.
const RAW_OF_BSD: Linktype = Linktype(12);
const RAW_OF_OPENBSD: Linktype = Linktype(14);

/// The length of an Ethernet header in bytes.
const ETHERNET_HEADER: usize = 14;

/// Why a captured frame cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unsendable {
    /// Its link type, which is not one of those that this module knows.
    LinkType(i32),
    /// It ends within the header of its link type.
    Incomplete,
    /// The protocol of a "cooked" frame (SLL, SLL2), which is not an EtherType.
    Protocol(u16),
    /// The address family of a BSD loopback frame (NULL, LOOP) that is neither IPv4 nor IPv6.
    Family(u32),
    /// The IP version of a raw packet that is neither 4 nor 6.
    Version(u8),
    /// It is longer than this, the longest frame in bytes that the port accepts.
    TooLong(usize),
}

impl fmt::Display for Unsendable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkType(number) => write!(f, "link type {number} is not supported"),
            Self::Incomplete => f.write_str("the frame ends within its link-layer header"),
            Self::Protocol(number) => write!(f, "the protocol {number:#06x} is not an EtherType"),
            Self::Family(number) => write!(f, "the address family {number} is neither IPv4 nor IPv6"),
            Self::Version(number) => write!(f, "the IP version {number} is neither 4 nor 6"),
            Self::TooLong(longest) => write!(f, "the frame is longer than {longest} bytes"),
        }
    }
}

/// The Ethernet frame for captured bytes.
pub(super) fn ethernet(link_type: Linktype, captured: &[u8]) -> Result<Vec<u8>, Unsendable> {
    let (ethertype, payload) = match link_type {
        Linktype::ETHERNET if captured.len() < ETHERNET_HEADER => return Err(Unsendable::Incomplete),
        Linktype::ETHERNET => return Ok(captured.to_vec()),
        Linktype::RAW | RAW_OF_BSD | RAW_OF_OPENBSD => (version(captured)?, captured),
        Linktype::IPV4 => (IPV4, captured),
        Linktype::IPV6 => (IPV6, captured),
        Linktype::NULL | Linktype::LOOP => loopback(captured)?,
        Linktype::LINUX_SLL => cooked::<16>(captured, |header| [header[14], header[15]])?,
        Linktype::LINUX_SLL2 => cooked::<20>(captured, |header| [header[0], header[1]])?,
        Linktype(number) => return Err(Unsendable::LinkType(number)),
    };
    Ok(Ethernet::new(ALICE, BOB).wrap(ethertype, payload))
}

fn version(packet: &[u8]) -> Result<u16, Unsendable> {
    match packet.first().ok_or(Unsendable::Incomplete)? >> 4 {
        4 => Ok(IPV4),
        6 => Ok(IPV6),
        other => Err(Unsendable::Version(other)),
    }
}

/// A header that is the address family. NULL has it in the byte order of the host that captured,
/// which is the file's only if no program has rewritten the file, so both orders are read. LOOP has
/// it in network byte order.
fn loopback(captured: &[u8]) -> Result<(u16, &[u8]), Unsendable> {
    /// `AF_INET` of all systems.
    const INET: u32 = 2;
    /// `AF_INET6` of NetBSD and OpenBSD, FreeBSD, and macOS.
    const INET6: [u32; 3] = [24, 28, 30];
    let (family, payload) = captured.split_first_chunk().ok_or(Unsendable::Incomplete)?;
    let family = u32::from_le_bytes(*family);
    let known = |family: u32| match family {
        INET => Some(IPV4),
        _ => INET6.contains(&family).then_some(IPV6),
    };
    let ethertype = known(family).or_else(|| known(family.swap_bytes()));
    // A family is a small number.
    ethertype.map(|kind| (kind, payload)).ok_or(Unsendable::Family(family.min(family.swap_bytes())))
}

/// A header of `N` bytes that has an EtherType. `protocol` finds it. Numbers below EtherTypes mean
/// LLC and other formats: <https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL.html>.
fn cooked<const N: usize>(captured: &[u8], protocol: fn(&[u8; N]) -> [u8; 2]) -> Result<(u16, &[u8]), Unsendable> {
    let (header, payload) = captured.split_first_chunk().ok_or(Unsendable::Incomplete)?;
    match u16::from_be_bytes(protocol(header)) {
        number @ 0..LOWEST_ETHERTYPE => Err(Unsendable::Protocol(number)),
        ethertype => Ok((ethertype, payload)),
    }
}
