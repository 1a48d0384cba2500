//! The real stack: fjall and the block store in a directory.

use std::sync::Arc;

use firn_tiering::segment::VolumeId;
use firn_tiering::{BlockStore, Blocks, Budget, ManualClock, StoreConfig};
use tempfile::TempDir;

use super::super::super::{Volume, VolumeParts};
use super::super::fake::{Roomy, quiet};
use super::run::Subject;
use crate::namespace::{LocalStore, Namespace, NamespaceOptions, NewRoot, StoreOptions};

/// A volume in a temporary directory.
pub(super) struct DiskWorld {
    dir: TempDir,
    clock: Arc<ManualClock>,
    open: Option<Open>,
}

struct Open {
    volume: Volume,
    blocks: Arc<BlockStore>,
}

impl DiskWorld {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new());
        let store = LocalStore::open(&dir.path().join("namespace"), options()).unwrap();
        let root = NewRoot { uid: 0, gid: 0, perm: 0o755 };
        Namespace::create(&store, &*clock, root, [7; 32]).unwrap();
        drop(store);
        let mut world = Self { dir, clock, open: None };
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
        let (hot, catalog) = (path.join("hot"), path.join("catalog"));
        let ids = names.ids().clone();
        let volume_id = VolumeId([1; 16]);
        let config = StoreConfig::new(volume_id, hot, catalog, budget.clone(), clock.clone(), ids);
        let blocks = Arc::new(BlockStore::open(config).unwrap());
        let parts = VolumeParts {
            names,
            blocks: blocks.clone() as Arc<dyn Blocks>,
            storage: Arc::new(Roomy),
            clock,
            budget,
            settings: quiet(),
        };
        self.open = Some(Open { volume: Volume::open(parts).unwrap(), blocks });
    }
}

fn options() -> StoreOptions {
    StoreOptions { cache_bytes: 4 << 20, write_buffer_bytes: 1 << 20, ..StoreOptions::default() }
}

impl Subject for DiskWorld {
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
}
