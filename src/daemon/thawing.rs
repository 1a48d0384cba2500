//! Thawed files beside the block store: they are counted as what others keep in hot, and go first.

use std::path::PathBuf;
use std::sync::Arc;

use firn_mount::thaw::{HotRoom, ThawCounts, ThawMode, ThawSettings};
use firn_tiering::{BlockStore, StoreConfig};

/// Has the block store count thawed files, if there are any, with what it is told of already.
pub(super) fn count_in(settings: &mut StoreConfig, mode: ThawMode) -> Option<Arc<ThawCounts>> {
    if mode == ThawMode::Never {
        return None;
    }
    let counts = Arc::new(ThawCounts::default());
    let (thawed, others) = (Arc::clone(&counts), settings.other_bytes.take());
    settings.other_bytes =
        Some(Arc::new(move || others.as_ref().map_or(0, |others| others()) + thawed.bytes()));
    let yields = Arc::clone(&counts);
    settings.others_yield = Some(Arc::new(move || yields.is_yielding()));
    Some(counts)
}

/// How files are thawed into `dir`, as far as `store` has room, and counted.
pub(super) fn settings(
    dir: PathBuf,
    mode: ThawMode,
    is_read_only: bool,
    store: &Arc<BlockStore>,
    counts: &Option<Arc<ThawCounts>>,
) -> Option<ThawSettings> {
    let (store, counts) = (Arc::clone(store), counts.clone()?);
    Some(ThawSettings { dir, mode, is_read_only, room: Arc::new(move || room(&store)), counts })
}

/// The room there is now: none where nothing is known of it.
fn room(store: &BlockStore) -> HotRoom {
    let usage = store.usage();
    let capacity = usage.hot_capacity.unwrap_or(0);
    let marks = store.watermarks();
    HotRoom {
        capacity,
        used: usage.hot_bytes.saturating_add(usage.other_bytes),
        low: marks.map_or(0, |marks| marks.low).min(capacity),
        high: marks.map_or(0, |marks| marks.high).min(capacity),
        is_awaited: store.health().waiting_for_space > 0,
    }
}
