// SPDX-License-Identifier: GPL-2.0

//! The keys of rows: addresses and ports.

use super::hash::{Hash, Seed};
use core::{
    fmt::{self, Display},
    net::{Ipv4Addr, Ipv6Addr},
    ops::BitAnd,
};

/// A key of a row. Files list their rows in ascending order of keys.
pub trait Key: Copy + Ord + Send + Sync + 'static {
    /// Whether the highest 64 bits can be other than zero.
    const TWO_WORDS: bool = size_of::<Self>() > size_of::<u64>();

    /// The key as a row stores it: the lowest 64 bits, then the highest.
    fn to_words(self) -> [u64; 2];

    /// The inverse of `to_words`.
    fn from_words(words: [u64; 2]) -> Self;

    /// Adds the key to a hash.
    fn hash(self, hash: Hash) -> Hash;

    /// Adds two keys to a hash. Their order matters.
    #[inline]
    fn hash_both(keys: (Self, Self), hash: Hash) -> Hash {
        keys.1.hash(keys.0.hash(hash))
    }

    /// The text in the first column of the row.
    fn label(self) -> impl Display;
}

/// An address of one family.
pub trait Address: Key + BitAnd<Output = Self> {
    /// The number of bits of an address.
    const BITS: u32;
    /// The number of leading one bits.
    fn leading_ones(self) -> u32;
    /// The number of one bits.
    fn count_ones(self) -> u32;
    /// The mask in which all bits are one except the lowest `zeros`.
    fn mask_with_zeros(zeros: u32) -> Self;
    /// Reads an address in network byte order from the start of `bytes`. `None` if a byte after it
    /// is not zero.
    fn from_bytes(bytes: &[u8; 16]) -> Option<Self>;
}

/// A port.
impl Key for u16 {
    #[inline]
    fn to_words(self) -> [u64; 2] {
        [u64::from(self), 0]
    }

    #[inline]
    fn from_words([low, _]: [u64; 2]) -> Self {
        low as u16
    }

    #[inline]
    fn hash(self, hash: Hash) -> Hash {
        hash.word(u64::from(self))
    }

    fn label(self) -> impl Display {
        self
    }
}

/// An IPv4 address.
impl Key for u32 {
    #[inline]
    fn to_words(self) -> [u64; 2] {
        [u64::from(self), 0]
    }

    #[inline]
    fn from_words([low, _]: [u64; 2]) -> Self {
        low as u32
    }

    #[inline]
    fn hash(self, hash: Hash) -> Hash {
        hash.word(u64::from(self))
    }

    /// Hashes both addresses as one word.
    #[inline]
    fn hash_both((one, other): (Self, Self), hash: Hash) -> Hash {
        hash.word(u64::from(one) << 32 | u64::from(other))
    }

    fn label(self) -> impl Display {
        Ipv4Addr::from(self)
    }
}

impl Address for u32 {
    const BITS: u32 = u32::BITS;

    fn leading_ones(self) -> u32 {
        u32::leading_ones(self)
    }

    fn count_ones(self) -> u32 {
        u32::count_ones(self)
    }

    fn mask_with_zeros(zeros: u32) -> Self {
        u32::MAX.checked_shl(zeros).unwrap_or(0)
    }

    fn from_bytes(bytes: &[u8; 16]) -> Option<Self> {
        let (address, rest) = bytes.split_first_chunk()?;
        rest.iter()
            .all(|byte| *byte == 0)
            .then_some(Self::from_be_bytes(*address))
    }
}

/// An IPv6 address. Its label has the canonical form: <https://www.rfc-editor.org/rfc/rfc5952>.
impl Key for u128 {
    #[inline]
    fn to_words(self) -> [u64; 2] {
        [self as u64, (self >> 64) as u64]
    }

    #[inline]
    fn from_words([low, high]: [u64; 2]) -> Self {
        u128::from(high) << 64 | u128::from(low)
    }

    #[inline]
    fn hash(self, hash: Hash) -> Hash {
        let [low, high] = self.to_words();
        hash.word(low).word(high)
    }

    fn label(self) -> impl Display {
        Ipv6Addr::from(self)
    }
}

impl Address for u128 {
    const BITS: u32 = u128::BITS;

    fn leading_ones(self) -> u32 {
        u128::leading_ones(self)
    }

    fn count_ones(self) -> u32 {
        u128::count_ones(self)
    }

    fn mask_with_zeros(zeros: u32) -> Self {
        u128::MAX.checked_shl(zeros).unwrap_or(0)
    }

    fn from_bytes(bytes: &[u8; 16]) -> Option<Self> {
        Some(Self::from_be_bytes(*bytes))
    }
}

/// The owner of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<K> {
    /// One address or port.
    One(K),
    /// All addresses or ports that have no row of their own. Its label is `*`.
    Others,
}

impl<K: Key> Display for Owner<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(key) => key.label().fmt(f),
            Self::Others => f.write_str("*"),
        }
    }
}

/// The hash of a single key.
#[inline]
pub fn hash_of<K: Key>(seed: Seed, key: K) -> Hash {
    key.hash(seed.hash())
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::string::ToString;

    fn label(text: &str) -> std::string::String {
        Owner::One(u128::from(text.parse::<Ipv6Addr>().unwrap())).to_string()
    }

    #[test]
    fn keys_survive_the_conversion_to_words() {
        for key in [0, 1, u128::MAX, 1 << 64, 0x2001_0db8 << 96 | 5] {
            assert_eq!(u128::from_words(key.to_words()), key);
        }
        assert_eq!(u32::from_words(0xfedc_ba98u32.to_words()), 0xfedc_ba98);
        assert_eq!(u16::from_words(0xfedcu16.to_words()), 0xfedc);
    }

    #[test]
    fn masks_have_their_zeros_in_the_lowest_bits() {
        assert_eq!(
            [0, 8, 32].map(u32::mask_with_zeros),
            [u32::MAX, 0xffff_ff00, 0]
        );
        assert_eq!(
            [0, 64, 128].map(u128::mask_with_zeros),
            [u128::MAX, u128::MAX << 64, 0]
        );
    }

    #[test]
    fn labels_are_addresses_ports_and_a_star() {
        assert_eq!(Owner::One(0xc10b_b109u32).to_string(), "193.11.177.9");
        assert_eq!(Owner::One(53u16).to_string(), "53");
        assert_eq!(Owner::<u16>::Others.to_string(), "*");
    }

    /// <https://www.rfc-editor.org/rfc/rfc5952#section-4> and section 5.
    #[test]
    fn ipv6_labels_are_canonical() {
        for canonical in [
            "::",
            "::1",
            "2001:db8::1",
            "2001:db8:0:1:1:1:1:1",
            "2001:db8::1:0:0:1",
            "2001:0:0:1::1",
            "fe80::aaaa:bbbb",
            "1::",
            "::ffff:192.0.2.1",
        ] {
            assert_eq!(label(canonical), canonical);
        }
        assert_eq!(label("2001:DB8:0:0:0:0:2:1"), "2001:db8::2:1");
    }

    #[test]
    fn both_halves_of_an_address_are_hashed() {
        let hash = |key: u128| hash_of(Seed::new(1), key).finish();
        assert_ne!(hash(1), hash(1 << 64));
        assert_ne!(hash(1), hash(2));
    }
}
