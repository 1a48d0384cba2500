//! Watermarks of the hot tier: where the mover begins to make room and where it ends, where copies
//! ahead of need begin, and what is kept for writers. Plain numbers; `capacity` applies them.

use crate::error::{Error, Result};

/// Usage of the hot tier, in bytes, at which something begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// Above this the mover drops hot copies. Higher: more stays hot, writers wait sooner.
    pub high: u64,
    /// Down to this it goes on. Lower: fewer, larger moves. What is brought back from cold never
    /// fills the tier above it either.
    pub low: u64,
    /// From here on sealed segments are copied to cold ahead of need, where
    /// [`crate::StoreConfig::copy_ahead`] allows it. 0: from the first byte.
    pub copy_ahead: u64,
    /// Room below the capacity that is only ever given to writers, and to work that makes room.
    pub write_reserve: u64,
}

impl Watermarks {
    /// What suits a hot tier of `capacity` bytes with segments of `segment_bytes`: an eighth of
    /// it, or two segments, is kept free, and as much again once dropping began.
    pub fn of_capacity(capacity: u64, segment_bytes: u64) -> Self {
        let slack = (capacity / 8).min(2 * segment_bytes);
        let high = capacity - slack;
        Self { high, low: high - slack, copy_ahead: 0, write_reserve: slack }
    }

    /// Refuses marks that contradict each other or a capacity of `capacity` bytes.
    pub fn validate(&self, capacity: u64) -> Result<()> {
        let Self { high, low, copy_ahead, write_reserve } = *self;
        if low > high || high > capacity {
            return Err(Error::Config(format!(
                "watermarks must grow from low over high to the capacity, not {low}, {high}, \
                 {capacity} bytes"
            )));
        }
        if copy_ahead > capacity || write_reserve > capacity {
            return Err(Error::Config(format!(
                "a mark of {} bytes is beyond the capacity of {capacity}",
                copy_ahead.max(write_reserve)
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn defaults_fit_every_capacity_and_contradictions_are_refused() {
        for capacity in [0, 1, 7, 6 << 20, 256 << 20, 1 << 50, u64::MAX] {
            Watermarks::of_capacity(capacity, 64 << 20).validate(capacity).unwrap();
        }
        let good = Watermarks::of_capacity(256 << 20, 64 << 20);
        assert_eq!((good.high, good.low), (224 << 20, 192 << 20));
        for bad in [
            Watermarks { low: good.high + 1, ..good },
            Watermarks { high: (256 << 20) + 1, ..good },
            Watermarks { copy_ahead: (256 << 20) + 1, ..good },
            Watermarks { write_reserve: (256 << 20) + 1, ..good },
        ] {
            assert!(matches!(bad.validate(256 << 20), Err(Error::Config(_))), "{bad:?}");
        }
    }
}
