//! Whether hot has room for what is to come back, and why not, in words.

use anyhow::anyhow;
use firn_mount::types::{FileKind, Ino};
use firn_tiering::Error;
use firn_tiering::store::NO_ROOM;

use super::Placement;
use super::candidates::places;
use crate::daemon::assemble::Parts;
use crate::daemon::inspect;
use crate::daemon::jobs::job::Part;
use crate::failure;
use crate::units::rounded_bytes;

impl Placement {
    /// A failure to bring something back; where it is one for want of room, with what is in the way.
    pub(in crate::daemon) fn explain_recall(&self, parts: &Parts, error: Error) -> anyhow::Error {
        if !matches!(error, Error::NoSpace | Error::TimedOut(NO_ROOM)) {
            return error.into();
        }
        let usage = parts.store.usage();
        let capacity = usage.hot_capacity.unwrap_or(parts.config.hot_capacity.0);
        let [capacity, high, used, pinned] = [
            capacity,
            self.held().marks(capacity).high,
            usage.hot_bytes.saturating_add(usage.other_bytes),
            self.pinned_bytes(parts),
        ]
        .map(rounded_bytes);
        failure::hinted(
            anyhow!(
                "hot has no room for it: {used} are used, {pinned} of them pinned, and nothing \
                 comes back above the high mark, which is at {high} of {capacity}"
            ),
            "`firn tier pins` lists what is pinned: unpin some of it, stage less at a time, or raise \
             hot_capacity in firn.toml",
        )
    }

    /// Whether what reads want back leaves most of hot to others. What is larger would push out all
    /// else and then its own beginning: it is read from cold again and again, as a scan is.
    pub(super) fn can_hold(&self, parts: &Parts, part: &Part) -> bool {
        let Some(room) = parts.store.recall_room() else { return true };
        let capacity = parts.store.usage().hot_capacity.unwrap_or(parts.config.hot_capacity.0);
        let most = room.max(self.held().marks(capacity).low / 2);
        match part.range {
            Some((_, len)) => len <= most,
            // What vanishes meanwhile comes back nowhere.
            None => places(parts, Ino(part.ino)).is_ok_and(|places| places.away() <= most),
        }
    }

    /// Stored bytes in hot that pins keep there. A block that several files share may count more
    /// than once.
    fn pinned_bytes(&self, parts: &Parts) -> u64 {
        let (now, mut sum) = (self.now_s(), 0_u64);
        for top in self.pins.hot(now) {
            // Whatever vanishes meanwhile is kept nowhere.
            let _ = inspect::walk(&parts.volume, top, "", true, &mut |_, attr| {
                if attr.kind != FileKind::File {
                    return Ok(());
                }
                let holding = self.pins.holding(&self.names, attr.ino, now)?;
                if holding.is_some_and(|holding| holding.on == top) {
                    sum = sum.saturating_add(places(parts, attr.ino)?.hot);
                }
                Ok(())
            });
        }
        sum
    }
}
