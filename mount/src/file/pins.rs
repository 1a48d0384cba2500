//! Blocks that uncommitted state refers to, and blocks that may have lost their last reference.
//!
//! A block may be freed only when neither a committed extent nor an overlay names it. Whoever
//! loses a reference reports the block here; the flusher later asks the namespace about each and
//! frees those that nothing names. What a crash leaves unreported is leaked, never lost, and is
//! found by the sweeper.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
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
    /// References taken from committed extents, ever.
    shares: u64,
    /// The youngest block whose append has ended.
    youngest: Option<BlockId>,
    /// Appends under way, with the youngest block that had ended before each began.
    appending: BTreeMap<u64, Option<BlockId>>,
    appends: u64,
}

/// An append under way; its block may exist before anybody can hold it.
#[derive(Debug)]
pub(crate) struct Appending<'a> {
    pins: &'a Pins,
    number: u64,
}

impl Drop for Appending<'_> {
    fn drop(&mut self) {
        self.pins.state.lock().appending.remove(&self.number);
    }
}

impl Pins {
    /// Keeps a block from being freed. The caller got it from an append, or from an extent whose
    /// file it holds the commit lock of.
    pub(crate) fn hold(self: &Arc<Self>, block: BlockRef, ticket: u64) -> Arc<StoredBlock> {
        let mut state = self.state.lock();
        *state.held.entry(block.id).or_insert(0) += 1;
        if ticket == DURABLE {
            state.shares += 1;
        } else {
            state.youngest = state.youngest.max(Some(block.id));
        }
        drop(state);
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

    /// Announces an append; its result is to be held before this ends.
    pub(crate) fn begin_append(&self) -> Appending<'_> {
        let mut state = self.state.lock();
        let number = state.appends;
        state.appends += 1;
        let youngest = state.youngest;
        state.appending.insert(number, youngest);
        Appending { pins: self, number }
    }

    /// Whether an overlay refers to the block, or, given the `first` block of this session, may:
    /// an append that is under way has an id above those that had ended when it began.
    pub(crate) fn is_held(&self, id: BlockId, first: Option<BlockId>) -> bool {
        let state = self.state.lock();
        let known = state.appending.values().min().copied().unwrap_or(state.youngest);
        let under_way = |first| id >= first && known.is_none_or(|known| id > known);
        state.held.contains_key(&id) || first.is_some_and(under_way)
    }

    /// How many references were ever taken from committed extents. While this stays the same, a
    /// block that is neither held nor, asked after that, committed, never will be again.
    pub(crate) fn shares(&self) -> u64 {
        self.state.lock().shares
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
    fn a_block_that_may_be_under_way_counts_as_held() {
        let pins = Arc::new(Pins::default());
        let first = Some(block(10).id);
        assert!(!pins.is_held(block(9).id, first), "of an earlier session");
        assert!(pins.is_held(block(10).id, first), "nothing was appended yet");
        drop(pins.hold(block(11), 1));
        assert!(!pins.is_held(block(11).id, first));
        let append = pins.begin_append();
        drop(pins.hold(block(13), 2));
        assert!(pins.is_held(block(12).id, first), "the append may have this one");
        assert!(!pins.is_held(block(11).id, first));
        drop(append);
        assert!(!pins.is_held(block(12).id, first));
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
