// SPDX-License-Identifier: GPL-2.0

//! Runs property tests.

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngSeed, TestRunner},
};

/// Calls `test` with `cases` values of `strategy`. Panics with the simplest value for which `test`
/// panics.
///
/// The random seed is fixed, so a failure can be repeated without a file of failed cases. Set
/// `PROPTEST_RNG_SEED` for other values and `PROPTEST_CASES` for another number of them.
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

/// Reduces the number of cases under Miri, which is several hundred times slower.
pub const fn few_under_miri(cases: u32) -> u32 {
    if cfg!(miri) {
        cases.div_ceil(64)
    } else {
        cases
    }
}

/// Defines the tests `name::ipv4` and `name::ipv6`, which call the generic function `name`.
macro_rules! for_both_families {
    ($name:ident) => {
        mod $name {
            #[test]
            fn ipv4() {
                super::$name::<u32>();
            }

            #[test]
            fn ipv6() {
                super::$name::<u128>();
            }
        }
    };
}
pub(crate) use for_both_families;
