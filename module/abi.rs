// SPDX-License-Identifier: GPL-2.0

//! The binary layout of a rule's parameters, `struct xt_traffic_mtinfo`.
//!
//! `libxt_traffic.so` passes it to the kernel with a rule, and gets it back when rules are listed.
//! The module and the extension are both built from this file. A change needs a new revision.
//!
//! Revision 0 has no `--prefix`. Revision 1 has the same layout, and uses the byte that is zero in
//! revision 0. So a rule without `--prefix` consists of the same bytes in both revisions, and
//! iptables, which compares bytes, finds and deletes it whichever revision it was added with.

/// The name of the match, as in `-m traffic`.
pub const MATCH_NAME: &core::ffi::CStr = c"traffic";

/// The revisions, in ascending order. All have the layout below.
pub const REVISIONS: [u8; 2] = [0, 1];

/// The first revision with `--prefix`.
pub const PREFIX_REVISION: u8 = 1;

/// The size of a table's name in bytes: 1 to 31 of `[A-Za-z0-9_-]`, and a NUL.
pub const NAME_SIZE: usize = 32;

/// `--traffic`: count bytes per address.
pub const COUNT_TRAFFIC: u8 = 1 << 0;
/// `--ipconn`: count connections per address.
pub const COUNT_IPCONN: u8 = 1 << 1;
/// `--portconn`: count connections per port.
pub const COUNT_PORTCONN: u8 = 1 << 2;

/// All packets with an end in the network are counted.
pub const INTERNAL_ANY: u8 = 0;
/// `--nointernal`: packets with both ends in the network are not counted.
pub const INTERNAL_EXCLUDE: u8 = 1;
/// `! --nointernal`: only packets with both ends in the network are counted.
pub const INTERNAL_ONLY: u8 = 2;

/// The largest hash size: 2^24.
pub const MAX_HASH_SIZE: u32 = 1 << 24;

/// `struct xt_traffic_mtinfo`: the parameters of one rule.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XtTrafficMtinfo {
    /// The network's first address, in network byte order. IPv4 uses the first four bytes. The
    /// others are zero, as in `union nf_inet_addr`.
    pub netbase: [u8; 16],
    /// The network's mask, in the same form as `netbase`.
    pub netmask: [u8; 16],
    /// The table's name, padded with NUL bytes.
    pub name: [u8; NAME_SIZE],
    /// What to count: bits `COUNT_*`, and no others.
    pub count: u8,
    /// One of `INTERNAL_*`.
    pub internal: u8,
    /// `--clearonread`: 1 if reading clears the counters, else 0.
    pub clear_on_read: u8,
    /// `--prefix`: addresses share a row if they differ in nothing but this number of lowest bits.
    /// It is the number of bits of an address minus the length of the prefix. Zero stands for a
    /// row for each address. In revision 0 it is always zero.
    pub shared_bits: u8,
    /// `--hashsize`, at most [`MAX_HASH_SIZE`], in host byte order. 0 stands for a size that fits
    /// the network.
    pub hash_size: u32,
}

/// The memory of the match in a rule: the parameters, and the kernel's pointer to its state.
///
/// User space sends zero for the pointer. The kernel never shows it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RuleInfo {
    /// The parameters. Their size is `usersize` in x_tables.
    pub user: XtTrafficMtinfo,
    /// The kernel's pointer.
    pub kernel: u64,
}

// User space depends on the layout, so these numbers must not change.
const _: () = assert!(size_of::<XtTrafficMtinfo>() == 72);
const _: () = assert!(size_of::<RuleInfo>() == 80);
const _: () = assert!(align_of::<RuleInfo>() == 8);
