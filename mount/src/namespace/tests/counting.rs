//! A store that counts what is read from it.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::namespace::store::{NamespaceReader, Page, StoreResult};

/// Counts what is read from the store below.
#[derive(Debug)]
pub(super) struct Counting {
    inner: Arc<MemoryStore>,
    read: AtomicUsize,
}

impl NamespaceReader for Counting {
    fn get(&self, space: Space, key: &[u8]) -> StoreResult<Option<Bytes>> {
        self.read.fetch_add(1, Ordering::Relaxed);
        self.inner.get(space, key)
    }

    fn page(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> StoreResult<Page> {
        let page = self.inner.page(space, from, to, limit)?;
        self.read.fetch_add(1 + page.items.len(), Ordering::Relaxed);
        Ok(page)
    }

    fn last(&self, space: Space, from: &[u8], to: &[u8]) -> StoreResult<Option<(Bytes, Bytes)>> {
        self.read.fetch_add(1, Ordering::Relaxed);
        self.inner.last(space, from, to)
    }
}

impl NamespaceStore for Counting {
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

impl Counting {
    /// Begins to count.
    pub(super) fn reset(&self) {
        self.read.store(0, Ordering::Relaxed);
    }

    /// Records read since, and reads that found nothing.
    pub(super) fn read(&self) -> usize {
        self.read.load(Ordering::Relaxed)
    }
}

impl World {
    /// A namespace with what counts its reads.
    pub(super) fn counted() -> (Self, Arc<Counting>) {
        let World { clock, store, ns } = Self::new();
        drop(ns);
        let read = AtomicUsize::new(0);
        let counting = Arc::new(Counting { inner: Arc::clone(&store), read });
        let options = NamespaceOptions { cached_inodes: 64, read_only: false };
        let (below, time) = (Arc::clone(&counting), Arc::clone(&clock));
        let ns = Namespace::open(below as Arc<dyn NamespaceStore>, time, options).unwrap();
        (World { clock, store, ns }, counting)
    }
}
