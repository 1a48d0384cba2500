//! A token bucket that allows debt: what is admitted is charged in full at once, and nothing more
//! goes before that has been paid. So the average is exact whatever the length of a request, and
//! the only excess in any span of time is the burst and the last request.

use std::time::{Duration, Instant};

/// Seconds of the rate that may be saved up.
const BURST_SECONDS: f64 = 0.1;
/// Seconds of the rate by which a user's read may be ahead of it.
const BORROW_SECONDS: f64 = 0.3;

#[derive(Debug)]
pub(super) struct Bucket {
    /// Bytes per second; `None` is no cap.
    rate: Option<f64>,
    /// Bytes that may go; below zero is debt.
    level: f64,
    at: Instant,
}

impl Bucket {
    pub(super) fn new(now: Instant) -> Self {
        Self { rate: None, level: 0.0, at: now }
    }

    /// Fills up to `now`, and takes `rate` from then on.
    pub(super) fn advance(&mut self, now: Instant, rate: Option<u64>) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        if let Some(rate) = self.rate {
            self.level = (self.level + passed * rate).min(rate * BURST_SECONDS);
        }
        let rate = rate.map(|rate| rate.max(1) as f64);
        if self.rate != rate {
            // A debt at the old rate takes as long to pay at the new one.
            self.level = match (self.rate, rate) {
                (Some(old), Some(new)) => self.level / old * new,
                _ => 0.0,
            };
            self.rate = rate;
        }
    }

    pub(super) fn rate(&self) -> Option<u64> {
        self.rate.map(|rate| rate as u64)
    }

    fn least(&self, borrows: bool) -> f64 {
        match self.rate {
            Some(rate) if borrows => -rate * BORROW_SECONDS,
            _ => 0.0,
        }
    }

    /// Whether something may go; users' reads may borrow a little.
    pub(super) fn is_open(&self, borrows: bool) -> bool {
        self.rate.is_none() || self.level >= self.least(borrows)
    }

    /// How long until [`Bucket::is_open`].
    pub(super) fn opens_in(&self, borrows: bool) -> Duration {
        match self.rate {
            Some(rate) if !self.is_open(borrows) => {
                Duration::from_secs_f64(((self.least(borrows) - self.level) / rate).min(3600.0))
            }
            _ => Duration::ZERO,
        }
    }

    /// Charges bytes; negative ones are given back.
    pub(super) fn charge(&mut self, bytes: f64) {
        if self.rate.is_some() {
            self.level -= bytes;
        }
    }
}
