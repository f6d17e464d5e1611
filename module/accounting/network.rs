// SPDX-License-Identifier: GPL-2.0

//! The network whose addresses a rule counts, and which of them share a row.

use super::key::Address;
use core::fmt;

/// What to do with internal packets, which have both ends inside the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Internal {
    /// They are counted like all others.
    Any,
    /// They are not counted.
    Exclude,
    /// Only they are counted.
    Only,
}

/// An address range `base/mask`, what to do with its internal packets, and which addresses share a
/// row.
///
/// # Invariants
///
/// The ones of `mask` and of `row_mask` are contiguous, from the most significant bit on. No bit of
/// `base` is set outside `mask`, and no bit of `mask` outside `row_mask`. So an address is in the
/// network if and only if the key of its row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network<A> {
    base: A,
    mask: A,
    internal: Internal,
    /// A bit for each value of [`Ends`]: 1 if packets with these ends inside are counted.
    counted: u8,
    /// The bits of an address that are the key of its row.
    row_mask: A,
}

/// The ends of a packet that are counted: at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends(u8);

impl Ends {
    const SOURCE: u8 = 1;
    const DESTINATION: u8 = 2;
    const BOTH: u8 = Self::SOURCE | Self::DESTINATION;

    /// Returns whether the source is counted.
    #[inline]
    pub fn source(self) -> bool {
        self.0 & Self::SOURCE != 0
    }

    /// Returns whether the destination is counted.
    #[inline]
    pub fn destination(self) -> bool {
        self.0 & Self::DESTINATION != 0
    }

    /// Returns whether both ends are counted.
    #[inline]
    pub fn both(self) -> bool {
        self.0 == Self::BOTH
    }
}

impl<A: Address> fmt::Display for Network<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base.label(), self.mask.count_ones())
    }
}

impl<A: Address> Network<A> {
    /// A network in which each address has its own row. `None` if the ones of `mask` are not
    /// contiguous or `base` has bits outside it.
    pub fn new(base: A, mask: A, internal: Internal) -> Option<Self> {
        let contiguous = mask.leading_ones() == mask.count_ones();
        let counted = match internal {
            Internal::Any => 1 << Ends::SOURCE | 1 << Ends::DESTINATION | 1 << Ends::BOTH,
            Internal::Exclude => 1 << Ends::SOURCE | 1 << Ends::DESTINATION,
            Internal::Only => 1 << Ends::BOTH,
        };
        (contiguous && base & mask == base).then_some(Self {
            base,
            mask,
            internal,
            counted,
            row_mask: A::mask_with_zeros(0),
        })
    }

    /// The same network, in which addresses share a row if they differ in nothing but the lowest
    /// `bits` bits. `None` if not all of these addresses are in the network.
    pub fn with_shared_rows(self, bits: u32) -> Option<Self> {
        let row_mask = A::mask_with_zeros(bits);
        let fits = bits <= A::BITS && row_mask & self.mask == self.mask;
        fits.then_some(Self { row_mask, ..self })
    }

    /// The first address.
    pub fn base(&self) -> A {
        self.base
    }

    /// The number of possible rows. `u128::MAX` if there is a row for each address of `::/0`, which
    /// has one more.
    pub fn rows(&self) -> u128 {
        let bits = self.row_mask.count_ones() - self.mask.count_ones();
        1u128.checked_shl(bits).unwrap_or(u128::MAX)
    }

    /// The prefix length of the networks that have a row each. `None` if each address has its own.
    pub fn prefix(&self) -> Option<u32> {
        let length = self.row_mask.count_ones();
        (length < A::BITS).then_some(length)
    }

    /// The key of the row of an address.
    #[inline]
    pub fn key(&self, address: A) -> A {
        address & self.row_mask
    }

    /// What to do with internal packets.
    pub fn internal(&self) -> Internal {
        self.internal
    }

    #[inline]
    fn contains(&self, address: A) -> bool {
        address & self.mask == self.base
    }

    /// The ends of a packet that are counted. `None` if there are none.
    #[inline]
    pub fn ends(&self, source: A, destination: A) -> Option<Ends> {
        let (source, destination) = (
            u8::from(self.contains(source)),
            u8::from(self.contains(destination)),
        );
        let ends = source * Ends::SOURCE + destination * Ends::DESTINATION;
        (self.counted >> ends & 1 != 0).then_some(Ends(ends))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::string::ToString;

    const INSIDE: u32 = 0x0a00_0001;
    const INSIDE_TOO: u32 = 0x0a00_00fe;
    const OUTSIDE: u32 = 0x0a00_0100;

    fn ends(internal: Internal, source: u32, destination: u32) -> Option<(bool, bool)> {
        Network::new(0x0a00_0000, 0xffff_ff00, internal)
            .unwrap()
            .ends(source, destination)
            .map(|ends| (ends.source(), ends.destination()))
    }

    #[test]
    fn ends_inside_are_counted_as_internal_asks() {
        use Internal::*;
        let (both, source, destination) =
            (Some((true, true)), Some((true, false)), Some((false, true)));
        for (internal, inside, out, into) in [
            (Any, both, source, destination),
            (Exclude, None, source, destination),
            (Only, both, None, None),
        ] {
            assert_eq!(ends(internal, INSIDE, INSIDE_TOO), inside);
            assert_eq!(ends(internal, INSIDE, OUTSIDE), out);
            assert_eq!(ends(internal, OUTSIDE, INSIDE), into);
            assert_eq!(ends(internal, OUTSIDE, OUTSIDE), None);
        }
    }

    #[test]
    fn masks_with_holes_and_bases_with_host_bits_are_refused() {
        assert!(Network::new(0u32, 0xff00_ff00, Internal::Any).is_none());
        assert!(Network::new(0u32, 0x0000_00ff, Internal::Any).is_none());
        assert!(Network::new(0x0a00_0001u32, 0xffff_ff00, Internal::Any).is_none());
        assert!(Network::new(0u32, 0, Internal::Any).is_some());
        assert!(Network::new(INSIDE, u32::MAX, Internal::Any).is_some());
    }

    #[test]
    fn a_network_prints_in_cidr_notation() {
        let text = |mask| Network::new(0u32, mask, Internal::Any).unwrap().to_string();
        assert_eq!(text(0), "0.0.0.0/0");
        assert_eq!(text(0xffff_f000), "0.0.0.0/20");
        assert_eq!(text(u32::MAX), "0.0.0.0/32");
        let six = Network::new(0x2001_0db8u128 << 96, u128::MAX << 96, Internal::Any).unwrap();
        assert_eq!(six.to_string(), "2001:db8::/32");
    }

    #[test]
    fn without_a_prefix_each_address_has_a_row() {
        let rows = |mask| Network::new(0u32, mask, Internal::Any).unwrap().rows();
        assert_eq!(rows(0), 1 << 32);
        assert_eq!(rows(u32::MAX), 1);
        let six = |mask| Network::new(0u128, mask, Internal::Any).unwrap().rows();
        assert_eq!(six(u128::MAX << 64), 1 << 64);
        assert_eq!(six(0), u128::MAX, "one less than the number of addresses");
        let network = Network::new(0x0a00_0000u32, 0xff00_0000, Internal::Any).unwrap();
        assert_eq!(network.prefix(), None);
        assert_eq!(network.key(INSIDE), INSIDE);
        assert_eq!(network.with_shared_rows(0), Some(network));
    }

    #[test]
    fn with_a_prefix_each_network_of_that_length_has_a_row() {
        let network = Network::new(0x0a00_0000u32, 0xff00_0000, Internal::Any).unwrap();
        let by = |bits| network.with_shared_rows(bits).unwrap();
        assert_eq!((by(8).prefix(), by(8).rows()), (Some(24), 1 << 16));
        assert_eq!((by(24).prefix(), by(24).rows()), (Some(8), 1));
        assert_eq!(by(8).key(INSIDE), by(8).key(INSIDE_TOO));
        assert_ne!(by(8).key(INSIDE), by(8).key(OUTSIDE));
        assert_eq!(by(24).key(OUTSIDE), 0x0a00_0000);
        let all = Network::new(0u128, 0, Internal::Any).unwrap();
        let all = |bits| all.with_shared_rows(bits).unwrap();
        assert_eq!((all(64).prefix(), all(64).rows()), (Some(64), 1 << 64));
        assert_eq!((all(128).prefix(), all(128).rows()), (Some(0), 1));
        assert_eq!(all(128).key(u128::MAX), 0);
    }

    #[test]
    fn a_prefix_shorter_than_the_network_is_refused() {
        let eight = Network::new(0x0a00_0000u32, 0xff00_0000, Internal::Any).unwrap();
        assert!([25, 32, 33, 64, u32::MAX].map(|bits| eight.with_shared_rows(bits)) == [None; 5]);
        let all = Network::new(0u32, 0, Internal::Any).unwrap();
        assert!(all.with_shared_rows(32).is_some() && all.with_shared_rows(33).is_none());
        let one = Network::new(0u128, u128::MAX, Internal::Any).unwrap();
        assert!(one.with_shared_rows(0).is_some() && one.with_shared_rows(1).is_none());
    }

    #[test]
    fn a_mask_without_ones_contains_all_addresses() {
        let all = Network::new(0u32, 0, Internal::Any).unwrap();
        assert!(all.ends(0, u32::MAX).is_some());
    }
}
