//! Blocks that uncommitted state refers to, and blocks that may have lost their last reference.
//!
//! A block may be freed only when neither a committed extent nor an overlay names it. Whoever
//! loses a reference reports the block here; the flusher later asks the namespace about each and
//! frees those that nothing names. What a crash leaves unreported is leaked, never lost, and is
//! found by the sweeper.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use firn_tiering::{BlockId, BlockRef};
use parking_lot::Mutex;

/// Says that a block needs no sync before an extent may name it.
pub(crate) const DURABLE: u64 = 0;

/// A block that an overlay refers to. Dropping the last one makes the block a candidate.
#[derive(Debug)]
pub(crate) struct StoredBlock {
    /// How to find it.
    pub(crate) block: BlockRef,
    /// The append after which it was complete; see `GroupSync`. [`DURABLE`] for one that a
    /// committed extent named.
    pub(crate) ticket: u64,
    pins: Arc<Pins>,
}

impl Drop for StoredBlock {
    fn drop(&mut self) {
        self.pins.release(self.block.id);
    }
}

/// Counts references from overlays and collects candidates.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: HashMap<BlockId, u32>,
    candidates: Vec<BlockId>,
}

impl Pins {
    /// Keeps a block from being freed. The caller got it from an append, or from an extent whose
    /// file it holds the commit lock of.
    pub(crate) fn hold(self: &Arc<Self>, block: BlockRef, ticket: u64) -> Arc<StoredBlock> {
        *self.state.lock().held.entry(block.id).or_insert(0) += 1;
        Arc::new(StoredBlock { block, ticket, pins: Arc::clone(self) })
    }

    fn release(&self, id: BlockId) {
        let mut state = self.state.lock();
        if let Entry::Occupied(mut entry) = state.held.entry(id) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
                state.candidates.push(id);
            }
        }
    }

    /// Reports blocks that have lost a committed reference.
    pub(crate) fn report(&self, ids: impl IntoIterator<Item = BlockId>) {
        self.state.lock().candidates.extend(ids);
    }

    /// Takes up to `max` candidates that no overlay refers to. One that an overlay does refer to
    /// is forgotten here: it comes back when the overlay lets go of it.
    pub(crate) fn take_candidates(&self, max: usize) -> Vec<BlockId> {
        let mut state = self.state.lock();
        let from = state.candidates.len().saturating_sub(max);
        let mut taken = state.candidates.split_off(from);
        taken.retain(|id| !state.held.contains_key(id));
        taken.sort_unstable();
        taken.dedup();
        taken
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use firn_tiering::{BlockDigest, Epoch};

    use super::*;

    fn block(counter: u64) -> BlockRef {
        let id = BlockId::new(Epoch(1), counter).unwrap();
        BlockRef { id, digest: BlockDigest([0; 16]), len: 1 }
    }

    #[test]
    fn a_block_is_a_candidate_only_after_its_last_holder() {
        let pins = Arc::new(Pins::default());
        let first = pins.hold(block(1), 1);
        let second = pins.hold(block(1), DURABLE);
        drop(first);
        assert!(pins.take_candidates(10).is_empty());
        pins.report([block(1).id]);
        assert!(pins.take_candidates(10).is_empty(), "still held");
        drop(second);
        assert_eq!(pins.take_candidates(10), [block(1).id]);
        assert!(pins.take_candidates(10).is_empty());
    }
}
