// SPDX-License-Identifier: GPL-2.0-only
//! IPv6 extension headers.

/// An extension header (RFC 8200, section 4). Each vector holds the bytes after the length field;
/// zeros fill it to the next valid length. In options, zeros are padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Hop-by-hop options.
    HopByHop(Vec<u8>),
    /// A routing header, from its type on.
    Routing(Vec<u8>),
    /// Destination options.
    Destination(Vec<u8>),
    /// A fragment header: the offset in units of eight bytes, whether more fragments follow, and
    /// the identification.
    Fragment(u16, bool, u32),
    /// An authentication header (RFC 4302): the bytes after the two reserved ones. Its length
    /// counts units of four bytes. With less than eight bytes it is shorter than the RFC allows.
    Authentication(Vec<u8>),
}

impl Extension {
    /// The fragment header of a packet that is not fragmented.
    pub const ATOMIC: Self = Self::Fragment(0, false, 0);

    /// Its protocol number.
    pub fn number(&self) -> u8 {
        match self {
            Self::HopByHop(_) => 0,
            Self::Routing(_) => 43,
            Self::Fragment(..) => 44,
            Self::Authentication(_) => 51,
            Self::Destination(_) => 60,
        }
    }

    /// Its bytes when the next header has the number `next`.
    pub fn bytes(&self, next: u8) -> Vec<u8> {
        match self {
            Self::HopByHop(rest) | Self::Routing(rest) | Self::Destination(rest) => {
                let mut header = [&[next, 0][..], rest].concat();
                header.resize(header.len().next_multiple_of(8), 0);
                header[1] = (header.len() / 8 - 1) as u8;
                header
            }
            Self::Fragment(offset, more, id) => {
                let place = offset << 3 | u16::from(*more);
                [&[next, 0][..], &place.to_be_bytes(), &id.to_be_bytes()].concat()
            }
            Self::Authentication(rest) => {
                let mut header = [&[next, 0, 0, 0][..], rest].concat();
                header.resize(header.len().next_multiple_of(4).max(8), 0);
                header[1] = (header.len() / 4 - 2) as u8;
                header
            }
        }
    }
}
