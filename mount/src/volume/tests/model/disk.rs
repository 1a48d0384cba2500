//! The real stack: fjall, and the block store with a cold tier, in a directory.

use std::collections::BTreeSet;
use std::sync::Arc;

use firn_tiering::segment::VolumeId;
use firn_tiering::tier::{Memory, Tier};
use firn_tiering::{
    BackupGate, BackupProof, BlockId, BlockStore, Blocks, Budget, ManualClock, StoreConfig,
};
use tempfile::TempDir;

use super::super::super::{LateLiveness, Volume};
use super::super::fake::{forever, open_parts, quiet};
use super::run::Subject;
use crate::namespace::{Content, LocalStore, Namespace, NamespaceOptions, NewRoot, StoreOptions};

/// A volume in a temporary directory.
pub(super) struct DiskWorld {
    dir: TempDir,
    clock: Arc<ManualClock>,
    cold: Arc<dyn Tier>,
    open: Option<Open>,
}

struct Open {
    volume: Arc<Volume>,
    blocks: Arc<BlockStore>,
}

/// Vouches for backups, as if there were one after every change.
struct AlwaysBackedUp;

impl BackupGate for AlwaysBackedUp {
    fn ensure_backed_up(&self, blocks: &[BlockId]) -> firn_tiering::Result<BackupProof> {
        Ok(BackupProof::of_blocks(blocks.iter().copied()))
    }

    fn may_delete_cold(&self, _: &[BlockId]) -> firn_tiering::Result<bool> {
        Ok(true)
    }

    fn deleted_cold(&self, _: &[BlockId]) {}
}

impl DiskWorld {
    pub(super) fn new() -> Self {
        Self::seeded(7)
    }

    fn seeded(seed: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new());
        let store = LocalStore::open(&dir.path().join("namespace"), options()).unwrap();
        let root = NewRoot { uid: 0, gid: 0, perm: 0o755 };
        Namespace::create(&store, &*clock, root, [seed; 32]).unwrap();
        drop(store);
        let mut world = Self { dir, clock, cold: Arc::new(Memory::new()), open: None };
        world.open();
        world
    }

    fn open(&mut self) {
        let path = self.dir.path();
        let store = Arc::new(LocalStore::open(&path.join("namespace"), options()).unwrap());
        let clock = self.clock.clone();
        let budget = Budget::new(256 << 20, clock.clone());
        let names = Namespace::open(store, clock.clone(), NamespaceOptions::default()).unwrap();
        let names = Arc::new(names);
        let liveness = Arc::new(LateLiveness::default());
        let (hot, catalog) = (path.join("hot"), path.join("catalog"));
        let (id, ids) = (VolumeId([1; 16]), names.ids().clone());
        let mut config = StoreConfig::new(id, hot, catalog, budget.clone(), clock.clone(), ids);
        config.cold = Some(self.cold.clone());
        // Small, so that sequences seal and reclaim some.
        config.segment_bytes = 1 << 20;
        config.liveness = Some(liveness.clone());
        config.backup = Some(Arc::new(AlwaysBackedUp));
        let blocks = Arc::new(BlockStore::open(config).unwrap());
        let first = blocks.next_block_id().unwrap();
        let on_blocks = blocks.clone() as Arc<dyn Blocks>;
        let volume = Arc::new(open_parts(names, on_blocks, clock, budget, quiet()));
        liveness.bind(Arc::downgrade(&volume), first);
        self.open = Some(Open { volume, blocks });
    }

    /// All blocks that committed extents name.
    fn referenced(&self) -> Vec<BlockId> {
        let volume = &self.open.as_ref().unwrap().volume;
        let mut blocks = BTreeSet::new();
        let view = super::observe::observe(volume, forever(&self.clock));
        for ino in view.files.keys() {
            let page = volume.names().slots(*ino, 0, u64::MAX, usize::MAX).unwrap();
            for piece in page.slots.into_iter().flat_map(|(_, record)| record.pieces) {
                if let Content::Block { block, .. } = piece.content {
                    blocks.insert(block.id);
                }
            }
        }
        blocks.into_iter().collect()
    }
}

fn options() -> StoreOptions {
    StoreOptions { cache_bytes: 4 << 20, write_buffer_bytes: 1 << 20, ..StoreOptions::default() }
}

impl Subject for DiskWorld {
    const IS_HOT: bool = false;

    fn another() -> Self {
        Self::seeded(8)
    }

    fn volume(&self) -> &Volume {
        &self.open.as_ref().unwrap().volume
    }

    fn clock(&self) -> &Arc<ManualClock> {
        &self.clock
    }

    fn crash(&mut self) {
        self.open = None;
        self.open();
    }

    fn lose_power(&mut self) -> bool {
        false
    }

    fn remount(&mut self) {
        let Open { volume, blocks } = self.open.take().unwrap();
        volume.close().unwrap();
        blocks.close().unwrap();
        volume.names().close().unwrap();
        drop((volume, blocks));
        self.open();
    }

    /// Archives and releases everything, and collects what is dead.
    fn move_tiers(&self) {
        let blocks = &self.open.as_ref().unwrap().blocks;
        let wait = forever(&self.clock);
        let referenced = self.referenced();
        blocks.archive(&referenced, wait, &mut |_, _| ()).unwrap();
        let proof = BackupProof::of_blocks(referenced.iter().copied());
        blocks.release(&referenced, &proof, wait).unwrap();
        blocks.sweep().unwrap();
    }
}
