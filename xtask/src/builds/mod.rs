// SPDX-License-Identifier: GPL-2.0-only
//! What is compiled from the sources: in the build root, except the guest's init.

pub mod agent;
pub mod iptables;
pub mod kconfig;
pub mod kernel;
pub mod libxt;
pub mod module;
pub mod root;
pub mod sandbox;
