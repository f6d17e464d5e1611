// SPDX-License-Identifier: GPL-2.0-only
//! Ethernet frames as bytes, and the tables that the kernel module must show for them.
//!
//! * [`frames`] builds frames, valid and invalid ones.
//! * [`capture`] reads frames from capture files.
//! * [`model`] computes the text of the files in `/proc/net/xt_traffic` from frames. Its parser is
//!   independent of the kernel module's.
//!
//! This crate does not run QEMU: the module's tests on the host and the fuzzer use it alone.

pub mod capture;
pub mod frames;
pub mod model;
