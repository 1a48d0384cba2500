//! One cheap, invertible mixing of 64-bit ids: hash tables of ids, spatial samples and seeded
//! chance all use it. Below everything else in the crate. It is no defence against somebody who
//! chooses ids; ids here are given out by the volume itself.

use std::hash::{BuildHasherDefault, Hasher};

/// The finalizer of splitmix64 (Steele, Lea, Flood, 2014): every bit of the input changes half of
/// the output, and no two inputs share an output.
pub const fn mix(id: u64) -> u64 {
    let mut x = id.wrapping_add(GOLDEN);
    x = (x ^ (x >> 30)).wrapping_mul(FIRST);
    x = (x ^ (x >> 27)).wrapping_mul(SECOND);
    x ^ (x >> 31)
}

/// The id that [`mix`] makes `mixed` of.
pub const fn unmix(mixed: u64) -> u64 {
    let mut x = mixed ^ (mixed >> 31) ^ (mixed >> 62);
    x = x.wrapping_mul(SECOND_INVERSE);
    x = x ^ (x >> 27) ^ (x >> 54);
    x = x.wrapping_mul(FIRST_INVERSE);
    x = x ^ (x >> 30) ^ (x >> 60);
    x.wrapping_sub(GOLDEN)
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
const FIRST: u64 = 0xbf58_476d_1ce4_e5b9;
const SECOND: u64 = 0x94d0_49bb_1331_11eb;
const FIRST_INVERSE: u64 = inverse(FIRST);
const SECOND_INVERSE: u64 = inverse(SECOND);

/// The inverse of an odd number modulo 2^64, by Newton's iteration: each round doubles the bits.
const fn inverse(odd: u64) -> u64 {
    let mut x = odd;
    let mut round = 0;
    while round < 6 {
        x = x.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(x)));
        round += 1;
    }
    x
}

/// A seeded sequence (splitmix64).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The sequence of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn draw(&mut self) -> u64 {
        let drawn = mix(self.0);
        self.0 = self.0.wrapping_add(GOLDEN);
        drawn
    }

    /// The next number below `bound`; 0 when `bound` is 0. Multiply and shift (Lemire 2019),
    /// without the correction of a bias below 2^-32 for bounds below 2^32.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.draw() as u128 * bound as u128) >> 64) as u64
    }
}

/// Hashes ids by [`mix`].
#[derive(Clone, Copy, Debug, Default)]
pub struct MixHasher(u64);

/// For `HashMap`s of ids.
pub type ByMix = BuildHasherDefault<MixHasher>;

impl Hasher for MixHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = mix(self.0 ^ u64::from(byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = mix(self.0 ^ id);
    }

    fn write_u32(&mut self, id: u32) {
        self.write_u64(u64::from(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixing_is_undone_and_drawing_is_splitmix64() {
        for id in [0, 1, 2, 0xffff, 1 << 40, u64::MAX, 0x0123_4567_89ab_cdef] {
            assert_eq!(unmix(mix(id)), id);
            assert_eq!(mix(unmix(id)), id);
        }
        // The first numbers of the reference implementation for the seed 1234567.
        let mut chance = Chance::new(1_234_567);
        let drawn: [u64; 3] = std::array::from_fn(|_| chance.draw());
        assert_eq!(drawn, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }

    #[test]
    fn drawing_below_a_bound_is_even() {
        let mut chance = Chance::new(7);
        let mut counts = [0_u32; 10];
        for _ in 0..10_000 {
            counts[chance.below(10) as usize] += 1;
        }
        assert!(counts.iter().all(|&count| (900..1100).contains(&count)), "{counts:?}");
        assert_eq!(chance.below(0), 0);
    }
}
