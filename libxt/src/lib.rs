// SPDX-License-Identifier: GPL-2.0-only

//! `libxt_traffic.so`, the iptables extension for the match `traffic`.
//!
//! [`catalogue`] lists the options, [`options`] knows what they mean, and [`address`] knows the two families.
//! [`extension`] is the shell around them that libxtables calls. The layout of what goes to the kernel is in
//! [`abi`], which the module shares.

#[path = "../../module/abi.rs"]
pub mod abi;
mod address;
mod catalogue;
// Its symbols come from libxtables, which is not there when the unit tests run.
#[cfg(not(test))]
mod extension;
mod options;

/// Made by bindgen from `xtables.h`: see `cargo xtask build-libxt --bindings`.
#[cfg(not(test))]
#[rustfmt::skip]
#[allow(dead_code, non_camel_case_types, non_upper_case_globals, unsafe_op_in_unsafe_fn, clippy::all)]
mod bindings;
