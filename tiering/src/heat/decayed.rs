//! A count that halves with time, in one atomic word: what the block store can keep for each segment
//! without a lock. Lost precision is all that a race can cost: an update is never lost.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Counts stop here, far from where adding 1 has an effect.
const MOST: f32 = 1e12;

/// A decayed count and when it was last added to. All zeros is a count of nothing.
///
/// The half-life is the caller's, and the same in every call: that is how the word holds both.
#[derive(Debug, Default)]
pub struct Decayed(AtomicU64);

#[derive(Clone, Copy)]
struct Count {
    count: f32,
    last_s: u32,
}

impl Count {
    fn unpack(word: u64) -> Self {
        Self { count: f32::from_bits((word >> 32) as u32), last_s: word as u32 }
    }

    fn pack(self) -> u64 {
        u64::from(self.count.to_bits()) << 32 | u64::from(self.last_s)
    }

    /// As of `now_s`; a clock that went back stands still.
    fn at(self, now_s: u32, half_life_s: u32) -> Self {
        if now_s <= self.last_s {
            return self;
        }
        let gone = (now_s - self.last_s) as f32 / half_life_s.max(1) as f32;
        Self { count: self.count * (-gone).exp2(), last_s: now_s }
    }
}

impl Decayed {
    /// A count of nothing.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds `amount`, at `now_s` seconds since 1970, and returns the count. Negative amounts and what
    /// is no number add nothing.
    pub fn add(&self, amount: f32, now_s: u32, half_life_s: u32) -> f32 {
        let amount = if amount > 0.0 { amount } else { 0.0 };
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let mut new = Count::unpack(word).at(now_s, half_life_s);
            new.count = (new.count + amount).min(MOST);
            match self.0.compare_exchange_weak(
                word,
                new.pack(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return new.count,
                Err(other) => word = other,
            }
        }
    }

    /// The count as of `now_s`.
    pub fn value(&self, now_s: u32, half_life_s: u32) -> f32 {
        Count::unpack(self.0.load(Ordering::Relaxed)).at(now_s, half_life_s).count
    }

    /// When it was last added to, in seconds since 1970; 0 for never.
    pub fn last_s(&self) -> u32 {
        Count::unpack(self.0.load(Ordering::Relaxed)).last_s
    }

    /// The word, to be stored: the count as an IEEE single in the upper half, the time in the lower.
    pub fn to_bits(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// From a stored word. [`Error::Damaged`] for a count that is negative, too large or no number.
    pub fn from_bits(word: u64) -> Result<Self> {
        let count = Count::unpack(word).count;
        if (0.0..=MOST).contains(&count) && count.is_sign_positive() {
            return Ok(Self(AtomicU64::new(word)));
        }
        Err(Error::Damaged { what: "decayed count", reason: format!("it is {count}") })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_halve_with_time_and_stand_still_before_it() {
        let heat = Decayed::new();
        assert_eq!((heat.value(1000, 60), heat.last_s()), (0.0, 0));
        heat.add(4.0, 1000, 60);
        assert_eq!(heat.value(1060, 60), 2.0);
        assert_eq!(heat.value(900, 60), 4.0);
        assert_eq!(heat.add(1.0, 1120, 60), 2.0);
        assert_eq!(heat.add(1.0, 1, 60), 3.0);
        assert_eq!((heat.last_s(), heat.value(u32::MAX, 0)), (1120, 0.0));
        for nothing in [-1.0, f32::NAN, f32::NEG_INFINITY] {
            assert_eq!(heat.add(nothing, 1120, 60), 3.0);
        }
        assert_eq!(heat.add(f32::INFINITY, 1120, 60), MOST);
    }

    #[test]
    fn no_update_is_lost_to_a_race() {
        let heat = Decayed::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        heat.add(1.0, 7, 60);
                    }
                });
            }
        });
        assert_eq!(heat.value(7, 60), 40_000.0);
    }

    #[test]
    fn the_word_is_golden() {
        let heat = Decayed::new();
        heat.add(1.5, 0x0102_0304, 60);
        assert_eq!(heat.to_bits(), 0x3fc0_0000_0102_0304);
        assert_eq!(Decayed::from_bits(heat.to_bits()).unwrap().value(0, 60), 1.5);
    }

    proptest! {
        #[test]
        fn only_sound_words_are_taken(word in any::<u64>(), now in any::<u32>()) {
            if let Ok(heat) = Decayed::from_bits(word) {
                prop_assert_eq!(heat.to_bits(), word);
                prop_assert!(heat.add(1.0, now, 60).is_finite());
            }
        }
    }
}
