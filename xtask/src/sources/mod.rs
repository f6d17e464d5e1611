// SPDX-License-Identifier: GPL-2.0-only
//! Where the sources come from: pinned downloads, and git trees with the patches as commits.

pub mod fetch;
pub mod mirrors;
mod offsets;
pub mod patches;
pub mod pins;
pub mod tree;
