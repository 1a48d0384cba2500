//! How warm a segment is, as it is stored: one word, a count above a time. What decays it and
//! counts is the store's.

/// A decayed count of accesses, and when the last one was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentHeat(u64);

impl SegmentHeat {
    /// `count` accesses as they counted at the last one, in the second `last_s` of the epoch. A
    /// count that is no positive number is none.
    pub fn new(count: f32, last_s: u32) -> Self {
        let count = if count.is_finite() && count > 0.0 { count } else { 0.0 };
        Self(u64::from(count.to_bits()) << 32 | u64::from(last_s))
    }

    /// Accesses, as they counted at the last one.
    pub fn count(self) -> f32 {
        f32::from_bits((self.0 >> 32) as u32)
    }

    /// Second of the epoch of the last access; 0 for never.
    pub fn last_s(self) -> u32 {
        self.0 as u32
    }

    /// The stored form.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The value of a stored form; `None` when its count is none.
    pub fn from_bits(bits: u64) -> Option<Self> {
        let count = f32::from_bits((bits >> 32) as u32);
        (count.is_finite() && !count.is_sign_negative()).then_some(Self(bits))
    }
}
