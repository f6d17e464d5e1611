// SPDX-License-Identifier: GPL-2.0

//! The binary layout of a rule's parameters, `struct xt_traffic_mtinfo`, revision 0.
//!
//! This is what `libxt_traffic.so` hands to the kernel and gets back when rules are listed. The
//! module and the extension both build from this one file. A change that is visible to either
//! needs a new revision.

/// The name of the match, as in `-m traffic`.
pub const MATCH_NAME: &core::ffi::CStr = c"traffic";

/// The revision of the layout below.
pub const REVISION: u8 = 0;

/// Bytes in a table's name with its closing NUL: 1 to 31 of `[A-Za-z0-9_-]`.
pub const NAME_SIZE: usize = 32;

/// `--traffic`: count bytes per address.
pub const COUNT_TRAFFIC: u8 = 1 << 0;
/// `--ipconn`: count connections per address.
pub const COUNT_IPCONN: u8 = 1 << 1;
/// `--portconn`: count connections per port.
pub const COUNT_PORTCONN: u8 = 1 << 2;

/// Any packet with an end inside the network is counted.
pub const INTERNAL_ANY: u8 = 0;
/// `--nointernal`: packets with both ends inside are left out.
pub const INTERNAL_EXCLUDE: u8 = 1;
/// `! --nointernal`: only packets with both ends inside are counted.
pub const INTERNAL_ONLY: u8 = 2;

/// The largest hash size: 2^24.
pub const MAX_HASH_SIZE: u32 = 1 << 24;

/// `struct xt_traffic_mtinfo`: the parameters of one rule.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XtTrafficMtinfo {
    /// The network's first address, in network byte order. IPv4 uses the first four bytes, the
    /// others are zero (as in `union nf_inet_addr`).
    pub netbase: [u8; 16],
    /// The network's mask, in the same form as `netbase`.
    pub netmask: [u8; 16],
    /// The table's name, padded with NUL bytes.
    pub name: [u8; NAME_SIZE],
    /// What to count, `COUNT_*`; no other bit may be set.
    pub count: u8,
    /// One of `INTERNAL_*`.
    pub internal: u8,
    /// `--clearonread`: 1 if what a read returns is cleared, else 0.
    pub clear_on_read: u8,
    /// Zero.
    pub reserved: u8,
    /// `--hashsize`, at most [`MAX_HASH_SIZE`], in host byte order; 0 if it is to follow from the
    /// size of the network.
    pub hash_size: u32,
}

/// What lies in a rule: the parameters, then room for the kernel.
///
/// User space sends `kernel` as zero and ignores it; the kernel keeps the rule's table there and
/// never shows it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RuleInfo {
    /// The part that user space and the kernel share (`usersize` in x_tables' terms).
    pub user: XtTrafficMtinfo,
    /// The kernel's part.
    pub kernel: u64,
}

// The layout is an ABI: these numbers never change.
const _: () = assert!(size_of::<XtTrafficMtinfo>() == 72);
const _: () = assert!(size_of::<RuleInfo>() == 80);
const _: () = assert!(align_of::<RuleInfo>() == 8);
