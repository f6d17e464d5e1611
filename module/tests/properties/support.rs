// SPDX-License-Identifier: GPL-2.0

//! How properties are checked.

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngSeed, TestRunner},
};

/// Tries so many values, or fails with the simplest one for which `test` panics.
///
/// The values are the same in every run: a run that fails can be repeated, and no file has to remember it.
/// `PROPTEST_RNG_SEED` gives others, `PROPTEST_CASES` more of them.
pub fn check<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value)) {
    let outcome = TestRunner::new(config(cases)).run(&strategy, |value| {
        test(value);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

fn config(cases: u32) -> Config {
    let mut config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = few_under_miri(cases);
    }
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(1);
    }
    config
}

/// Miri interprets, some hundred times slower, and looks at each step anyway.
pub const fn few_under_miri(cases: u32) -> u32 {
    if cfg!(miri) {
        cases.div_ceil(64)
    } else {
        cases
    }
}
