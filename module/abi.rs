// SPDX-License-Identifier: GPL-2.0

//! The binary layout of a rule's parameters, `struct xt_traffic_mtinfo`, revision 0.
//!
//! `libxt_traffic.so` passes it to the kernel with a rule, and gets it back when rules are listed.
//! The module and the extension are both built from this file. A change of the layout needs a new
//! revision, with one exception: an option may use the byte `reserved`.

/// The name of the match, as in `-m traffic`.
pub const MATCH_NAME: &core::ffi::CStr = c"traffic";

/// The revision of the layout below.
pub const REVISION: u8 = 0;

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
    /// Zero. The first new option may give a meaning to other values without a new revision: a
    /// binary without this option sends zero, and a module without it refuses other values.
    pub reserved: u8,
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
