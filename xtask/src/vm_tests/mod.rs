// SPDX-License-Identifier: GPL-2.0-only
//! What is known of the tests in QEMU: the feature that a test is for, whether it runs on each
//! kernel series, its results, and the table of the results in the README.

pub mod features;
pub mod matrix;
pub mod results;
