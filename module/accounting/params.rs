// SPDX-License-Identifier: GPL-2.0

//! A rule's parameters, checked.

use super::network::{Internal, Network};
use crate::abi::{self, XtTrafficMtinfo};
use core::fmt;

/// The name of a table and of its file: 1 to 31 of `[A-Za-z0-9_-]`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; abi::NAME_SIZE],
    length: usize,
}

impl Name {
    /// Reads a name that is padded with NUL bytes to its full size.
    pub fn from_padded(bytes: [u8; abi::NAME_SIZE]) -> Option<Self> {
        let length = bytes.iter().position(|byte| *byte == 0)?;
        let (name, padding) = bytes.split_at(length);
        let good = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let valid = length > 0 && name.iter().all(good) && padding.iter().all(|byte| *byte == 0);
        valid.then_some(Self { bytes, length })
    }

    /// The name without its padding.
    pub fn as_str(&self) -> &str {
        // ASCII letters, digits, `_` and `-` are UTF-8.
        core::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a rule asks for. Two rules with equal parameters share a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// The table's name.
    pub name: Name,
    /// The network to account for.
    pub network: Network<u32>,
}

/// As the options of a rule.
impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--traffic --net {}", self.network)
    }
}

/// Why parameters are refused. User space has checked them before, so this is for the kernel log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The name is empty, too long, or has other characters than it may.
    Name,
    /// No or unknown things to count.
    Count,
    /// Neither with, without, nor only internal traffic.
    Internal,
    /// The mask has holes, or the base has host bits, or the unused bytes are not zero.
    Network,
    /// Bytes that have no meaning yet are not zero.
    Reserved,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "bad table name",
            Self::Count => "nothing to count, or something unknown",
            Self::Internal => "bad value for internal traffic",
            Self::Network => "bad network: a mask with holes, or host bits in the base",
            Self::Reserved => "reserved bytes are not zero",
        })
    }
}

impl Params {
    /// Checks what user space sent for an IPv4 rule. Nothing of it is trusted.
    pub fn from_ipv4(info: &XtTrafficMtinfo) -> Result<Self, Refusal> {
        if info.count != abi::COUNT_TRAFFIC {
            return Err(Refusal::Count);
        }
        if (info.clear_on_read, info.reserved, info.hash_size) != (0, 0, 0) {
            return Err(Refusal::Reserved);
        }
        let internal = match info.internal {
            abi::INTERNAL_ANY => Internal::Any,
            abi::INTERNAL_EXCLUDE => Internal::Exclude,
            abi::INTERNAL_ONLY => Internal::Only,
            _ => return Err(Refusal::Internal),
        };
        let base = ipv4_of(&info.netbase).ok_or(Refusal::Network)?;
        let mask = ipv4_of(&info.netmask).ok_or(Refusal::Network)?;
        Ok(Self {
            name: Name::from_padded(info.name).ok_or(Refusal::Name)?,
            network: Network::new(base, mask, internal).ok_or(Refusal::Network)?,
        })
    }
}

fn ipv4_of(bytes: &[u8; 16]) -> Option<u32> {
    let (address, rest) = bytes.split_first_chunk()?;
    rest.iter().all(|byte| *byte == 0).then_some(u32::from_be_bytes(*address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> [u8; abi::NAME_SIZE] {
        let mut bytes = [0; abi::NAME_SIZE];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        bytes
    }

    fn info() -> XtTrafficMtinfo {
        let mut info = XtTrafficMtinfo {
            netbase: [0; 16],
            netmask: [0; 16],
            name: name("RSN"),
            count: abi::COUNT_TRAFFIC,
            internal: abi::INTERNAL_EXCLUDE,
            clear_on_read: 0,
            reserved: 0,
            hash_size: 0,
        };
        info.netbase[..4].copy_from_slice(&[193, 11, 176, 0]);
        info.netmask[..4].copy_from_slice(&[255, 255, 240, 0]);
        info
    }

    #[test]
    fn takes_a_good_rule() {
        let params = Params::from_ipv4(&info()).unwrap();
        assert_eq!(params.name.as_str(), "RSN");
        let network = Network::new(0xc10b_b000, 0xffff_f000, Internal::Exclude);
        assert_eq!(Some(params.network), network);
    }

    #[test]
    fn names() {
        let good = |bytes| Name::from_padded(bytes).is_some();
        assert!(good(name("a")));
        assert!(good(name("A-z_09")));
        assert!(good(name(&"x".repeat(31))));
        assert!(!good([b'x'; 32]));
        for bad in ["", "a/b", "..", "a b", "a\n", "\u{e9}", "a.stats"] {
            assert!(!good(name(bad)), "{bad:?}");
        }
        let mut trailing = name("a");
        trailing[5] = b'x';
        assert!(!good(trailing));
    }

    #[test]
    fn trusts_nothing() {
        let refused = |change: fn(&mut XtTrafficMtinfo)| {
            let mut info = info();
            change(&mut info);
            Params::from_ipv4(&info).unwrap_err()
        };
        assert_eq!(refused(|i| i.count = 0), Refusal::Count);
        assert_eq!(refused(|i| i.count = 0x81), Refusal::Count);
        assert_eq!(refused(|i| i.internal = 3), Refusal::Internal);
        assert_eq!(refused(|i| i.reserved = 1), Refusal::Reserved);
        assert_eq!(refused(|i| i.netbase[3] = 1), Refusal::Network);
        assert_eq!(refused(|i| i.netmask[1] = 0xf0), Refusal::Network);
        assert_eq!(refused(|i| i.netmask[15] = 1), Refusal::Network);
        assert_eq!(refused(|i| i.name = [b'a'; 32]), Refusal::Name);
    }
}
