// SPDX-License-Identifier: GPL-2.0-only
//! Removes the headers between the Ethernet header of a mirrored frame and the IP packet, as a
//! mirror device does.
//!
//! The layouts are those of the standards. The kernel's code is another implementation of them.

use super::packet::{Fault, checksum_is_valid};
use crate::frames::{
    ARP, DOT1AD, DOT1Q, EAPOL, IPV4, IPV6, ITAG, LLDP, LOWEST_ETHERTYPE, MACSEC, MPLS, MPLS_MULTICAST, PPPOE_SESSION,
    QINQ, TRUSTSEC, VN_TAG,
};

/// The most headers that are removed. A label of MPLS is one header.
pub const MAX_HEADERS: usize = 16;

/// The bytes of a frame that have not been parsed.
#[derive(Clone, Copy)]
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// The next `N` bytes, which are removed.
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Fault::Cut)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn skip(&mut self, count: usize) -> Result<(), Fault> {
        self.0 = self.0.get(count..).ok_or(Fault::Cut)?;
        Ok(())
    }

    fn number(&mut self) -> Result<u16, Fault> {
        self.take().map(u16::from_be_bytes)
    }

    /// The number at an offset, which stays.
    fn number_at(&self, offset: usize) -> Option<u16> {
        self.0.get(offset..)?.first_chunk().copied().map(u16::from_be_bytes)
    }
}

/// The EtherType of the packet in a frame, [`IPV4`] or [`IPV6`], and what follows it.
///
/// # Errors
/// When the frame holds no IP packet.
pub(super) fn unwrap(frame: &[u8]) -> Result<(u16, &[u8]), Fault> {
    let mut rest = Rest(frame);
    rest.skip(12)?;
    let mut kind = rest.number()?;
    for _ in 0..=MAX_HEADERS {
        if matches!(kind, IPV4 | IPV6) {
            return Ok((kind, rest.0));
        }
        kind = header(kind, &mut rest)?;
    }
    Err(Fault::TooDeep)
}

/// Removes the header of an EtherType and returns the next EtherType.
fn header(kind: u16, rest: &mut Rest<'_>) -> Result<u16, Fault> {
    match kind {
        DOT1Q | DOT1AD => tag(rest, 2),
        _ if QINQ.contains(&kind) => tag(rest, 2),
        ITAG => tag(rest, 4 + 6 + 6),
        VN_TAG => tag(rest, 4),
        TRUSTSEC => trustsec(rest),
        MPLS | MPLS_MULTICAST => label(kind, rest),
        PPPOE_SESSION => pppoe(rest),
        0..LOWEST_ETHERTYPE => snap(rest),
        _ => Err(Fault::NotIp),
    }
}

/// A tag whose fixed part is followed by the next EtherType.
fn tag(rest: &mut Rest<'_>, length: usize) -> Result<u16, Fault> {
    rest.skip(length)?;
    rest.number()
}

/// Cisco TrustSec: version 1, the number of options, and four bytes for each.
fn trustsec(rest: &mut Rest<'_>) -> Result<u16, Fault> {
    let [version, options] = rest.take()?;
    if version != 1 || options > 4 {
        return Err(Fault::Broken);
    }
    tag(rest, usize::from(options) * 4)
}

/// LLC with SNAP (IEEE 802.2), for Ethernet types (RFC 1042) or as IEEE 802.1H writes them. The
/// field of the type held the length of the frame.
fn snap(rest: &mut Rest<'_>) -> Result<u16, Fault> {
    if *rest.0.first().ok_or(Fault::Cut)? != 0xaa {
        return Err(Fault::NotIp);
    }
    match rest.take::<6>()? {
        [0xaa, 0xaa, 3, 0, 0, 0 | 0xf8] => match rest.number()? {
            0..LOWEST_ETHERTYPE => Err(Fault::NotIp),
            kind => Ok(kind),
        },
        _ => rest.number().and(Err(Fault::NotIp)),
    }
}

/// RFC 2516. What follows the length is padding.
fn pppoe(rest: &mut Rest<'_>) -> Result<u16, Fault> {
    let [version_and_type, code, _, _] = rest.take()?;
    let length = usize::from(rest.number()?);
    let protocol = rest.number()?;
    if (version_and_type, code) != (0x11, 0) || length < 2 {
        return Err(Fault::Broken);
    }
    let kind = match protocol {
        0x0021 => IPV4,
        0x0057 => IPV6,
        _ => return Err(Fault::NotIp),
    };
    rest.0 = &rest.0[..rest.0.len().min(length - 2)];
    Ok(kind)
}

/// RFC 3032. Another label follows unless the bit S is set.
fn label(kind: u16, rest: &mut Rest<'_>) -> Result<u16, Fault> {
    let [_, _, third, _] = rest.take()?;
    if third & 1 == 0 {
        return Ok(kind);
    }
    let version = *rest.0.first().ok_or(Fault::Cut)? >> 4;
    if begins_with_frame(*rest, version) {
        return tag(rest, 12);
    }
    match version {
        4 => Ok(IPV4),
        6 => Ok(IPV6),
        CONTROL_WORD => tag(rest, 4 + 12),
        _ => Err(Fault::NotIp),
    }
}

/// The first four bits of a control word and of the associated channel of a pseudowire (RFC 4385).
const CONTROL_WORD: u8 = 0;
const CHANNEL: u8 = 1;

/// Whether a frame of Ethernet without a control word follows the last label. If its address begins
/// as IP or as a control word does, it has a known EtherType, or LLC and
/// SNAP, and does not look like the other.
fn begins_with_frame(rest: Rest<'_>, version: u8) -> bool {
    let known_at = |offset: usize| {
        let behind = rest.0.get(offset + 2..).unwrap_or_default();
        let version = behind.first().filter(|_| behind.len() >= 3).map(|byte| byte >> 4);
        match rest.number_at(offset) {
            Some(IPV4) => version == Some(4),
            Some(IPV6) => version == Some(6),
            Some(0..LOWEST_ETHERTYPE) => behind.starts_with(&[0xaa, 0xaa, 3]),
            Some(
                ARP | LLDP | MACSEC | EAPOL | DOT1Q | DOT1AD | ITAG | VN_TAG | TRUSTSEC | MPLS | MPLS_MULTICAST
                | PPPOE_SESSION,
            ) => true,
            Some(kind) => QINQ.contains(&kind),
            None => false,
        }
    };
    match version {
        4 => {
            let header = usize::from(rest.0[0] & 0xf) * 4;
            let valid = rest.0.get(..header).is_some_and(|bytes| header >= 20 && checksum_is_valid(bytes));
            known_at(12) && !valid
        }
        6 => {
            let length = rest.number_at(4).map(|length| usize::from(length) + 40);
            known_at(12) && length != Some(rest.0.len())
        }
        CONTROL_WORD => known_at(12) && !(known_at(16) && rest.number_at(0) == Some(0)),
        CHANNEL => known_at(12),
        _ => true,
    }
}
