//! A store whose disk fails where a test says.

use super::*;
use crate::namespace::store::{NamespaceReader, Page, StoreError, StoreResult};

/// Whether the read of a key fails.
type Fails = dyn Fn(Space, &[u8]) -> bool + Send + Sync;

/// Fails to read single keys of the store below.
pub(super) struct Failing {
    inner: MemoryStore,
    fails: Box<Fails>,
}

impl Failing {
    /// The namespace of a world, on a disk that does not read some keys.
    pub(super) fn open(
        world: &World,
        fails: impl Fn(Space, &[u8]) -> bool + Send + Sync + 'static,
    ) -> Namespace {
        let store = Self { inner: world.store.reopened(), fails: Box::new(fails) };
        let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
        let options = NamespaceOptions { cached_inodes: 64, read_only: false };
        Namespace::open(Arc::new(store), clock, options).unwrap()
    }
}

impl std::fmt::Debug for Failing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Failing").finish_non_exhaustive()
    }
}

impl NamespaceReader for Failing {
    fn get(&self, space: Space, key: &[u8]) -> StoreResult<Option<Bytes>> {
        match (self.fails)(space, key) {
            true => Err(StoreError::of("read a record")("input/output error")),
            false => self.inner.get(space, key),
        }
    }

    fn page(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> StoreResult<Page> {
        self.inner.page(space, from, to, limit)
    }

    fn last(&self, space: Space, from: &[u8], to: &[u8]) -> StoreResult<Option<(Bytes, Bytes)>> {
        self.inner.last(space, from, to)
    }
}

impl NamespaceStore for Failing {
    fn commit(&self, batch: Batch, durability: Durability) -> StoreResult<()> {
        self.inner.commit(batch, durability)
    }

    fn sync(&self) -> StoreResult<()> {
        self.inner.sync()
    }

    fn snapshot(&self) -> StoreResult<Box<dyn NamespaceReader>> {
        self.inner.snapshot()
    }

    fn stored_bytes(&self) -> StoreResult<u64> {
        self.inner.stored_bytes()
    }

    fn rest(&self) -> StoreResult<()> {
        self.inner.rest()
    }
}
