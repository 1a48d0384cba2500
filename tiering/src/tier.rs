//! Tiers: where immutable objects live. One trait, its contract, and who keeps it.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Result;

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Key below the tier's root, `/`-separated, of `[a-z0-9._-]`.
    pub key: String,
    /// Length in bytes.
    pub len: u64,
}

/// A store of immutable objects named by key.
///
/// *Atomicity*: an object is visible whole or not at all, and durable when `put` returned.
/// *Immutability*: a key is written once; writing it again with the same bytes succeeds,
/// with other bytes is [`crate::Error::Exists`].
/// *Ambiguity*: after an error from `put` the object may exist; the caller reads it back.
/// *Errors*: a missing object is [`crate::Error::NotFound`], everything else
/// [`crate::Error::Cold`] or [`crate::Error::TimedOut`].
/// *Deletion*: deleting what is not there succeeds.
#[async_trait]
pub trait Tier: Send + Sync + std::fmt::Debug + 'static {
    /// Stores an object.
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()>;
    /// Stores a local file as an object, streaming; memory stays bounded whatever its length.
    async fn put_file(&self, key: &str, path: &std::path::Path) -> Result<()>;
    /// The whole object.
    async fn get(&self, key: &str) -> Result<Bytes>;
    /// Exactly `range` of the object; a range past its end is an error.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes>;
    /// Length of the object.
    async fn head(&self, key: &str) -> Result<ObjectMeta>;
    /// Up to `limit` objects whose key starts with `prefix` and sorts after `after`, in key order.
    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>>;
    /// Removes the object.
    async fn delete(&self, key: &str) -> Result<()>;
    /// Where this is, for people; never with a secret.
    fn describe(&self) -> String;
}

/// How patient a tier is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Attempts in all.
    pub attempts: u32,
    /// Longest time for one call with all its attempts.
    pub deadline: Duration,
}
