// SPDX-License-Identifier: GPL-2.0

//! Any packets at any times under any rule: the texts of the accounting and of the model are the same.

#![no_main]

#[path = "../../module/tests/properties/comparison/mod.rs"]
mod comparison;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| comparison::bytes::check(input));
