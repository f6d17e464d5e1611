// SPDX-License-Identifier: GPL-2.0

//! What must hold for any packets, any tables, any readers and any parameters.
//!
//! Each module has the properties of one part of the accounting. `comparison` plays packets to it and to the
//! independent model in `traffic-model`; the coverage-guided fuzz target in `fuzz/` is built from the same source.

mod comparison;
mod connections;
mod counting;
mod delivery;
mod headers;
mod model;
mod params;
mod report;
mod support;
mod tables;
mod traffic;
