//! Settings of a throttle. Plain values; nothing here acts.

use std::time::Duration;

use crate::error::{Error, Result};

use super::Timetable;

/// Settings of a [`super::Throttle`]; may be changed while it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct ThrottleConfig {
    /// Bytes per second at each time of the day. Requests are cut into parts of 8 MiB; below
    /// 16 MiB/s a cap holds to within one part.
    pub timetable: Timetable,
    /// The window never becomes smaller, in bytes. One request may always run.
    pub min_window: u64,
    /// Nor larger. Bounds what a store that never slows down is given at a time.
    pub max_window: u64,
    /// The window of a store of which nothing is known.
    pub first_window: u64,
    /// Latency up to this multiple of the baseline is no congestion, above 1. Higher uses a noisy
    /// store better and lets queues grow longer.
    pub tolerance: f64,
    /// Latency that is no congestion whatever the baseline says. `None`: what the baseline says.
    pub latency_target: Option<Duration>,
    /// Share of the way to the new window that one window's worth of answers goes, in (0, 1].
    pub smoothing: f64,
    /// Background work backs off for reads of the mount.
    pub back_off: bool,
    /// It does so when the mount's 95th percentile exceeds this multiple of its
    /// own baseline.
    pub foreground_tolerance: f64,
    /// ... or when `/proc/pressure/io` says that for this share of the last 10 s, in percent,
    /// somebody waited for a disk.
    pub pressure_percent: f64,
    /// Requests that users wait for fail at once while the store is known not to answer, instead of
    /// waiting for it until their deadline.
    pub fail_fast: bool,
    /// How long nothing must have come back before a store counts as not answering.
    pub silence: Duration,
}

impl Default for ThrottleConfig {
    fn default() -> Self {
        Self {
            timetable: Timetable::default(),
            min_window: 256 << 10,
            max_window: 256 << 20,
            first_window: 1 << 20,
            tolerance: 1.5,
            latency_target: None,
            smoothing: 0.5,
            back_off: true,
            foreground_tolerance: 2.0,
            pressure_percent: 40.0,
            fail_fast: false,
            silence: Duration::from_secs(10),
        }
    }
}

impl ThrottleConfig {
    /// Refuses values that cannot work.
    pub fn validate(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::Config(format!("throttle: {what}")));
        if self.min_window == 0 || self.min_window > self.max_window {
            return wrong("the window's bounds are inside out");
        }
        if !(1.05..=10.0).contains(&self.tolerance) {
            return wrong("tolerance is not between 1.05 and 10");
        }
        if !(0.01..=1.0).contains(&self.smoothing) {
            return wrong("smoothing is not between 0.01 and 1");
        }
        if !(1.05..=100.0).contains(&self.foreground_tolerance) {
            return wrong("foreground tolerance is not between 1.05 and 100");
        }
        if !(0.0..=100.0).contains(&self.pressure_percent) {
            return wrong("pressure is not a percentage");
        }
        Ok(())
    }
}
