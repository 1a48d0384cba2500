//! What happens a second, from the counters of two looks.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Counters;
use crate::units::rounded_bytes;

/// What happened a second between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Seconds between the looks.
    pub seconds: f64,
    /// Plaintext bytes that became blocks.
    pub written_bytes_per_s: f64,
    /// What they were stored in.
    pub stored_bytes_per_s: f64,
    /// Bytes that reads got from the hot tier.
    pub hot_read_bytes_per_s: f64,
    /// Bytes that reads got from memory.
    pub cache_read_bytes_per_s: f64,
    /// Bytes that reads got from the cold tier.
    pub cold_read_bytes_per_s: f64,
    /// Bytes copied to the cold tier.
    pub uploaded_bytes_per_s: f64,
    /// Bytes brought back to the hot tier.
    pub recalled_bytes_per_s: f64,
    /// Bytes dropped from the hot tier.
    pub dropped_bytes_per_s: f64,
    /// Ranged reads asked of the cold tier.
    pub cold_requests_per_s: f64,
    /// Share of block reads between the looks that needed nothing of the cold tier; absent without
    /// any.
    pub hit_ratio: Option<f64>,
}

impl Rates {
    /// From what was counted before and now, so much time apart.
    pub fn between(before: &Counters, now: &Counters, time: Duration) -> Self {
        let seconds = time.as_secs_f64().max(0.001);
        let rate = |counter: fn(&Counters) -> u64| {
            counter(now).saturating_sub(counter(before)) as f64 / seconds
        };
        let reads = Counters {
            hot_reads: now.hot_reads.saturating_sub(before.hot_reads),
            cold_reads: now.cold_reads.saturating_sub(before.cold_reads),
            cache_hits: now.cache_hits.saturating_sub(before.cache_hits),
            ..Counters::default()
        };
        Self {
            seconds,
            written_bytes_per_s: rate(|counters| counters.written_bytes),
            stored_bytes_per_s: rate(|counters| counters.stored_bytes),
            hot_read_bytes_per_s: rate(|counters| counters.hot_read_bytes),
            cache_read_bytes_per_s: rate(|counters| counters.cache_read_bytes),
            cold_read_bytes_per_s: rate(|counters| counters.cold_read_bytes),
            uploaded_bytes_per_s: rate(|counters| counters.uploaded_bytes),
            recalled_bytes_per_s: rate(|counters| counters.recalled_bytes),
            dropped_bytes_per_s: rate(|counters| counters.dropped_bytes),
            cold_requests_per_s: rate(|counters| counters.cold_requests),
            hit_ratio: reads.hit_ratio(),
        }
    }

    /// Rows of a table.
    pub(super) fn rows(&self) -> [(&'static str, String); 3] {
        [("writing", self.writing()), ("reading", self.reading()), ("moving", self.moving())]
    }

    /// In one line.
    pub fn line(&self) -> String {
        format!("{}; {}; {}", self.writing(), self.reading(), self.moving())
    }

    fn writing(&self) -> String {
        format!(
            "written {}, stored {}",
            per_second(self.written_bytes_per_s),
            per_second(self.stored_bytes_per_s)
        )
    }

    fn reading(&self) -> String {
        let hits = self.hit_ratio.map_or_else(String::new, |ratio| {
            format!(", {:.1} % without the cold tier", ratio * 100.0)
        });
        format!(
            "read from hot {}, from memory {}, from cold {}{hits}",
            per_second(self.hot_read_bytes_per_s),
            per_second(self.cache_read_bytes_per_s),
            per_second(self.cold_read_bytes_per_s)
        )
    }

    fn moving(&self) -> String {
        format!(
            "copied to cold {}, recalled {}, dropped {}, {:.1} cold reads/s",
            per_second(self.uploaded_bytes_per_s),
            per_second(self.recalled_bytes_per_s),
            per_second(self.dropped_bytes_per_s),
            self.cold_requests_per_s
        )
    }
}

fn per_second(bytes: f64) -> String {
    format!("{}/s", rounded_bytes(bytes as u64))
}
