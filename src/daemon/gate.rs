//! What the block store must ask before it destroys anything, answered by the namespace and its
//! backups.
//!
//! A block is *named* when an extent in the namespace refers to it: then a backup of any later
//! moment names that extent. A block that only open files know is not named yet and never
//! covered. A cold object may go once its blocks were seen unreferenced at a moment that every
//! retained backup has behind it; those moments are forgotten when the daemon ends, which only
//! delays deletion.

use std::sync::Arc;

use firn_mount::backup::{Backup, Mark, Tracked};
use firn_mount::namespace::Namespace;
use firn_tiering::{BackupGate, BackupProof, BlockId, Error, Result};
use parking_lot::Mutex;

use super::deaths::{BlockSet, Deaths};

/// Answers for a volume with a cold tier.
#[derive(Debug)]
pub(super) struct Gate {
    namespace: Arc<Namespace>,
    tracked: Arc<Tracked>,
    backup: Arc<Backup>,
    /// The dead blocks of objects that wait for their deletion.
    dead: Mutex<Deaths<Mark>>,
}

impl Gate {
    pub(super) fn new(
        namespace: &Arc<Namespace>,
        tracked: &Arc<Tracked>,
        backup: &Arc<Backup>,
    ) -> Self {
        Self {
            namespace: Arc::clone(namespace),
            tracked: Arc::clone(tracked),
            backup: Arc::clone(backup),
            dead: Mutex::default(),
        }
    }

    fn is_named(&self, block: BlockId) -> Result<bool> {
        self.namespace
            .is_referenced(block)
            .map_err(|error| Error::Catalog(format!("asking the namespace: {error}")))
    }
}

impl BackupGate for Gate {
    fn ensure_backed_up(&self, blocks: &[BlockId]) -> Result<BackupProof> {
        let mut named = Vec::with_capacity(blocks.len());
        for &block in blocks {
            if self.is_named(block)? {
                named.push(block);
            }
        }
        // Asked after the blocks: whatever named them is in by then.
        let mark = self.tracked.mark();
        if !self.backup.status().covers(mark) {
            self.backup.run().map_err(|error| Error::Cold {
                action: "back up the namespace to",
                object: "namespace/".to_owned(),
                source: Box::new(error),
            })?;
        }
        Ok(BackupProof::of_blocks(named))
    }

    fn may_delete_cold(&self, blocks: &[BlockId]) -> Result<bool> {
        if blocks.is_empty() {
            return Ok(true);
        }
        let set = BlockSet::of(blocks);
        for &block in blocks {
            if self.is_named(block)? {
                self.dead.lock().forget(set);
                return Ok(false);
            }
        }
        // Asked after the blocks, like the mark of a proof.
        let (now, oldest) = (self.tracked.mark(), self.backup.status().oldest_mark);
        Ok(self.dead.lock().precede(set, now, oldest))
    }

    fn deleted_cold(&self, blocks: &[BlockId]) {
        self.dead.lock().forget(BlockSet::of(blocks));
    }
}
