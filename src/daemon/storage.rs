//! The block store as the filesystem asks it about room and places.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use firn_mount::FsResult;
use firn_mount::volume::{Placement, Space, Storage};
use firn_tiering::store::{Residence, Usage};
use firn_tiering::{BlockId, BlockStore};

/// What an unlimited cold tier counts as: 1 PiB free.
const UNLIMITED_FREE: u64 = 1 << 50;

/// Up to where blocks are named by a verified backup, as far as is known: all referenced blocks
/// with a lower id. What only the cold tier and no backup knows would be lost with the machine, so
/// it does not count as safe there.
///
/// It is kept in a file, so that a mount need not wait for its first backup; a file that is lost,
/// old or damaged makes less count as safe, never more.
#[derive(Clone, Debug)]
pub struct Frontier {
    end: Arc<AtomicU64>,
    file: Arc<PathBuf>,
}

impl Frontier {
    /// What `file` says.
    pub fn load(file: PathBuf) -> Self {
        let end = fs::read_to_string(&file).ok().and_then(|text| {
            let digits = text.strip_suffix('\n').filter(|digits| digits.len() == 16)?;
            u64::from_str_radix(digits, 16).ok()
        });
        Self { end: Arc::new(AtomicU64::new(end.unwrap_or(0))), file: Arc::new(file) }
    }

    /// Every referenced block with a lower id than `end` is named from now on.
    pub fn advance(&self, end: BlockId) {
        let before = self.end.fetch_max(end.raw(), Ordering::AcqRel);
        if before < end.raw()
            && let Err(error) = self.store(end)
        {
            tracing::debug!(%error, "writing {}", self.file.display());
        }
    }

    fn store(&self, end: BlockId) -> std::io::Result<()> {
        let aside = self.file.with_extension("new");
        fs::write(&aside, format!("{:016x}\n", end.raw()))?;
        fs::rename(aside, &*self.file)
    }

    fn covers(&self, block: BlockId) -> bool {
        block.raw() < self.end.load(Ordering::Acquire)
    }
}

/// [`Storage`] over a [`BlockStore`].
#[derive(Debug)]
pub struct BlockStorage {
    store: Arc<BlockStore>,
    frontier: Frontier,
}

impl BlockStorage {
    /// Answers for `store`, whose blocks are backed up as far as `frontier` says.
    pub fn new(store: Arc<BlockStore>, frontier: Frontier) -> Self {
        Self { store, frontier }
    }
}

impl Storage for BlockStorage {
    fn space(&self) -> FsResult<Space> {
        Ok(space_of(&self.store.usage()))
    }

    fn placements(&self, blocks: &[BlockId]) -> FsResult<Vec<Placement>> {
        let residences = self.store.residence(blocks);
        let placed = blocks.iter().zip(residences).map(|(block, residence)| {
            let place = placement_of(residence);
            // What lies in cold only has no other place to be called by.
            Placement { cold: place.cold && (!place.hot || self.frontier.covers(*block)), ..place }
        });
        Ok(placed.collect())
    }
}

fn placement_of(residence: Residence) -> Placement {
    match residence {
        Residence::Open | Residence::Hot => Placement { hot: true, cold: false },
        Residence::Dual => Placement { hot: true, cold: true },
        Residence::Cold => Placement { hot: false, cold: true },
        Residence::Unknown => Placement { hot: false, cold: false },
    }
}

/// Room in both tiers. What lies in both counts once as used: the copy in hot can be dropped.
fn space_of(usage: &Usage) -> Space {
    let hot = usage.hot_capacity.unwrap_or(u64::MAX >> 8);
    let used = usage.stored_bytes.saturating_add(usage.other_bytes);
    if !usage.has_cold {
        let free = hot.saturating_sub(usage.hot_bytes.saturating_add(usage.other_bytes));
        return Space { total_bytes: hot, free_bytes: free };
    }
    match usage.cold_capacity {
        None => {
            Space { total_bytes: used.saturating_add(UNLIMITED_FREE), free_bytes: UNLIMITED_FREE }
        }
        Some(cold) => {
            let total = hot.saturating_add(cold);
            Space { total_bytes: total, free_bytes: total.saturating_sub(used) }
        }
    }
}

/// Bytes that a directory tree occupies on its disk. What vanishes meanwhile counts nothing.
pub fn disk_bytes(dir: &Path) -> u64 {
    let mut sum = 0;
    let mut dirs: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                dirs.push(entry.path());
            } else {
                sum += meta.blocks() * 512;
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn usage() -> Usage {
        Usage {
            hot_bytes: 60,
            other_bytes: 10,
            hot_capacity: Some(100),
            stored_bytes: 80,
            ..Usage::default()
        }
    }

    #[test]
    fn a_local_volume_has_the_room_of_its_hot_tier() {
        let space = space_of(&usage());
        assert_eq!((space.total_bytes, space.free_bytes), (100, 30));
    }

    #[test]
    fn an_unlimited_cold_tier_counts_as_a_pebibyte_free() {
        let space = space_of(&Usage { has_cold: true, ..usage() });
        assert_eq!(space.free_bytes, 1 << 50);
        assert_eq!(space.total_bytes - space.free_bytes, 90);
    }

    #[test]
    fn a_bounded_cold_tier_adds_its_capacity() {
        let space = space_of(&Usage { has_cold: true, cold_capacity: Some(1000), ..usage() });
        assert_eq!((space.total_bytes, space.free_bytes), (1100, 1010));
    }

    #[test]
    fn the_frontier_only_advances_and_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("backed-up");
        let frontier = Frontier::load(file.clone());
        assert!(!frontier.covers(BlockId::from_raw(0)));
        frontier.advance(BlockId::from_raw(20));
        frontier.advance(BlockId::from_raw(15));
        for frontier in [frontier, Frontier::load(file.clone())] {
            assert!(frontier.covers(BlockId::from_raw(19)));
            assert!(!frontier.covers(BlockId::from_raw(20)));
        }
        for damaged in ["", "ffffffff", "fffffffffffffffff\n", "ffffffffffffffff"] {
            fs::write(&file, damaged).unwrap();
            assert!(!Frontier::load(file.clone()).covers(BlockId::from_raw(0)), "{damaged}");
        }
    }

    #[test]
    fn a_tree_is_counted_as_the_disk_does() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), vec![1_u8; 100_000]).unwrap();
        let sparse = fs::File::create(dir.path().join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        let bytes = disk_bytes(dir.path());
        assert!((100_000..1_000_000).contains(&bytes), "{bytes}");
        assert_eq!(disk_bytes(&dir.path().join("missing")), 0);
    }
}
