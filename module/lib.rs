// SPDX-License-Identifier: GPL-2.0

//! The parts of the module that do not use the kernel, as a crate for the host.

#![no_std]
#![forbid(unsafe_code)]

pub mod abi;
pub mod accounting;
pub mod atomic;
pub mod host;

#[cfg(all(test, loom))]
#[path = "tests/interleavings/explore.rs"]
mod explore;
