//! Blocks from another volume and to one: held like those that are appended here, so that nobody
//! takes them for garbage before an extent names them.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use firn_tiering::{BlockRef, Error as TieringError, Wait};

use super::Files;
use super::pins::StoredBlock;
use crate::error::FsResult;

impl Files {
    /// A block as stored.
    pub(crate) fn export(&self, block: &BlockRef) -> FsResult<Bytes> {
        Ok(self.blocks.export(block, self.reading())?)
    }

    /// Part of a block's plaintext.
    pub(crate) fn read_block(&self, block: &BlockRef, range: Range<u32>) -> FsResult<Bytes> {
        Ok(self.blocks.read(block, range, self.reading())?)
    }

    fn reading(&self) -> Wait {
        Wait::Until(self.clock.instant() + self.settings.write_deadline)
    }

    /// Appends a block as it was stored elsewhere. Waits for space as long as there is progress.
    pub(crate) fn import(&self, stored: &[u8]) -> Result<Arc<StoredBlock>, TieringError> {
        let appending = self.pins.begin_append();
        let block = self.blocks.import(stored, Wait::Progress(self.settings.write_deadline))?;
        let held = self.pins.hold(block, self.durability.appended());
        drop(appending);
        Ok(held)
    }

    /// Makes blocks durable, so that extents may name them.
    pub(crate) fn ensure_durable(&self, blocks: &[Arc<StoredBlock>]) -> FsResult<()> {
        match blocks.iter().map(|block| block.ticket).max() {
            Some(ticket) => self.durability.ensure(ticket, &*self.blocks),
            None => Ok(()),
        }
    }
}
