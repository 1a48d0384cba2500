//! The ordered key-value store below the namespace: one small blocking trait, so that a shared
//! engine can stand in for the local one. Two implementations: [`LocalStore`] on disk (fjall) and
//! [`MemoryStore`] for tests.

mod local;
mod memory;

use std::fmt;

use bytes::Bytes;

pub use local::{LocalStore, StoreOptions};
pub use memory::MemoryStore;

/// Soft limit of keys and values in one [`Page`], in bytes.
pub const PAGE_BYTES: usize = 1 << 20;

/// One sorted key space. The five of them change together, in one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Space {
    /// The current version of every record.
    Head = 0,
    /// Versions that a newer one replaced and that some snapshot may still see.
    History = 1,
    /// Which objects and kinds changed under which snapshot node.
    Born = 2,
    /// Which extents refer to a block.
    Backrefs = 3,
    /// Volume record, id leases, orphans, unfinished truncations.
    Meta = 4,
}

impl Space {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Head, Self::History, Self::Born, Self::Backrefs, Self::Meta];

    /// The stored name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::History => "history",
            Self::Born => "born",
            Self::Backrefs => "backrefs",
            Self::Meta => "meta",
        }
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// What a committed batch survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The death of the process, not of the machine.
    Buffered,
    /// Power loss. Everything committed before is durable too.
    Durable,
}

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
#[error("namespace store: {action}")]
pub struct StoreError {
    /// What was being done.
    pub action: String,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl StoreError {
    /// For `map_err`.
    pub fn of<E>(action: impl Into<String>) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let action = action.into();
        move |source| Self { action, source: source.into() }
    }
}

/// Result of the store.
pub type StoreResult<T> = Result<T, StoreError>;

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub space: Space,
    /// Which key.
    pub key: Bytes,
    /// Its new value; `None` removes it.
    pub value: Option<Bytes>,
}

/// Changes that happen together or not at all. A later change of the same key wins.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    changes: Vec<Change>,
}

impl Batch {
    /// Nothing to do yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key.
    pub fn put(&mut self, space: Space, key: &[u8], value: impl Into<Bytes>) {
        let key = Bytes::copy_from_slice(key);
        self.changes.push(Change { space, key, value: Some(value.into()) });
    }

    /// Removes a key; removing what is not there is fine.
    pub fn delete(&mut self, space: Space, key: &[u8]) {
        self.changes.push(Change { space, key: Bytes::copy_from_slice(key), value: None });
    }

    /// Adds the changes of another batch behind these.
    pub fn append(&mut self, other: Self) {
        self.changes.extend(other.changes);
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// The changes in order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    fn into_changes(self) -> Vec<Change> {
        self.changes
    }
}

/// Part of a range, in key order.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Keys and values.
    pub items: Vec<(Bytes, Bytes)>,
    /// The range holds more behind the last item.
    pub more: bool,
}

/// Reads keys.
///
/// Whatever a finished `commit` wrote is seen by every later call. A page read while batches
/// commit may see part of one; a snapshot never does.
pub trait NamespaceReader: Send + Sync {
    /// The value of `key`. A missing key is as cheap as a present one.
    fn get(&self, space: Space, key: &[u8]) -> StoreResult<Option<Bytes>>;

    /// Items from `from` (inclusive) up to `to` (exclusive; `None`: the end), at most `limit`,
    /// and no more than about [`PAGE_BYTES`], but at least one when the range holds one.
    fn page(&self, space: Space, from: &[u8], to: Option<&[u8]>, limit: usize)
    -> StoreResult<Page>;

    /// The last item from `from` (inclusive) up to `to` (exclusive).
    fn last(&self, space: Space, from: &[u8], to: &[u8]) -> StoreResult<Option<(Bytes, Bytes)>>;
}

/// An ordered key-value store with atomic batches. Every method may be called from any thread.
///
/// *Atomicity*: a batch is visible and kept whole or not at all, across all spaces.
/// *Order*: whatever a crash keeps is a prefix of the committed batches.
/// *Errors*: after a failed `commit` or `sync` the state of the batch is unknown and every later
/// `commit` and `sync` fails, until the store is opened again.
pub trait NamespaceStore: NamespaceReader + fmt::Debug + 'static {
    /// Applies all changes; see [`Durability`] for what has happened when it returns.
    fn commit(&self, batch: Batch, durability: Durability) -> StoreResult<()>;

    /// Everything committed before the call is durable when it returns. Calls at the same time
    /// share the work.
    fn sync(&self) -> StoreResult<()>;

    /// A view of the moment of the call, in all spaces. It holds space until it is dropped.
    fn snapshot(&self) -> StoreResult<Box<dyn NamespaceReader>>;

    /// Bytes on disk, journals included.
    fn stored_bytes(&self) -> StoreResult<u64>;

    /// Brings everything to its final place and gives back what only a running store needs. The
    /// store may still be used; dropping it afterwards leaves the smallest footprint.
    fn rest(&self) -> StoreResult<()>;
}

/// The first key behind all keys that start with `prefix`; `None` when there is none.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let keep = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut end = prefix[..=keep].to_vec();
    end[keep] += 1;
    Some(end)
}

#[cfg(test)]
mod tests;
