//! What blocks are for, as the block store asks when space is short: whether a pinned file has
//! them, whether only snapshots do, and how much their files are used.

use std::sync::Arc;

use firn_mount::namespace::Namespace;
use firn_mount::types::{Ino, PinTier};
use firn_tiering::store::{Steward, Temper};
use firn_tiering::{BlockId, Error, Result};

use super::Placement;

/// References to one block that are looked at: a block that more share is warm enough.
const MOST_OWNERS: usize = 64;

/// A placement that answers for blocks.
pub(in crate::daemon) struct Answering(pub(in crate::daemon) Arc<Placement>);

impl Steward for Answering {
    fn tempers(&self, blocks: &[BlockId]) -> Result<Vec<Temper>> {
        let failed = |error: firn_mount::FsError| Error::Io {
            action: "ask who has a block".into(),
            source: std::io::Error::other(error),
        };
        blocks.iter().map(|block| self.temper(&self.0.names, *block).map_err(failed)).collect()
    }
}

impl Answering {
    fn temper(&self, names: &Namespace, block: BlockId) -> firn_mount::FsResult<Temper> {
        let owners = names.live_owners(block, MOST_OWNERS)?;
        if owners.is_empty() {
            return Ok(Temper::SnapshotOnly);
        }
        let mut heat = 0.0_f32;
        for owner in owners {
            match self.tier_of(names, owner) {
                Some(PinTier::Hot) => return Ok(Temper::Pinned),
                Some(PinTier::Cold) => {}
                None => heat = heat.max(self.0.uses.heat(owner)),
            }
        }
        Ok(Temper::Warm(heat))
    }

    fn tier_of(&self, names: &Namespace, ino: Ino) -> Option<PinTier> {
        // What vanishes meanwhile is pinned nowhere.
        let holding = self.0.pins.holding(names, ino, self.0.now_s()).ok().flatten();
        holding.map(|holding| holding.pin.tier)
    }
}
