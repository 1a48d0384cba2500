//! Bytes per second over the last seconds.

use std::time::Instant;

/// Seconds that are looked back at.
const SLOTS: u64 = 10;

#[derive(Debug)]
pub(super) struct Meter {
    start: Instant,
    slots: [u64; SLOTS as usize],
    /// The second that the newest slot stands for.
    second: u64,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        Self { start: now, slots: [0; SLOTS as usize], second: 0 }
    }

    fn advance(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.start).as_secs();
        for passed in (self.second + 1..=second).take(SLOTS as usize) {
            self.slots[(passed % SLOTS) as usize] = 0;
        }
        if second > self.second + SLOTS {
            self.slots = [0; SLOTS as usize];
        }
        self.second = self.second.max(second);
    }

    pub(super) fn add(&mut self, now: Instant, bytes: u64) {
        self.advance(now);
        self.slots[(self.second % SLOTS) as usize] += bytes;
    }

    pub(super) fn per_second(&mut self, now: Instant) -> u64 {
        self.advance(now);
        let lived = now.saturating_duration_since(self.start).as_secs_f64();
        // The newest second has only begun.
        let span = (SLOTS - 1) as f64 + lived.fract();
        (self.slots.iter().sum::<u64>() as f64 / lived.min(span).max(0.5)) as u64
    }
}
