// SPDX-License-Identifier: GPL-2.0-only
//! What is compiled from the sources, all of it in the build root.

pub mod iptables;
pub mod kconfig;
pub mod kernel;
pub mod libxt;
pub mod module;
pub mod root;
pub mod sandbox;
