// SPDX-License-Identifier: GPL-2.0-only

//! Addresses and masks of both families, as numbers.
//!
//! A number has the form of the addresses in the parameters: 128 bits, of which IPv4 uses the upper
//! 32 and leaves the others zero. So the code for masks, lengths and host bits is the same for both
//! families. Only the code for text differs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Ipv4,
    Ipv6,
}

/// The number of bits below an IPv4 address in a number.
const IPV4_SHIFT: u32 = u128::BITS - u32::BITS;

impl Family {
    pub const fn other(self) -> Self {
        match self {
            Self::Ipv4 => Self::Ipv6,
            Self::Ipv6 => Self::Ipv4,
        }
    }

    /// The name of the family in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }

    /// The program for rules of this family.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Ipv4 => "iptables",
            Self::Ipv6 => "ip6tables",
        }
    }

    /// The number of bits of an address.
    pub const fn width(self) -> u32 {
        match self {
            Self::Ipv4 => u32::BITS,
            Self::Ipv6 => u128::BITS,
        }
    }

    /// Parses an address.
    pub fn parse(self, text: &str) -> Option<u128> {
        match self {
            Self::Ipv4 => text.parse().ok().map(|address: Ipv4Addr| u128::from(address.to_bits()) << IPV4_SHIFT),
            Self::Ipv6 => text.parse().ok().map(Ipv6Addr::to_bits),
        }
    }

    /// Converts a number to an address. IPv6 addresses print in the form of RFC 5952:
    /// <https://www.rfc-editor.org/rfc/rfc5952>.
    pub fn address(self, number: u128) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::from_bits((number >> IPV4_SHIFT) as u32).into(),
            Self::Ipv6 => Ipv6Addr::from_bits(number).into(),
        }
    }
}

/// The mask with `length` leading ones.
pub fn mask_of(length: u32) -> u128 {
    u128::MAX.checked_shl(u128::BITS - length).unwrap_or(0)
}

/// Whether all ones come before all zeros.
pub fn is_contiguous(mask: u128) -> bool {
    mask.leading_ones() == mask.count_ones()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_uses_the_upper_32_bits() {
        let number = Family::Ipv4.parse("193.11.176.1").unwrap();
        assert_eq!(number.to_be_bytes(), [193, 11, 176, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Family::Ipv4.address(number).to_string(), "193.11.176.1");
    }

    #[test]
    fn ipv6_is_in_network_order() {
        let number = Family::Ipv6.parse("2001:db8::f00").unwrap();
        assert_eq!(number.to_be_bytes(), [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xf, 0]);
    }

    /// The rules of <https://www.rfc-editor.org/rfc/rfc5952#section-4>, and its examples.
    #[test]
    fn ipv6_prints_in_the_form_of_rfc_5952() {
        for (given, printed) in [
            ("2001:0db8::0001", "2001:db8::1"),
            ("2001:db8:0:0:0:0:2:1", "2001:db8::2:1"),
            ("2001:db8::1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
            ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
            ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
            ("2001:DB8::ABCD", "2001:db8::abcd"),
            ("::ffff:c000:201", "::ffff:192.0.2.1"),
            ("0:0:0:0:0:0:0:0", "::"),
            ("::1", "::1"),
            ("::1.2.3.4", "::102:304"),
        ] {
            let number = Family::Ipv6.parse(given).unwrap();
            assert_eq!(Family::Ipv6.address(number).to_string(), printed);
        }
    }

    #[test]
    fn other_text_is_not_an_address() {
        for text in ["", "::", "10.0.0", "10.0.0.0.0", "010.0.0.1", "10.0.0.1 ", "0x0a000001", "host"] {
            assert_eq!(Family::Ipv4.parse(text), None, "{text}");
        }
        for text in ["", "10.0.0.1", ":::", "1::2::3", "12345::", "fe80::1%eth0", "[::1]", "2001:db8", " ::", "host"] {
            assert_eq!(Family::Ipv6.parse(text), None, "{text}");
        }
    }

    #[test]
    fn masks_have_their_length_in_leading_ones() {
        for length in 0..=128 {
            let mask = mask_of(length);
            assert_eq!((mask.leading_ones(), mask.count_ones()), (length, length));
            assert!(is_contiguous(mask));
            if (1..128).contains(&length) {
                assert!(!is_contiguous(!mask), "{length}");
            }
        }
        assert_eq!(mask_of(20), Family::Ipv4.parse("255.255.240.0").unwrap());
        assert_eq!(mask_of(32), Family::Ipv6.parse("ffff:ffff::").unwrap());
    }
}
