//! Block and segment ids out of leases: each lease is durable and slow, each id is neither.
//!
//! Crash rule: a lease that was granted and not used up is lost, its ids are never used. Ids are
//! handed out in growing order; the next lease is fetched by [`Ids::refill`] in the background
//! while the present one lasts, and in line only when that came too late.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::block::{BlockId, Epoch};
use crate::blocks::IdSource;
use crate::error::{Error, Result};
use crate::segment::SegmentId;

/// Block counters leased at once. There are 2^48; what is lost at a crash does not matter.
const BLOCK_LEASE: u64 = 1 << 14;

/// Segment counters leased at once.
const SEGMENT_LEASE: u64 = 1 << 6;

/// Ids in hand.
pub(super) struct Ids {
    source: Arc<dyn IdSource>,
    blocks: Mutex<Lease>,
    segments: Mutex<Lease>,
}

#[derive(Default)]
struct Lease {
    current: Range<u64>,
    next: Option<Range<u64>>,
}

impl Lease {
    fn take(&mut self, lease: impl FnOnce() -> Result<Range<u64>>) -> Result<u64> {
        if self.current.is_empty() {
            self.current = match self.next.take() {
                Some(range) => range,
                None => lease()?,
            };
        }
        self.current.next().ok_or_else(|| Error::Config("an empty lease of ids".into()))
    }

    fn is_low(&self, size: u64) -> bool {
        self.next.is_none() && self.current.end - self.current.start < size / 2
    }
}

impl Ids {
    pub(super) fn new(source: Arc<dyn IdSource>) -> Self {
        Self { source, blocks: Mutex::default(), segments: Mutex::default() }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.source.epoch()
    }

    /// The next block id.
    pub(super) fn block(&self) -> Result<BlockId> {
        let counter = self.blocks.lock().take(|| self.source.lease_blocks(BLOCK_LEASE))?;
        BlockId::new(self.epoch(), counter).ok_or_else(used_up)
    }

    /// A block id that no id handed out so far reaches, without using it up.
    pub(super) fn next_block(&self) -> Result<BlockId> {
        let mut lease = self.blocks.lock();
        if lease.current.is_empty() {
            lease.current = match lease.next.take() {
                Some(range) => range,
                None => self.source.lease_blocks(BLOCK_LEASE)?,
            };
        }
        BlockId::new(self.epoch(), lease.current.start).ok_or_else(used_up)
    }

    /// The next segment id.
    pub(super) fn segment(&self) -> Result<SegmentId> {
        let counter = self.segments.lock().take(|| self.source.lease_segments(SEGMENT_LEASE))?;
        SegmentId::new(self.epoch(), counter).ok_or_else(used_up)
    }

    /// Whether [`Ids::refill`] would do anything.
    pub(super) fn are_low(&self) -> bool {
        self.blocks.lock().is_low(BLOCK_LEASE) || self.segments.lock().is_low(SEGMENT_LEASE)
    }

    /// Fetches the next leases while the present ones last. One thread at a time calls this, so
    /// that ranges stay in order.
    pub(super) fn refill(&self) -> Result<()> {
        // The lock is held across the lease: an appender that runs dry meanwhile waits for this
        // very lease instead of getting a later one first.
        let mut blocks = self.blocks.lock();
        if blocks.is_low(BLOCK_LEASE) {
            blocks.next = Some(self.source.lease_blocks(BLOCK_LEASE)?);
        }
        drop(blocks);
        let mut segments = self.segments.lock();
        if segments.is_low(SEGMENT_LEASE) {
            segments.next = Some(self.source.lease_segments(SEGMENT_LEASE)?);
        }
        Ok(())
    }
}

fn used_up() -> Error {
    Error::Config("all 2^48 ids of this epoch are used".into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::store::testing::CountingIds;

    #[test]
    fn ids_grow_across_leases_and_refills() {
        let source = Arc::new(CountingIds::new(3));
        let ids = Ids::new(Arc::clone(&source) as Arc<dyn IdSource>);
        let mut last = None;
        for round in 0..3 * BLOCK_LEASE {
            let next = ids.next_block().unwrap();
            let id = ids.block().unwrap();
            assert_eq!(next, id);
            assert!(Some(id) > last, "{id} after {last:?}");
            assert_eq!(id.epoch(), Epoch(3));
            last = Some(id);
            if round % 1000 == 0 {
                ids.refill().unwrap();
            }
        }
        let first = ids.segment().unwrap();
        assert!(ids.segment().unwrap() > first);
    }

    #[test]
    fn a_second_lease_holder_gets_other_ids() {
        let source: Arc<dyn IdSource> = Arc::new(CountingIds::new(1));
        let (a, b) = (Ids::new(Arc::clone(&source)), Ids::new(source));
        let used = a.block().unwrap();
        assert!(b.block().unwrap().raw() > used.raw() + BLOCK_LEASE - 1);
    }
}
