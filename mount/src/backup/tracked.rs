//! A store that remembers which buckets changed since the last backup.
//!
//! *Crash rules.* A mark is written in the batch that first touches its bucket, so no crash
//! keeps a change without its mark. Marks carry the generation they were made in; a backup
//! begins a new generation at the moment of its snapshot and, once verified, removes the marks
//! of older ones, so that a change during the backup keeps its mark. Two batches that touch a
//! fresh bucket at once both write the mark: memory learns of it only after a commit.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;

use super::bucket::Bucket;
use super::{BASE_NOTE, BackupResult, NOTE_DURABILITY, note_batch};
use crate::namespace::store::{Page, StoreResult, prefix_end};
use crate::namespace::{Batch, Durability, NamespaceReader, NamespaceStore, Space, key};

/// Start of the notes that mark buckets.
const MARK_NOTE: &str = "backup/dirty/";

/// Marks looked up or removed while commits wait: well under a millisecond.
const MARKS_AT_ONCE: usize = 256;

/// A point in the order of a session's commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(u64);

impl Mark {
    /// The state that the session began with.
    pub const OPENED: Self = Self(0);
}

/// A store that remembers which buckets changed. Everything else goes to the store below.
#[derive(Debug)]
pub struct Tracked {
    inner: Arc<dyn NamespaceStore>,
    /// Commits share it; a snapshot and the removal of marks have it alone.
    order: RwLock<Generation>,
    marked: RwLock<HashSet<Bucket>>,
    committed: AtomicU64,
}

/// Which snapshot the marks of now are newer than.
#[derive(Debug)]
struct Generation(u64);

/// The state of one moment.
pub struct Frozen {
    /// Reads it.
    pub reader: Box<dyn NamespaceReader>,
    /// Which commits it holds.
    pub mark: Mark,
}

impl Frozen {
    /// The buckets marked in it, each with its generation as stored.
    pub(super) fn marked(&self) -> BackupResult<Vec<(Bucket, Bytes)>> {
        let mut found = Vec::new();
        for_each_mark(&*self.reader, |bucket, generation| found.push((bucket, generation)))?;
        Ok(found)
    }
}

impl std::fmt::Debug for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frozen({:?})", self.mark)
    }
}

fn mark_key(bucket: Bucket) -> Vec<u8> {
    let mut key = key::note(MARK_NOTE);
    key.extend_from_slice(&bucket.encode());
    key
}

/// Whether a record is about backups, and no part of one.
pub(super) fn is_private(space: Space, key: &[u8]) -> bool {
    space == Space::Meta && (key.starts_with(&key::note(MARK_NOTE)) || key == key::note(BASE_NOTE))
}

fn for_each_mark(
    reader: &dyn NamespaceReader,
    mut found: impl FnMut(Bucket, Bytes),
) -> StoreResult<()> {
    let prefix = key::note(MARK_NOTE);
    let (mut from, to) = (prefix.clone(), prefix_end(&prefix));
    loop {
        let page = reader.page(Space::Meta, &from, to.as_deref(), usize::MAX)?;
        for (key, generation) in &page.items {
            // A damaged mark is no bucket's; its bucket is caught by the next full backup.
            if let Some(bucket) = Bucket::decode(&key[prefix.len()..]) {
                found(bucket, generation.clone());
            }
        }
        match page.items.last() {
            Some((last, _)) if page.more => {
                from = last.to_vec();
                from.push(0);
            }
            _ => return Ok(()),
        }
    }
}

impl Tracked {
    /// Wraps a store that no one else commits to.
    pub fn open(inner: Arc<dyn NamespaceStore>) -> StoreResult<Self> {
        let mut newest = 0;
        for_each_mark(&*inner, |_, generation| {
            let stored = generation.as_ref().try_into().map_or(0, u64::from_le_bytes);
            newest = newest.max(stored);
        })?;
        Ok(Self {
            inner,
            order: RwLock::new(Generation(newest + 1)),
            marked: RwLock::default(),
            committed: AtomicU64::new(Mark::OPENED.0),
        })
    }

    /// A point behind every commit that has returned.
    pub fn mark(&self) -> Mark {
        Mark(self.committed.load(Ordering::Acquire))
    }

    /// The state of this moment; begins a new generation of marks.
    pub fn freeze(&self) -> StoreResult<Frozen> {
        let mut generation = self.order.write();
        let reader = self.inner.snapshot()?;
        generation.0 += 1;
        self.marked.write().clear();
        Ok(Frozen { reader, mark: self.mark() })
    }

    /// Whether any bucket is marked.
    pub(super) fn has_marks(&self) -> StoreResult<bool> {
        let prefix = key::note(MARK_NOTE);
        let page = self.inner.page(Space::Meta, &prefix, prefix_end(&prefix).as_deref(), 1)?;
        Ok(!page.items.is_empty())
    }

    /// Notes the new base, then removes the marks that it covers: those that are still as the
    /// snapshot saw them.
    pub(super) fn rebase(&self, base: &[u8], covered: &[(Bucket, Bytes)]) -> StoreResult<()> {
        self.inner.commit(note_batch(BASE_NOTE, base), NOTE_DURABILITY)?;
        for some in covered.chunks(MARKS_AT_ONCE) {
            let _alone = self.order.write();
            let mut batch = Batch::new();
            for (bucket, generation) in some {
                let key = mark_key(*bucket);
                if self.inner.get(Space::Meta, &key)?.as_ref() == Some(generation) {
                    batch.delete(Space::Meta, &key);
                }
            }
            if !batch.is_empty() {
                self.inner.commit(batch, NOTE_DURABILITY)?;
            }
        }
        Ok(())
    }

    fn fresh_buckets(&self, batch: &Batch) -> HashSet<Bucket> {
        let marked = self.marked.read();
        let touched = batch.changes().iter().map(|change| Bucket::of(change.space, &change.key));
        touched.filter(|bucket| !marked.contains(bucket)).collect()
    }
}

impl NamespaceReader for Tracked {
    fn get(&self, space: Space, key: &[u8]) -> StoreResult<Option<Bytes>> {
        self.inner.get(space, key)
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

impl NamespaceStore for Tracked {
    fn commit(&self, mut batch: Batch, durability: Durability) -> StoreResult<()> {
        let generation = self.order.read();
        let fresh = self.fresh_buckets(&batch);
        for bucket in &fresh {
            batch.put(Space::Meta, &mark_key(*bucket), generation.0.to_le_bytes().to_vec());
        }
        self.inner.commit(batch, durability)?;
        self.committed.fetch_add(1, Ordering::AcqRel);
        if !fresh.is_empty() {
            self.marked.write().extend(fresh);
        }
        Ok(())
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
