//! What the store must ask before it destroys anything: whether a verified backup names what
//! only the cold tier would hold, and whether anybody still refers to a block; and what it asks
//! about order: who must stay and who goes first. The store knows no files, so whoever keeps the
//! namespace answers.

use std::collections::HashSet;

use crate::block::BlockId;
use crate::error::Result;

use super::repair::DamageReport;

/// Says what a verified namespace backup in the cold tier names.
///
/// Implementations are called from the store's background threads, may take long, and must not
/// call back into methods of the store that wait for space.
pub trait BackupGate: Send + Sync + 'static {
    /// Makes sure that a verified backup names the extents of every one of `blocks` that is
    /// referenced at all, running an incremental backup if it must. The proof covers what it
    /// could make sure of; an error drops nothing.
    fn ensure_backed_up(&self, blocks: &[BlockId]) -> Result<BackupProof>;

    /// Whether no retained backup references any of `blocks`, so that the cold object that holds
    /// them may be deleted. They are all the blocks of that object that nothing refers to; asked
    /// again with the same ones until it is deleted.
    fn may_delete_cold(&self, blocks: &[BlockId]) -> Result<bool>;

    /// The object for which [`BackupGate::may_delete_cold`] was asked about `blocks` is gone.
    fn deleted_cold(&self, blocks: &[BlockId]);
}

/// Says who is referenced.
pub trait Liveness: Send + Sync + 'static {
    /// For each block whether anything refers to it: the namespace in any version, or an open
    /// file's content that is not in the namespace yet. "No" is final: a block that nothing
    /// refers to can never be referred to again.
    fn is_referenced(&self, blocks: &[BlockId]) -> Result<Vec<bool>>;
}

/// What is to become of a block when space is short.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Temper {
    /// It stays in hot whatever happens.
    Pinned,
    /// It goes when nothing colder is left. The heat is a decayed count of accesses; what is not
    /// a positive number counts as none.
    Warm(f32),
    /// No living file has it, only snapshots: it goes first.
    SnapshotOnly,
}

/// Knows what blocks are for.
///
/// Implementations are called from the store's background threads, should answer from memory or
/// one look-up a block, and must not call back into methods of the store that wait.
pub trait Steward: Send + Sync + 'static {
    /// One answer for each of `blocks`. An error drops nothing.
    fn tempers(&self, blocks: &[BlockId]) -> Result<Vec<Temper>>;
}

/// Learns what was damaged, and what became of it.
///
/// Called from the store's background threads, after the repair; must not call back into methods of
/// the store that wait.
pub trait DamageLog: Send + Sync + 'static {
    /// A damaged segment was made whole, or blocks of it are lost.
    fn report(&self, damage: &DamageReport);
}

/// The statement that a verified backup names some blocks. Whoever makes one vouches for it; it
/// is a type of its own so that no path can drop hot copies without somebody having done so.
#[derive(Clone, Debug)]
pub struct BackupProof {
    covered: Covered,
}

#[derive(Clone, Debug)]
enum Covered {
    Blocks(HashSet<BlockId>),
    Before(BlockId),
}

impl BackupProof {
    /// A verified backup names exactly these blocks' extents.
    pub fn of_blocks(blocks: impl IntoIterator<Item = BlockId>) -> Self {
        Self { covered: Covered::Blocks(blocks.into_iter().collect()) }
    }

    /// A verified backup names every referenced block whose id is lower than `end`.
    pub fn before(end: BlockId) -> Self {
        Self { covered: Covered::Before(end) }
    }

    /// Whether the proof speaks of `block`.
    pub fn covers(&self, block: BlockId) -> bool {
        match &self.covered {
            Covered::Blocks(blocks) => blocks.contains(&block),
            Covered::Before(end) => block < *end,
        }
    }
}
