// SPDX-License-Identifier: GPL-2.0

//! The parameters of a rule.

use super::{
    key::Address,
    network::{Internal, Network},
    table::{Lookup, Size},
};
use crate::abi::{self, XtTrafficMtinfo};
use core::fmt;

/// The name of a table and of its file: 1 to 31 characters of `[A-Za-z0-9_-]`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    bytes: [u8; abi::NAME_SIZE],
    length: usize,
}

impl Name {
    /// Reads a name that is padded with NUL bytes. `None` if it is empty, has no NUL byte, has
    /// other characters, or has other bytes after the first NUL byte.
    pub fn from_padded(bytes: [u8; abi::NAME_SIZE]) -> Option<Self> {
        let length = bytes.iter().position(|byte| *byte == 0)?;
        let (name, padding) = bytes.split_at(length);
        let good = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let valid = length > 0 && name.iter().all(good) && padding.iter().all(|byte| *byte == 0);
        valid.then_some(Self { bytes, length })
    }

    /// The name without its padding.
    pub fn as_str(&self) -> &str {
        // ASCII letters, digits, `_` and `-` are always valid UTF-8.
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

/// What to count: at least one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Bytes per address.
    pub traffic: bool,
    /// Connections per address.
    pub ipconn: bool,
    /// Connections per port.
    pub portconn: bool,
}

impl Counts {
    fn from_bits(bits: u8) -> Option<Self> {
        const ALL: u8 = abi::COUNT_TRAFFIC | abi::COUNT_IPCONN | abi::COUNT_PORTCONN;
        let has = |bit| bits & bit != 0;
        let counts = Self {
            traffic: has(abi::COUNT_TRAFFIC),
            ipconn: has(abi::COUNT_IPCONN),
            portconn: has(abi::COUNT_PORTCONN),
        };
        (bits != 0 && bits & !ALL == 0).then_some(counts)
    }

    /// Returns whether connections are counted.
    pub fn connections(self) -> bool {
        self.ipconn || self.portconn
    }
}

/// The limits of a table on each CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The size of a table of addresses.
    pub addresses: Size,
    /// The size of a table of ports.
    pub ports: Size,
    /// The hash size: a power of two.
    pub hash_size: u32,
}

impl Sizes {
    /// The size of a table with a row for each of the 2^16 ports.
    pub const PORTS: Size = Size::hashed(1 << 16);
    /// The number of addresses in the largest network with [`Lookup::Direct`]. If the counted
    /// addresses lie far apart, its rows of bytes take up to 4 MiB on each CPU.
    const DIRECT: u32 = 1 << 16;
    /// The largest number of rows, unless a larger hash size is given.
    const ROWS: u32 = 1 << 20;
    /// The largest default hash size.
    const DEFAULT_HASH_SIZE: u32 = 1 << 16;
    /// The largest number of rows on all CPUs together. A reader lists the rows in one allocation,
    /// which must stay below 2^31 bytes.
    const ALL_ROWS: u32 = 1 << 25;

    /// Sizes for a network with this number of rows, a hash size that is given or 0, and a number
    /// of CPUs.
    pub fn new(network_rows: u128, hash_size: u32, cpus: u32) -> Self {
        let hash_size = match hash_size {
            0 => Self::default_hash_size(network_rows),
            given => given.next_power_of_two(),
        };
        let rows = saturated(network_rows)
            .min(Self::ROWS.max(hash_size))
            .min(Self::ALL_ROWS / cpus.max(1));
        Self {
            addresses: Size::hashed(rows),
            ports: Self::PORTS,
            hash_size,
        }
    }

    /// Switches to [`Lookup::Direct`] if the network is small, each address can have a row of its
    /// own, and no hash size below the number of addresses was given. The number of a direct row
    /// is the lowest bits of its key, which are zero if addresses share rows.
    #[must_use]
    pub fn for_network<A: Address>(mut self, network: &Network<A>) -> Self {
        let (all, own) = (saturated(network.rows()), network.prefix().is_none());
        if own && all <= Self::DIRECT && all <= self.hash_size && all == self.addresses.rows {
            self.addresses.lookup = Lookup::Direct {
                prefix: network.base().to_words(),
            };
        }
        self
    }

    fn default_hash_size(network_rows: u128) -> u32 {
        saturated(network_rows).min(Self::DEFAULT_HASH_SIZE)
    }
}

fn saturated(number: u128) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The parameters of a rule. Rules of one family with equal parameters share a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params<A> {
    /// The name of the table.
    pub name: Name,
    /// What to count.
    pub counts: Counts,
    /// The network whose addresses are counted, and which of them share a row.
    pub network: Network<A>,
    /// The limits of the table.
    pub sizes: Sizes,
    /// Whether reading a file clears what was read.
    pub clear_on_read: bool,
}

/// Formats the options of the rule, without the name.
impl<A: Address> fmt::Display for Params<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            counts,
            network,
            sizes,
            ..
        } = self;
        let option = |wanted, name| if wanted { name } else { "" };
        f.write_str(option(counts.traffic, "--traffic "))?;
        f.write_str(option(counts.ipconn, "--ipconn "))?;
        f.write_str(option(counts.portconn, "--portconn "))?;
        write!(f, "--net {network}")?;
        if let Some(length) = network.prefix() {
            write!(f, " --prefix {length}")?;
        }
        if sizes.hash_size != Sizes::default_hash_size(network.rows()) {
            write!(f, " --hashsize {}", sizes.hash_size)?;
        }
        f.write_str(option(self.clear_on_read, " --clearonread"))?;
        f.write_str(match network.internal() {
            Internal::Any => "",
            Internal::Exclude => " --nointernal",
            Internal::Only => " ! --nointernal",
        })
    }
}

/// Why parameters are refused. The reason goes to the kernel log. `libxt_traffic.so` checks the
/// same in user space before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The name is not valid (see [`Name::from_padded`]).
    Name,
    /// `count` has no bit set, or an unknown one.
    Count,
    /// `internal` is not one of `INTERNAL_*`.
    Internal,
    /// The mask has holes, the base has host bits, or unused bytes are not zero.
    Network,
    /// `clear_on_read` is neither 0 nor 1.
    ClearOnRead,
    /// `hash_size` is above [`abi::MAX_HASH_SIZE`].
    HashSize,
    /// The prefix is shorter than the network's.
    Prefix,
    /// `shared_bits` is not zero in a revision without `--prefix`.
    Reserved,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "invalid table name",
            Self::Count => "nothing or something unknown to count",
            Self::Internal => "invalid value for internal packets",
            Self::Network => {
                "invalid network: the mask is not contiguous, or the base has host bits"
            }
            Self::ClearOnRead => "invalid value for clear-on-read",
            Self::HashSize => "the hash size is too large",
            Self::Prefix => "the prefix is shorter than the network's",
            Self::Reserved => "reserved bytes are not zero",
        })
    }
}

impl<A: Address> Params<A> {
    /// Checks the parameters that user space sent for a rule. It may have sent anything. `revision`
    /// is one of [`abi::REVISIONS`]. `cpus` is the number of possible CPUs, which bounds the rows
    /// on each of them.
    ///
    /// # Errors
    ///
    /// Returns the first [`Refusal`] that applies.
    pub fn from_info(revision: u8, info: &XtTrafficMtinfo, cpus: u32) -> Result<Self, Refusal> {
        let counts = Counts::from_bits(info.count).ok_or(Refusal::Count)?;
        let internal = match info.internal {
            abi::INTERNAL_ANY => Internal::Any,
            abi::INTERNAL_EXCLUDE => Internal::Exclude,
            abi::INTERNAL_ONLY => Internal::Only,
            _ => return Err(Refusal::Internal),
        };
        let clear_on_read = match info.clear_on_read {
            0 => false,
            1 => true,
            _ => return Err(Refusal::ClearOnRead),
        };
        if info.hash_size > abi::MAX_HASH_SIZE {
            return Err(Refusal::HashSize);
        }
        if revision < abi::PREFIX_REVISION && info.shared_bits != 0 {
            return Err(Refusal::Reserved);
        }
        let base = A::from_bytes(&info.netbase).ok_or(Refusal::Network)?;
        let mask = A::from_bytes(&info.netmask).ok_or(Refusal::Network)?;
        let network = Network::new(base, mask, internal).ok_or(Refusal::Network)?;
        let network = network
            .with_shared_rows(info.shared_bits.into())
            .ok_or(Refusal::Prefix)?;
        Ok(Self {
            name: Name::from_padded(info.name).ok_or(Refusal::Name)?,
            counts,
            network,
            sizes: Sizes::new(network.rows(), info.hash_size, cpus).for_network(&network),
            clear_on_read,
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::string::ToString;

    /// The newest revision.
    const NEWEST: u8 = *abi::REVISIONS.last().unwrap();

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
            shared_bits: 0,
            hash_size: 0,
        };
        info.netbase[..4].copy_from_slice(&[193, 11, 176, 0]);
        info.netmask[..4].copy_from_slice(&[255, 255, 240, 0]);
        info
    }

    #[test]
    fn a_valid_ipv4_rule_is_accepted() {
        let params = Params::<u32>::from_info(NEWEST, &info(), 2).unwrap();
        assert_eq!(params.name.as_str(), "RSN");
        let network = Network::new(0xc10b_b000, 0xffff_f000, Internal::Exclude);
        assert_eq!(Some(params.network), network);
        assert_eq!(
            params.counts,
            Counts {
                traffic: true,
                ipconn: false,
                portconn: false
            }
        );
        assert!(!params.clear_on_read);
    }

    #[test]
    fn a_valid_ipv6_rule_is_accepted() {
        let mut info = info();
        info.netbase = 0x2001_0db8_0000_0000_0000_0000_0000_0000u128.to_be_bytes();
        info.netmask = (u128::MAX << 80).to_be_bytes();
        let params = Params::<u128>::from_info(NEWEST, &info, 2).unwrap();
        assert_eq!(
            params.to_string(),
            "--traffic --net 2001:db8::/48 --nointernal"
        );
        assert_eq!(
            Params::<u32>::from_info(NEWEST, &info, 2),
            Err(Refusal::Network)
        );
    }

    #[test]
    fn params_print_as_the_options_of_the_rule() {
        let text = |change: fn(&mut XtTrafficMtinfo)| {
            let mut info = info();
            change(&mut info);
            Params::<u32>::from_info(NEWEST, &info, 2)
                .unwrap()
                .to_string()
        };
        let net = "--net 193.11.176.0/20";
        assert_eq!(text(|_| ()), std::format!("--traffic {net} --nointernal"));
        assert_eq!(
            text(|i| i.count = 6),
            std::format!("--ipconn --portconn {net} --nointernal")
        );
        assert_eq!(
            text(|i| i.internal = 2),
            std::format!("--traffic {net} ! --nointernal")
        );
        assert_eq!(
            text(|i| i.hash_size = 4096),
            std::format!("--traffic {net} --nointernal")
        );
        assert_eq!(
            text(|i| i.shared_bits = 8),
            std::format!("--traffic {net} --prefix 24 --nointernal")
        );
        let all = text(|i| (i.count, i.internal, i.clear_on_read, i.hash_size) = (7, 0, 1, 8));
        assert_eq!(
            all,
            std::format!("--traffic --ipconn --portconn {net} --hashsize 8 --clearonread")
        );
    }

    #[test]
    fn sizes_follow_from_the_network_the_hash_size_and_the_cpus() {
        let size = |network_rows, hash_size| {
            let sizes = Sizes::new(network_rows, hash_size, 2);
            (sizes.addresses.rows, sizes.hash_size)
        };
        assert_eq!(size(1, 0), (1, 1));
        assert_eq!(size(256, 0), (256, 256));
        assert_eq!(size(1 << 24, 0), (1 << 20, 1 << 16));
        assert_eq!(size(u128::MAX, 0), (1 << 20, 1 << 16));
        assert_eq!(size(1 << 32, 1), (1 << 20, 1));
        assert_eq!(size(1 << 32, 5), (1 << 20, 8));
        assert_eq!(size(1 << 32, 1 << 24), (1 << 24, 1 << 24));
        assert_eq!(size(256, 1 << 24), (256, 1 << 24));
        let rows = |hash_size, cpus| Sizes::new(u128::MAX, hash_size, cpus).addresses.rows;
        assert_eq!(
            [rows(0, 32), rows(0, 64), rows(1 << 24, 32)],
            [1 << 20, 1 << 19, 1 << 20]
        );
    }

    #[test]
    fn small_networks_have_direct_rows() {
        let lookup = |length: u32, hash_size, cpus| {
            let network = Network::new(
                0u32,
                u32::MAX.checked_shl(32 - length).unwrap_or(0),
                Internal::Any,
            )
            .unwrap();
            Sizes::new(network.rows(), hash_size, cpus)
                .for_network(&network)
                .addresses
                .lookup
        };
        let direct = Lookup::Direct { prefix: [0, 0] };
        assert_eq!([16, 24, 32].map(|length| lookup(length, 0, 2)), [direct; 3]);
        assert_eq!(
            [0, 8, 15].map(|length| lookup(length, 0, 2)),
            [Lookup::Hashed; 3]
        );
        assert_eq!(lookup(15, 1 << 17, 2), Lookup::Hashed, "too much memory");
        assert_eq!(
            lookup(24, 128, 2),
            Lookup::Hashed,
            "the hash size is below the number of addresses"
        );
        assert_eq!(
            lookup(16, 0, 1 << 10),
            Lookup::Hashed,
            "there is no room for a row per address"
        );
    }

    #[test]
    fn sizes_follow_from_the_prefix() {
        let mut info = info();
        let size = |info: &XtTrafficMtinfo| {
            let sizes = Params::<u32>::from_info(NEWEST, info, 2).unwrap().sizes;
            (sizes.addresses, sizes.hash_size)
        };
        info.shared_bits = 8;
        assert_eq!(size(&info), (Size::hashed(16), 16));
        info.hash_size = 64;
        assert_eq!(size(&info), (Size::hashed(16), 64));
        info.shared_bits = 12;
        assert_eq!(size(&info), (Size::hashed(1), 64));
    }

    #[test]
    fn a_rule_without_a_prefix_is_the_same_in_all_revisions() {
        let rules = abi::REVISIONS.map(|revision| Params::<u32>::from_info(revision, &info(), 2));
        assert!(rules[0].is_ok());
        assert_eq!(rules[0], rules[1]);
    }

    #[test]
    fn revision_0_has_no_prefix() {
        for bits in [1, 8, u8::MAX] {
            let info = XtTrafficMtinfo {
                shared_bits: bits,
                ..info()
            };
            let params = Params::<u32>::from_info(0, &info, 2);
            assert_eq!(params, Err(Refusal::Reserved));
        }
    }

    #[test]
    fn only_valid_names_are_accepted() {
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
    fn every_invalid_field_is_refused() {
        let refused = |change: fn(&mut XtTrafficMtinfo)| {
            let mut info = info();
            change(&mut info);
            Params::<u32>::from_info(NEWEST, &info, 2).unwrap_err()
        };
        assert_eq!(refused(|i| i.count = 0), Refusal::Count);
        assert_eq!(refused(|i| i.count = 0x81), Refusal::Count);
        assert_eq!(refused(|i| i.internal = 3), Refusal::Internal);
        assert_eq!(refused(|i| i.count = 8), Refusal::Count);
        assert_eq!(refused(|i| i.clear_on_read = 2), Refusal::ClearOnRead);
        assert_eq!(refused(|i| i.hash_size = (1 << 24) + 1), Refusal::HashSize);
        assert_eq!(refused(|i| i.shared_bits = 13), Refusal::Prefix);
        assert_eq!(refused(|i| i.shared_bits = 33), Refusal::Prefix);
        assert_eq!(refused(|i| i.shared_bits = u8::MAX), Refusal::Prefix);
        assert_eq!(refused(|i| i.netbase[3] = 1), Refusal::Network);
        assert_eq!(refused(|i| i.netmask[1] = 0xf0), Refusal::Network);
        assert_eq!(refused(|i| i.netmask[15] = 1), Refusal::Network);
        assert_eq!(refused(|i| i.name = [b'a'; 32]), Refusal::Name);
    }
}
