//! Which blocks are referenced, for the block store's reclaiming.
//!
//! The store is opened before the volume that answers; until the volume is bound, and for blocks
//! younger than the youngest that this process knows, the answer is "referenced".

use std::sync::{Arc, OnceLock, Weak};

use firn_tiering::{BlockId, Error as TieringError};

use super::Volume;
use crate::file::chain;
use crate::file::references::References;

/// Answers for a volume that may come into being later. Nobody who asks holds that volume.
#[derive(Debug, Default)]
pub struct LateLiveness {
    bound: OnceLock<(Weak<References>, BlockId)>,
}

impl LateLiveness {
    /// Answers for `volume` from now on, until it is dropped. `first` is higher than the ids of all
    /// blocks appended before the volume was opened.
    pub fn bind(&self, volume: &Volume, first: BlockId) {
        // Only the first volume counts; a second would be a mistake that changes nothing.
        let _ = self.bound.set((Arc::downgrade(&volume.files.references), first));
    }

    fn ask(&self, blocks: &[BlockId]) -> firn_tiering::Result<Vec<bool>> {
        let bound = self.bound.get().and_then(|(known, first)| Some((known.upgrade()?, *first)));
        match bound {
            Some((references, first)) => references.among(blocks, first).map_err(|error| {
                TieringError::Catalog(format!("asking the namespace: {}", chain(&error)))
            }),
            None => Ok(vec![true; blocks.len()]),
        }
    }
}

impl firn_tiering::Liveness for LateLiveness {
    fn is_referenced(&self, blocks: &[BlockId]) -> firn_tiering::Result<Vec<bool>> {
        self.ask(blocks)
    }
}
