// SPDX-License-Identifier: GPL-2.0-only
//! The subcommands.

pub mod bench;
pub mod build;
pub mod cache;
pub mod ci;
pub mod deb;
pub mod demo;
pub mod patches;
pub mod pins;
pub mod replay;
pub mod setup;
pub mod shell;
pub mod test;
pub mod vm_test;
