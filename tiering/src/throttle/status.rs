//! What a throttle says about itself.

use serde::{Deserialize, Serialize};

/// What holds requests back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// Nothing waits.
    #[default]
    Nothing,
    /// The rate cap.
    Cap,
    /// The window: more in flight would only queue.
    Window,
    /// Reads of the mount are slower than usual.
    Foreground,
    /// The kernel says that tasks wait for disks.
    Pressure,
    /// The store asked for a pause.
    RetryAfter,
    /// The store only fails.
    Failing,
    /// The store does not answer.
    Silent,
}

/// The state of a throttle.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Bytes that may be in flight.
    pub window_bytes: u64,
    /// Bytes that are.
    pub in_flight_bytes: u64,
    /// Requests that are.
    pub in_flight: u64,
    /// Requests that wait, by priority, the most urgent first.
    pub waiting: [u64; 6],
    /// Bytes per second that are allowed now; absent without a cap.
    pub rate_cap: Option<u64>,
    /// Bytes per second over the last ten.
    pub achieved_bytes_per_s: u64,
    /// Latency as a multiple of what the store takes when it has nothing else to do.
    pub stretch: f64,
    /// The share of the window that background work may have.
    pub background_share: f64,
    /// What holds requests back.
    pub limited_by: Limit,
    /// The same in words.
    pub reason: String,
    /// The pause that the store asked for ends in so many milliseconds.
    pub paused_ms: Option<u64>,
    /// 95th percentile of the mount's reads, in microseconds; absent with too few.
    pub foreground_p95_us: Option<u64>,
    /// Its baseline.
    pub foreground_baseline_us: Option<u64>,
    /// Share of the last ten seconds in which somebody waited for a disk, in percent.
    pub io_pressure_percent: Option<f64>,
    /// The store is known not to answer now.
    pub is_down: bool,
}
