//! What a filesystem needs of a block store: the contract, apart from who keeps it.

use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::block::{BlockId, BlockRef, Epoch};
use crate::encode::EncodeMemory;
use crate::error::Result;
use crate::readahead::ReadAhead;

/// Whether a call may wait for the cold tier, for memory or for space.
#[derive(Clone, Copy, Debug)]
pub enum Wait {
    /// Answer from memory and local disk or return [`crate::Error::WouldWait`].
    No,
    /// Wait until then, afterwards [`crate::Error::TimedOut`].
    Until(Instant),
    /// For appends at a full hot tier: wait as long as anything is copied, dropped or collected;
    /// [`crate::Error::TimedOut`] once nothing was for that long. Whoever cannot tell progress
    /// waits that long in all.
    Progress(Duration),
}

/// What a read is part of, as far as the caller knows: a store may fetch what is likely to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Part of a file. Nothing follows, or the caller says what ([`Blocks::will_read`]).
    Part,
    /// All of a small file, whose block holds others: a reader of the directory wants those next.
    SmallFile,
    /// A block for its own sake: whoever reads on wants those stored behind it.
    Block,
    /// Work on what lies in hot, which says nothing of who needs it: it keeps nothing warm, and
    /// what only cold has, or what is damaged in hot, is [`crate::Error::WouldWait`].
    Upkeep,
}

/// Where the bytes of a read came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Bytes that were decoded before.
    Memory,
    /// The hot tier.
    Hot,
    /// The cold tier, asked for now or ahead of the read.
    Cold,
}

/// What a read brought.
#[derive(Clone, Debug)]
pub struct Served {
    /// Exactly the bytes asked for, verified.
    pub bytes: Bytes,
    /// Where they came from.
    pub source: Source,
}

/// Hands out ids that were never handed out before, durably.
///
/// The implementation leases ranges ahead: an id in a returned range is never returned again,
/// also after power loss.
pub trait IdSource: Send + Sync + 'static {
    /// The current epoch.
    fn epoch(&self) -> Epoch;
    /// `count` consecutive counters of the current epoch, for blocks.
    fn lease_blocks(&self, count: u64) -> Result<Range<u64>>;
    /// `count` consecutive counters of the current epoch, for segments.
    fn lease_segments(&self, count: u64) -> Result<Range<u64>>;
}

/// Stores immutable blocks and gives back verified bytes.
///
/// Order: a [`BlockRef`] from [`Blocks::append`] may be read at once, but survives a crash only
/// after a later [`Blocks::sync`] has returned; callers record it durably only then.
/// A failed `sync` is final: every later append and sync fails with
/// [`crate::Error::ReadOnly`] until the store is opened again.
pub trait Blocks: Send + Sync + 'static {
    /// Encodes `plain` (1 to [`crate::MAX_BLOCK_LEN`] bytes) and appends it to the open segment.
    /// `memory` is what encoding learnt from earlier blocks of the same stream.
    fn append(&self, plain: &[u8], memory: &mut EncodeMemory, wait: Wait) -> Result<BlockRef>;

    /// Makes every block that was appended before the call durable.
    fn sync(&self) -> Result<()>;

    /// Exactly the bytes `range` of the block's plaintext, verified against `block.digest`.
    fn read(&self, block: &BlockRef, range: Range<u32>, wait: Wait) -> Result<Bytes>;

    /// As [`Blocks::read`], for a caller who knows what it reads for and wants to know where the
    /// bytes came from. Neither this nor [`Blocks::will_read`] has a default: what wraps a store and
    /// forgot one would still work, only slowly.
    fn read_for(
        &self,
        block: &BlockRef,
        range: Range<u32>,
        intent: Intent,
        wait: Wait,
    ) -> Result<Served>;

    /// Says what a sequential reader of a file wants next, so that a slow tier can be asked for it
    /// now. `ahead` is the plaintext that was said and not read yet; `next` gives the blocks
    /// behind that, in the order of the file, and is asked for no more of them than are wanted.
    /// Never waits, and fails silently: what is not fetched now is fetched when it is read.
    fn will_read(
        &self,
        reader: &mut ReadAhead,
        ahead: u64,
        next: &mut dyn FnMut() -> Option<BlockRef>,
    );

    /// The block as stored, for another store to [`Blocks::import`]: compressed as it is, verified
    /// before it leaves, at most [`crate::MAX_EXPORT_LEN`] bytes. It says nothing of where the
    /// block lies or what it is called here. Errors are those of [`Blocks::read`].
    fn export(&self, block: &BlockRef, wait: Wait) -> Result<Bytes>;

    /// Appends a block that a store has exported, as it is stored, under a new id of this store.
    /// Everything is verified first, down to decoding it and comparing it with its digest: an
    /// export that is damaged is [`crate::Error::Damaged`], one of a later format
    /// [`crate::Error::TooNew`], and neither leaves anything behind. Otherwise as
    /// [`Blocks::append`], its order and its errors included.
    fn import(&self, stored: &[u8], wait: Wait) -> Result<BlockRef>;

    /// Says that nothing durable refers to these blocks any more; their space may be reclaimed.
    /// Saying it again of a block does no harm: its id is never used for another.
    fn free(&self, blocks: &[BlockId]);
}
