// SPDX-License-Identifier: GPL-2.0-only
//! What a packet costs, in our match and in its peers.

pub mod code;
pub mod env;
pub mod instructions;
pub mod native;
mod peers;
pub mod rate;
pub mod reading;
pub mod report;
mod source;
pub mod targets;
