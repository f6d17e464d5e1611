// SPDX-License-Identifier: GPL-2.0

//! Property tests of the accounting: they hold for any packets, tables, readers and parameters.
//!
//! Each module tests one part of the accounting. `comparison` sends the same packets to the
//! accounting and to an independent model and compares their files. The coverage-guided fuzz target
//! in `fuzz/` includes it too.

mod comparison;
mod connections;
mod counting;
mod delivery;
mod headers;
mod model;
mod params;
mod report;
mod support;
mod sweeps;
mod tables;
mod traffic;
