//! The window of bytes in flight, after Gradient2 of Netflix's concurrency-limits
//! (`Gradient2Limit.java`): the window is multiplied by `tolerance * baseline / latency`, between a
//! half and one, and a queue allowance is added, smoothed. Here the quotient is the smallest of the
//! last few (a queue delays all, noise does not), and one step is as long as a window's worth of
//! bytes takes to come back. It grows only while it is filled. Failures cut it, once per round
//! trip, as in AIMD; until the first sign of congestion it doubles instead.

use std::time::Instant;

use super::{Kind, ThrottleConfig};

/// What a request without a body counts as: about as much as this many bytes.
pub(super) const REQUEST_COST: u64 = 32 << 10;

/// Quotients of which the smallest counts.
const LOOKED_BACK: usize = 4;
/// How far one answer moves the short-term average at most; else by its share of the window.
const SHORT_TERM: f64 = 0.5;
/// Smallest gradient.
const STEEPEST: f64 = 0.5;
/// Share of the window that may stand in queues.
const QUEUE_SHARE: f64 = 0.1;
/// What is left of the window after a failure.
const AFTER_FAILURE: f64 = 0.7;

#[derive(Debug)]
pub(super) struct Window {
    bytes: f64,
    short: f64,
    /// The latest quotients, by direction.
    recent: [[f64; LOOKED_BACK]; 3],
    next: [usize; 3],
    is_starting: bool,
    cut_at: Option<Instant>,
    mean_cost: f64,
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) kind: Kind,
    /// Latency over its baseline.
    pub(super) quotient: f64,
    /// Bytes in flight that it counted for.
    pub(super) cost: u64,
    /// Bytes that its latency speaks for.
    pub(super) weight: u64,
    /// The window was at least half full.
    pub(super) was_used: bool,
}

impl Window {
    pub(super) fn new(config: &ThrottleConfig) -> Self {
        let bytes = config.first_window.clamp(config.min_window, config.max_window);
        Self {
            bytes: bytes as f64,
            short: 1.0,
            recent: [[1.0; LOOKED_BACK]; 3],
            next: [0; 3],
            is_starting: true,
            cut_at: None,
            mean_cost: REQUEST_COST as f64,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Short-term latency as a multiple of the baseline.
    pub(super) fn stretch(&self) -> f64 {
        self.short
    }

    pub(super) fn reconfigure(&mut self, config: &ThrottleConfig) {
        self.bytes = self.bytes.clamp(config.min_window as f64, config.max_window as f64);
    }

    pub(super) fn note(&mut self, config: &ThrottleConfig, sample: Sample) {
        let least = self.least_of_late(sample);
        let cost = sample.cost as f64;
        self.mean_cost += (cost - self.mean_cost) / 16.0;
        let weight = (sample.weight as f64 / self.bytes).min(1.0);
        self.short += (least - self.short) * weight.min(SHORT_TERM);
        let gradient = (config.tolerance / self.short).clamp(STEEPEST, 1.0);
        if self.is_starting && gradient >= 1.0 && sample.quotient < config.tolerance {
            if sample.was_used {
                self.bytes += cost;
            }
        } else {
            self.is_starting = false;
            let queue = (self.bytes * QUEUE_SHARE).max(self.mean_cost.min(self.bytes * 0.15));
            let target = self.bytes * gradient + queue;
            if target < self.bytes || sample.was_used {
                self.bytes += (target - self.bytes) * config.smoothing * weight;
            }
        }
        self.reconfigure(config);
    }

    fn least_of_late(&mut self, sample: Sample) -> f64 {
        let direction = match sample.kind {
            Kind::Read => 0,
            Kind::Write => 1,
            Kind::Small | Kind::Untimed => 2,
        };
        let (recent, next) = (&mut self.recent[direction], &mut self.next[direction]);
        recent[*next] = sample.quotient;
        *next = (*next + 1) % LOOKED_BACK;
        recent.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// A request that was sent at `sent` failed.
    pub(super) fn failed(&mut self, config: &ThrottleConfig, now: Instant, sent: Instant) {
        if self.cut_at.is_some_and(|cut_at| sent <= cut_at) {
            return;
        }
        self.cut_at = Some(now);
        self.is_starting = false;
        self.bytes *= AFTER_FAILURE;
        self.reconfigure(config);
    }

    /// Begins anew: the store was away.
    pub(super) fn restart(&mut self, config: &ThrottleConfig) {
        *self = Self::new(config);
    }
}
