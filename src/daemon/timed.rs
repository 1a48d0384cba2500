//! The block store as the filesystem uses it, with a watch: how long reads take that local disks
//! answer tells the throttle of the cold tier when its background work hurts.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use firn_tiering::encode::EncodeMemory;
use firn_tiering::throttle::Throttle;
use firn_tiering::{
    BlockId, BlockRef, BlockStore, Blocks, Clock, Intent, ReadAhead, Result, Served, Wait,
};

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

    fn timed<T>(&self, wait: Wait, read: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = self.clock.instant();
        let result = read();
        // What may not wait never came from far away.
        if matches!(wait, Wait::No) && result.is_ok() {
            let end = self.clock.instant();
            self.throttle.note_foreground(end.saturating_duration_since(start));
        }
        result
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
        self.timed(wait, || self.store.read(block, range, wait))
    }

    fn read_for(
        &self,
        block: &BlockRef,
        range: Range<u32>,
        intent: Intent,
        wait: Wait,
    ) -> Result<Served> {
        self.timed(wait, || self.store.read_for(block, range, intent, wait))
    }

    fn will_read(
        &self,
        reader: &mut ReadAhead,
        ahead: u64,
        next: &mut dyn FnMut() -> Option<BlockRef>,
    ) {
        self.store.will_read(reader, ahead, next);
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
