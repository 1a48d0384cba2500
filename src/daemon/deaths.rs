//! When the blocks of a cold object were seen dead, until every retained backup was made later.
//!
//! An entry stands for one exact set of blocks: a segment of which another block dies begins
//! anew, since older backups may still name that one. Bounded: at the bound entries that have
//! served their time go, and no more are taken until some did; that only delays deletion.

use std::collections::HashMap;

use firn_tiering::{BlockDigest, BlockId};

/// Objects whose moment of death is remembered.
const MAX_REMEMBERED: usize = 100_000;

/// A set of blocks: the digest of its sorted ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct BlockSet(BlockDigest);

impl BlockSet {
    /// The set of these blocks, in any order.
    pub(super) fn of(blocks: &[BlockId]) -> Self {
        let mut ids: Vec<u64> = blocks.iter().map(|block| block.raw()).collect();
        ids.sort_unstable();
        ids.dedup();
        let bytes: Vec<u8> = ids.into_iter().flat_map(u64::to_le_bytes).collect();
        Self(BlockDigest::of(&bytes))
    }
}

/// Moments at which sets of blocks were seen dead, in the order that `M` has.
#[derive(Debug)]
pub(super) struct Deaths<M> {
    seen: HashMap<BlockSet, M>,
    most: usize,
}

impl<M> Default for Deaths<M> {
    fn default() -> Self {
        Self { seen: HashMap::new(), most: MAX_REMEMBERED }
    }
}

impl<M: Copy + Ord> Deaths<M> {
    /// Whether the oldest retained backup was made when these blocks were dead already. `now` is
    /// a moment at which they are.
    pub(super) fn precede(&mut self, blocks: BlockSet, now: M, oldest: Option<M>) -> bool {
        if self.seen.len() >= self.most && !self.seen.contains_key(&blocks) {
            self.seen.retain(|_, seen| oldest.is_none_or(|oldest| *seen > oldest));
            if self.seen.len() >= self.most {
                return false;
            }
        }
        let seen = *self.seen.entry(blocks).or_insert(now);
        oldest.is_some_and(|oldest| oldest >= seen)
    }

    /// Their object is deleted, or one of them lives.
    pub(super) fn forget(&mut self, blocks: BlockSet) {
        self.seen.remove(&blocks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(blocks: &[u64]) -> BlockSet {
        let blocks: Vec<_> = blocks.iter().map(|raw| BlockId::from_raw(*raw)).collect();
        BlockSet::of(&blocks)
    }

    #[test]
    fn each_set_waits_for_backups_made_after_all_of_it_died() {
        let mut deaths = Deaths::default();
        assert!(!deaths.precede(set(&[1, 2]), 5, None));
        assert!(!deaths.precede(set(&[2, 1]), 7, Some(4)));
        // Another object with the same lowest block, and one block more of the same object.
        for other in [set(&[1, 9]), set(&[1, 2, 3])] {
            assert!(!deaths.precede(other, 8, Some(6)));
        }
        assert!(deaths.precede(set(&[1, 2]), 8, Some(5)), "its first moment counts");
        assert!(deaths.precede(set(&[1, 2]), 9, Some(5)), "until it is deleted");
        deaths.forget(set(&[1, 2]));
        assert!(!deaths.precede(set(&[1, 2]), 9, Some(8)));
    }

    #[test]
    fn at_the_bound_those_that_wait_go_on_waiting() {
        let mut deaths = Deaths { most: 2, ..Deaths::default() };
        assert!(!deaths.precede(set(&[1]), 1, None));
        assert!(!deaths.precede(set(&[2]), 5, None));
        assert!(!deaths.precede(set(&[3]), 6, Some(0)));
        assert!(deaths.precede(set(&[1]), 7, Some(2)));
        assert!(!deaths.precede(set(&[3]), 7, Some(2)), "takes the place of a served one");
        assert!(deaths.precede(set(&[2]), 8, Some(5)));
        assert!(deaths.precede(set(&[3]), 8, Some(7)));
    }
}
