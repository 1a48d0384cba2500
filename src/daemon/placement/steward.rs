//! What blocks are for, as the block store asks when space is short: whether a file has them that a
//! pin or a rule keeps in hot, whether only snapshots do, and how much their files are used.

use std::sync::Arc;

use firn_mount::namespace::Namespace;
use firn_mount::types::{Ino, PinTier};
use firn_tiering::store::{Steward, Temper};
use firn_tiering::{BlockId, Error, Result};

use super::Placement;

/// References to one block that are looked at.
const MOST_OWNERS: usize = 4096;

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
        let (mut heat, mut owned, mut pinned) = (0.0_f32, false, false);
        let keeps = self.0.held().rules.keeps_some();
        let saw_all = names.for_each_live_owner(block, MOST_OWNERS, &mut |owner| {
            owned = true;
            match self.tier_of(names, owner) {
                Some(PinTier::Hot) => pinned = true,
                Some(PinTier::Cold) => {}
                None if keeps && self.0.is_kept_by_rule(owner) => pinned = true,
                None => heat = heat.max(self.0.uses.heat(owner)),
            }
            !pinned
        })?;
        Ok(match (pinned, owned) {
            (true, _) => Temper::Pinned,
            // A clone may show what its origin has removed.
            (false, false) if saw_all && !names.has_clones() => Temper::SnapshotOnly,
            (false, _) => Temper::Warm(heat),
        })
    }

    fn tier_of(&self, names: &Namespace, ino: Ino) -> Option<PinTier> {
        // What vanishes meanwhile is pinned nowhere.
        let holding = self.0.pins.holding(names, ino, self.0.now_s()).ok().flatten();
        holding.map(|holding| holding.pin.tier)
    }
}
