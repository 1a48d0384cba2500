//! Whether anything refers to a block: a committed extent, an overlay, or an append under way.
//!
//! *Ownership*: the threads of the block store ask here, too, and the one that asks may be the last
//! to let go of this. So there is neither a thread nor the block store in it: a thread of the store
//! that had to end the volume would wait for threads that wait for it.

use std::sync::Arc;

use firn_tiering::BlockId;

use super::extents::Extents;
use super::health::Health;
use super::pins::Pins;
use crate::error::{FsError, FsResult};

/// Looks at a block while others share blocks, before it counts as used.
const LOOKS: usize = 8;

/// Knows which blocks are referenced.
pub(crate) struct References {
    names: Arc<dyn Extents>,
    pins: Arc<Pins>,
    health: Arc<Health>,
}

impl References {
    pub(super) fn new(names: Arc<dyn Extents>, pins: Arc<Pins>, health: Arc<Health>) -> Self {
        Self { names, pins, health }
    }

    /// Which blocks are referenced, or may be; `first` is the first block of this session. That the
    /// others are not survives power loss: whoever asked may destroy them.
    pub(crate) fn among(&self, blocks: &[BlockId], first: BlockId) -> FsResult<Vec<bool>> {
        let answers = blocks
            .iter()
            .map(|block| Ok(self.of(*block, Some(first))?.unwrap_or(true)))
            .collect::<FsResult<Vec<bool>>>()?;
        if answers.contains(&false) {
            self.sync()?;
        }
        Ok(answers)
    }

    /// Whether a committed extent or an overlay refers to a block; `None` when references moved
    /// from one file to another each time it was looked for. `first` is the first block of this
    /// session if blocks on their way from an encoder count as used.
    pub(super) fn of(&self, block: BlockId, first: Option<BlockId>) -> FsResult<Option<bool>> {
        for _ in 0..LOOKS {
            let shares = self.pins.shares();
            // Before the namespace is asked: a block that is committed meanwhile leaves the
            // overlay.
            let used = self.pins.is_held(block, first) || self.names.is_referenced(block)?;
            if used || self.pins.shares() == shares {
                return Ok(Some(used));
            }
        }
        Ok(None)
    }

    /// A failed sync ends all changes.
    fn sync(&self) -> FsResult<()> {
        let synced = self.names.sync();
        if let Err(FsError::Io { .. }) = &synced
            && let Some(reason) = self.names.refused()
        {
            self.health.fail(reason);
        }
        synced
    }
}
