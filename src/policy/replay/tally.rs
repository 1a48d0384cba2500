//! What reads of a replay came to.

use std::collections::HashMap;

use firn_tiering::mix::ByMix;
use firn_tiering::replay::Request;

use crate::policy::planner::get_requests;

/// Counts reads: what hot served, and what came from cold.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Reads.
    pub(super) reads: u64,
    /// Of these, what hot served.
    pub(super) hits: u64,
    /// Bytes read.
    pub(super) bytes: u64,
    /// Of these, what hot served.
    pub(super) hit_bytes: u64,
    /// Requests to cold.
    pub(super) requests: u64,
    /// Bytes that came from cold.
    pub(super) cold_bytes: u64,
    /// Of these, bytes of what had left hot less than a horizon before.
    pub(super) regretted_bytes: u64,
    horizon_ms: u64,
    /// When items left that did not come back yet.
    gone: HashMap<u64, u64, ByMix>,
}

impl Tally {
    pub(super) fn new(horizon_ms: u64) -> Self {
        Self { horizon_ms, ..Self::default() }
    }

    /// A read that hot served.
    pub(super) fn hit(&mut self, request: &Request) {
        self.read(request);
        self.hits += 1;
        self.hit_bytes = self.hit_bytes.saturating_add(request.bytes);
    }

    /// A read that fetched so many bytes.
    pub(super) fn miss(&mut self, request: &Request, fetched: u64) {
        self.read(request);
        self.fetch(request.item, fetched, request.at_ms);
    }

    /// So many bytes came back, for a read or of the policy's own accord.
    pub(super) fn fetch(&mut self, item: u64, bytes: u64, now_ms: u64) {
        self.requests += get_requests(bytes).max(1);
        self.cold_bytes = self.cold_bytes.saturating_add(bytes);
        let left_ms = self.gone.remove(&item);
        if left_ms.is_some_and(|left| now_ms.saturating_sub(left) < self.horizon_ms) {
            self.regretted_bytes = self.regretted_bytes.saturating_add(bytes);
        }
    }

    /// An item left hot.
    pub(super) fn left(&mut self, item: u64, now_ms: u64) {
        self.gone.insert(item, now_ms);
    }

    /// What an item was before is of no interest any more: it was written or deleted.
    pub(super) fn is_made_anew(&mut self, item: u64) {
        self.gone.remove(&item);
    }

    fn read(&mut self, request: &Request) {
        self.reads += 1;
        self.bytes = self.bytes.saturating_add(request.bytes);
    }
}
