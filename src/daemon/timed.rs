//! The block store as the filesystem uses it, with a watch: how long reads take that local disks
//! answer tells the throttle of the cold tier when its background work hurts.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use firn_tiering::encode::EncodeMemory;
use firn_tiering::throttle::Throttle;
use firn_tiering::{BlockId, BlockRef, BlockStore, Blocks, Clock, Result, Wait};

use crate::cold::ColdTier;

/// A block store under watch.
pub(super) struct Timed {
    store: Arc<BlockStore>,
    throttle: Arc<Throttle>,
    clock: Arc<dyn Clock>,
}

impl Timed {
    /// `store`, under watch where there is a throttle to be told.
    pub(super) fn over(
        store: &Arc<BlockStore>,
        cold: Option<&ColdTier>,
        clock: &Arc<dyn Clock>,
    ) -> Arc<dyn Blocks> {
        match cold {
            None => Arc::clone(store) as _,
            Some(cold) => Arc::new(Self {
                store: Arc::clone(store),
                throttle: Arc::clone(cold.throttle()),
                clock: Arc::clone(clock),
            }),
        }
    }
}

impl Blocks for Timed {
    fn append(&self, plain: &[u8], memory: &mut EncodeMemory, wait: Wait) -> Result<BlockRef> {
        self.store.append(plain, memory, wait)
    }

    fn sync(&self) -> Result<()> {
        self.store.sync()
    }

    fn read(&self, block: &BlockRef, range: Range<u32>, wait: Wait) -> Result<Bytes> {
        let start = self.clock.instant();
        let result = self.store.read(block, range, wait);
        // What may not wait never came from far away.
        if matches!(wait, Wait::No) && result.is_ok() {
            let end = self.clock.instant();
            self.throttle.note_foreground(end.saturating_duration_since(start));
        }
        result
    }

    fn export(&self, block: &BlockRef, wait: Wait) -> Result<Bytes> {
        self.store.export(block, wait)
    }

    fn import(&self, stored: &[u8], wait: Wait) -> Result<BlockRef> {
        self.store.import(stored, wait)
    }

    fn free(&self, blocks: &[BlockId]) {
        self.store.free(blocks);
    }
}
