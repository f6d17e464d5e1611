// SPDX-License-Identifier: GPL-2.0-only
//! The benchmark: the cost per packet of the match and of other counters.
//!
//! [`instructions`], [`reading`] and [`rate`] measure in a guest, [`native`] on the host. [`report`]
//! collects the figures, [`targets`] judges them, and [`docs`] writes them to the documentation.

pub mod code;
pub mod docs;
pub mod env;
pub mod instructions;
pub mod native;
mod peers;
mod pktgen;
pub mod rate;
pub mod reading;
pub mod report;
pub mod targets;
