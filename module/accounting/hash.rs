// SPDX-License-Identifier: GPL-2.0

//! Hashes that nobody can predict who doesn't know the seed.

/// What makes hashes unpredictable for those who choose the addresses.
#[derive(Clone, Copy)]
pub struct Seed {
    start: u64,
    factor: u64,
}

/// A hash in the making.
///
/// Each step multiplies what there is with a secret factor and folds the 128-bit product, so that
/// every bit of the result depends on all that came before.
#[derive(Clone, Copy)]
#[must_use]
pub struct Hash {
    state: u64,
    factor: u64,
}

impl Seed {
    /// Makes a seed of a random number.
    pub const fn new(random: u64) -> Self {
        // 2^64 divided by the golden ratio: odd, and without a pattern.
        let factor = fold(random, 0x9e37_79b9_7f4a_7c15) | 1;
        Self {
            start: random,
            factor,
        }
    }

    /// Begins a hash.
    #[inline]
    pub const fn hash(self) -> Hash {
        Hash {
            state: self.start,
            factor: self.factor,
        }
    }
}

impl Hash {
    /// Takes in a word.
    #[inline]
    pub const fn word(self, word: u64) -> Self {
        Self {
            state: fold(self.state ^ word, self.factor),
            ..self
        }
    }

    /// The hash of the words so far.
    #[inline]
    pub const fn finish(self) -> u64 {
        self.state
    }

    /// 32 bits of it, of which the lower ones can be the number of a place.
    ///
    /// Those of the hash itself are no good for that: with some seeds, keys that differ in few bits get few places.
    #[inline]
    pub const fn index(self) -> u32 {
        (self.state.wrapping_mul(self.factor) >> 32) as u32
    }
}

#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::collections::HashSet;

    #[test]
    fn words_and_their_order_matter() {
        let hash = |words: &[u64]| {
            words
                .iter()
                .fold(Seed::new(7).hash(), |hash, word| hash.word(*word))
                .finish()
        };
        let all = [&[][..], &[0], &[0, 0], &[1], &[1, 2], &[2, 1], &[1 << 63]];
        let hashes: HashSet<u64> = all.iter().map(|words| hash(words)).collect();
        assert_eq!(hashes.len(), all.len());
        assert_ne!(
            Seed::new(7).hash().word(1).finish(),
            Seed::new(8).hash().word(1).finish()
        );
    }

    /// Whatever keys have in common, and whatever the seed: a place has as many of them as chance would give it.
    #[test]
    fn places_are_taken_evenly() {
        const KEYS: u64 = 1 << 12;
        const PLACES: usize = 1 << 14;
        for n in 1..100u64 {
            let seed = Seed::new(n.wrapping_mul(0xd134_2543_de82_ef95));
            for (name, key) in [
                ("neighbours", (|n| 0x0a00_0000 + n) as fn(u64) -> u64),
                ("networks", |n| n << 8),
                ("one in many", |n| n << 20),
                ("upper words", |n| n << 48),
                ("backwards", |n| u64::from((n as u32).reverse_bits())),
            ] {
                let mut places = std::vec![0u64; PLACES];
                (0..KEYS)
                    .for_each(|n| places[seed.hash().word(key(n)).index() as usize % PLACES] += 1);
                // How many keys are looked at until all have been found: 1.125 for each, by chance.
                let looks: u64 = places.iter().map(|keys| keys * (keys + 1) / 2).sum();
                assert!(looks < KEYS * 125 / 100, "{name}, seed {n}: {looks}");
            }
        }
    }

    #[test]
    fn neighbours_spread_over_all_bits() {
        let seed = Seed::new(0x0123_4567_89ab_cdef);
        for bit in 0..64 {
            let ones = (0..1000)
                .filter(|n| seed.hash().word(*n).finish() >> bit & 1 == 1)
                .count();
            assert!((350..650).contains(&ones), "bit {bit}: {ones} of 1000");
        }
    }
}
