// SPDX-License-Identifier: GPL-2.0-only

//! `libxt_traffic.so`, the iptables extension for the match `traffic`.
//!
//! `catalogue` lists the options, `options` parses and prints them, and `address` handles the
//! addresses of both families. `extension` has the functions that libxtables calls. [`abi`],
//! which the kernel module shares, has the layout of the parameters.

#[path = "../../module/abi.rs"]
pub mod abi;
mod address;
mod catalogue;
// It needs symbols of libxtables, which the unit tests do not link.
#[cfg(not(test))]
mod extension;
mod options;

/// The C interface of libxtables: `cargo xtask build-libxt --bindings` generates it with bindgen.
#[cfg(not(test))]
#[rustfmt::skip]
#[expect(dead_code, non_camel_case_types, non_upper_case_globals, unsafe_op_in_unsafe_fn)]
mod bindings;
