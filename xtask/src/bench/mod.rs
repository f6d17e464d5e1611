// SPDX-License-Identifier: GPL-2.0-only
//! The benchmark: the cost per packet of the match and of other counters.
//!
//! [`instructions`] and [`rate`] measure in a guest, [`native`] on the host.
//! [`report`] collects the figures, [`targets`] judges them, and [`tables`] shows them.

pub mod code;
pub mod env;
pub mod instructions;
pub mod native;
mod peers;
mod pktgen;
pub mod rate;
pub mod report;
pub mod tables;
pub mod targets;
