// SPDX-License-Identifier: GPL-2.0-only

//! Sends any packets at any times to the accounting and to the model, with any rule. Panics if
//! their files differ. `docs/testing.md` has the command to run it.

#![no_main]

#[path = "../../module/tests/properties/comparison/mod.rs"]
mod comparison;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| comparison::bytes::check(input));
