// SPDX-License-Identifier: GPL-2.0

//! A seeded hash. Senders choose the addresses, so without the seed it must be unpredictable which
//! keys collide.

/// The secret seed of a hash.
#[derive(Clone, Copy)]
pub struct Seed {
    start: u64,
    factor: u64,
}

/// The state of a hash.
///
/// Each step multiplies the state by a secret factor and folds the 128-bit product to 64 bits, so
/// that every bit of the result depends on all words before.
#[derive(Clone, Copy)]
#[must_use]
pub struct Hash {
    state: u64,
    factor: u64,
}

impl Seed {
    /// Makes a seed from a random number.
    pub const fn new(random: u64) -> Self {
        // 2^64 divided by the golden ratio: an odd number whose bits have no pattern.
        let factor = fold(random, 0x9e37_79b9_7f4a_7c15) | 1;
        Self {
            start: random,
            factor,
        }
    }

    /// Starts a hash.
    #[inline]
    pub const fn hash(self) -> Hash {
        Hash {
            state: self.start,
            factor: self.factor,
        }
    }

    /// The hash whose [`Hash::finish`] was `state`.
    pub const fn resume(self, state: u64) -> Hash {
        Hash {
            state,
            factor: self.factor,
        }
    }
}

impl Hash {
    /// Adds a word.
    #[inline]
    pub const fn word(self, word: u64) -> Self {
        Self {
            state: fold(self.state ^ word, self.factor),
            ..self
        }
    }

    /// The hash of the words.
    #[inline]
    pub const fn finish(self) -> u64 {
        self.state
    }

    /// The hash of the words in 32 bits. Its lowest bits can be used as the index of a bucket.
    ///
    /// The lowest bits of [`Self::finish`] are not suitable: with some seeds, keys that differ in
    /// few bits get only few different indexes.
    #[inline]
    pub const fn index(self) -> u32 {
        (self.spread() >> 32) as u32
    }

    /// The hash of the words in 64 bits, of which the upper ones are the best.
    #[inline]
    pub const fn spread(self) -> u64 {
        self.state.wrapping_mul(self.factor)
    }

    /// Both hashes of the words in 32 bits.
    pub const fn choices(self) -> [u32; 2] {
        [self.index(), self.second_index()]
    }

    /// Another hash of the words in 32 bits, independent of [`Self::index`].
    #[inline]
    pub const fn second_index(self) -> u32 {
        (self.state.rotate_left(32).wrapping_mul(self.factor) >> 32) as u32
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
    fn the_hash_depends_on_the_words_their_order_and_the_seed() {
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

    /// With any seed, buckets have as many keys as with random indexes, even if the keys share
    /// bits.
    #[test]
    fn indexes_are_spread_evenly() {
        const KEYS: u64 = 1 << 12;
        const BUCKETS: usize = 1 << 14;
        for n in 1..100u64 {
            let seed = Seed::new(n.wrapping_mul(0xd134_2543_de82_ef95));
            for (name, key) in [
                ("neighbours", (|n| 0x0a00_0000 + n) as fn(u64) -> u64),
                ("networks", |n| n << 8),
                ("one in many", |n| n << 20),
                ("upper words", |n| n << 48),
                ("backwards", |n| u64::from((n as u32).reverse_bits())),
            ] {
                let mut buckets = std::vec![0u64; BUCKETS];
                (0..KEYS).for_each(|n| {
                    buckets[seed.hash().word(key(n)).index() as usize % BUCKETS] += 1;
                });
                // Looking up every key in its bucket's chain compares 1.125 keys on average if the
                // indexes are random.
                let compared: u64 = buckets.iter().map(|keys| keys * (keys + 1) / 2).sum();
                assert!(compared < KEYS * 125 / 100, "{name}, seed {n}: {compared}");
            }
        }
    }

    #[test]
    fn consecutive_keys_change_every_bit() {
        let seed = Seed::new(0x0123_4567_89ab_cdef);
        for bit in 0..64 {
            let ones = (0..1000)
                .filter(|n| seed.hash().word(*n).finish() >> bit & 1 == 1)
                .count();
            assert!((350..650).contains(&ones), "bit {bit}: {ones} of 1000");
        }
    }
}
