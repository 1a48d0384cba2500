//! Which blocks are referenced, for the block store's reclaiming.
//!
//! The store is opened before the volume that answers; until the volume is bound, and for blocks
//! younger than the youngest that this process knows, the answer is "referenced".

use std::sync::{OnceLock, Weak};

use firn_tiering::{BlockId, Error as TieringError};

use super::Volume;
use crate::error::FsResult;
use crate::file::chain;

/// Answers for a volume that may come into being later.
#[derive(Debug, Default)]
pub struct LateLiveness {
    volume: OnceLock<(Weak<Volume>, BlockId)>,
}

impl LateLiveness {
    /// Answers for `volume` from now on. `first` is higher than the ids of all blocks appended
    /// before the volume was opened.
    pub fn bind(&self, volume: Weak<Volume>, first: BlockId) {
        // Only the first volume counts; a second would be a mistake that changes nothing.
        let _ = self.volume.set((volume, first));
    }

    fn ask(&self, blocks: &[BlockId]) -> firn_tiering::Result<Vec<bool>> {
        let bound = self.volume.get().and_then(|(volume, first)| Some((volume.upgrade()?, *first)));
        match bound {
            Some((volume, first)) => volume.references(blocks, first).map_err(|error| {
                TieringError::Catalog(format!("asking the namespace: {}", chain(&error)))
            }),
            None => Ok(vec![true; blocks.len()]),
        }
    }
}

impl Volume {
    /// Which blocks are referenced; `first` is as in [`LateLiveness::bind`]. That the others are
    /// not survives power loss: whoever asked may destroy them.
    pub(super) fn references(&self, blocks: &[BlockId], first: BlockId) -> FsResult<Vec<bool>> {
        let answers = blocks
            .iter()
            .map(|block| self.files.is_block_used(*block, first))
            .collect::<FsResult<Vec<bool>>>()?;
        if answers.contains(&false) {
            self.changed(self.names.sync())?;
        }
        Ok(answers)
    }
}

impl firn_tiering::Liveness for LateLiveness {
    fn is_referenced(&self, blocks: &[BlockId]) -> firn_tiering::Result<Vec<bool>> {
        self.ask(blocks)
    }
}
