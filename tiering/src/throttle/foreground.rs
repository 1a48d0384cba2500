//! How much of the window background work may have: all of it, less while reads of the mount are
//! slower than usual, or while the kernel says that tasks wait for disks. Multiplicative down,
//! additive up, judged once a second; never to nothing, since space for writers comes from the
//! background too.
//!
//! The baseline of the 95th percentile is what is seen while the background does nothing or little;
//! while it works the baseline hardly rises.

use std::time::{Duration, Instant};

use super::ThrottleConfig;

/// Between two judgements.
const EVERY: Duration = Duration::from_secs(1);
/// Reads looked at, the latest ones.
const SAMPLES: usize = 256;
/// Fewer say nothing.
const FEW: usize = 20;
/// Smallest share.
pub(super) const LEAST_SHARE: f64 = 1.0 / 16.0;
const DOWN: f64 = 0.6;
const UP: f64 = 0.05;
/// Differences below this are no slowness to a person.
const NOTICEABLE: Duration = Duration::from_micros(300);

#[derive(Debug)]
pub(super) struct Foreground {
    /// Microseconds, in the order in which they came.
    samples: Vec<u32>,
    next: usize,
    fresh: usize,
    baseline: Option<f64>,
    p95: Option<f64>,
    pressure: Option<f64>,
    share: f64,
    why: Why,
    judged_at: Option<Instant>,
}

/// Why the share is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Nothing,
    Slow,
    Pressure,
}

impl Foreground {
    pub(super) fn new() -> Self {
        Self {
            samples: Vec::new(),
            next: 0,
            fresh: 0,
            baseline: None,
            p95: None,
            pressure: None,
            share: 1.0,
            why: Why::Nothing,
            judged_at: None,
        }
    }

    /// A read of the mount took so long.
    pub(super) fn note(&mut self, latency: Duration) {
        let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        if self.samples.len() < SAMPLES {
            self.samples.push(micros);
        } else {
            self.samples[self.next] = micros;
        }
        self.next = (self.next + 1) % SAMPLES;
        self.fresh = (self.fresh + 1).min(SAMPLES);
    }

    pub(super) fn share(&self) -> f64 {
        self.share
    }

    pub(super) fn why(&self) -> Why {
        if self.share < 1.0 { self.why } else { Why::Nothing }
    }

    /// Latest 95th percentile and its baseline, in seconds.
    pub(super) fn p95(&self) -> Option<(f64, f64)> {
        self.p95.zip(self.baseline).map(|(p95, baseline)| (p95 / 1e6, baseline / 1e6))
    }

    pub(super) fn pressure(&self) -> Option<f64> {
        self.pressure
    }

    /// Whether it is time to judge, for which the pressure has to be read.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.judged_at.is_none_or(|at| now.saturating_duration_since(at) >= EVERY)
    }

    /// When the share may become larger by itself.
    pub(super) fn judged_again_at(&self) -> Option<Instant> {
        self.judged_at.filter(|_| self.share < 1.0).map(|at| at + EVERY)
    }

    /// Judges the last second; `is_quiet` says that the background did next to nothing in it.
    pub(super) fn judge(
        &mut self,
        config: &ThrottleConfig,
        now: Instant,
        pressure: Option<f64>,
        is_quiet: bool,
    ) {
        self.judged_at = Some(now);
        self.pressure = pressure;
        let is_slow = self.look(config, is_quiet || self.share <= LEAST_SHARE);
        // Without anybody who reads or writes, the pressure is the background's own.
        let presses = pressure.is_some_and(|percent| percent > config.pressure_percent);
        self.why = match (is_slow, presses) {
            (true, _) => Why::Slow,
            (_, true) => Why::Pressure,
            _ => self.why,
        };
        self.share = match is_slow || presses {
            true => (self.share * DOWN).max(LEAST_SHARE),
            false => (self.share + UP).min(1.0),
        };
        self.fresh = 0;
    }

    /// Whether the mount is slower than usual. Without reads there is nobody to suffer.
    fn look(&mut self, config: &ThrottleConfig, is_quiet: bool) -> bool {
        if self.fresh < FEW {
            return false;
        }
        let mut latest: Vec<u32> = (1..=self.fresh)
            .map(|back| self.samples[(self.next + SAMPLES - back) % SAMPLES])
            .collect();
        let at = latest.len() * 95 / 100;
        let (_, p95, _) = latest.select_nth_unstable(at.min(self.fresh - 1));
        let p95 = f64::from(*p95);
        self.p95 = Some(p95);
        let Some(baseline) = self.baseline else {
            self.baseline = Some(p95);
            return false;
        };
        let rate = match (p95 > baseline, is_quiet) {
            (true, true) => 0.1,
            (true, false) => 0.005,
            (false, _) => 0.3,
        };
        self.baseline = Some(baseline + (p95 - baseline) * rate);
        let noticeable = NOTICEABLE.as_micros() as f64;
        p95 > baseline * config.foreground_tolerance && p95 > baseline + noticeable
    }
}
