//! A tier in memory, for tests: the contract at its plainest, and the yardstick of the others.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::content::Content;
use super::failure::{FailureKind, TierFailure};
use super::{ObjectMeta, Tier, check_key, check_prefix, check_range};
use crate::error::{Error, Result};

/// A tier in memory.
#[derive(Default)]
pub struct Memory {
    objects: Mutex<BTreeMap<String, Bytes>>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Memory({} objects)", self.objects.lock().len())
    }
}

impl Memory {
    /// An empty tier.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces an object behind the tier's back, to damage it. Returns what was there.
    pub fn overwrite(&self, key: &str, bytes: impl Into<Bytes>) -> Option<Bytes> {
        self.objects.lock().insert(key.to_owned(), bytes.into())
    }

    /// Removes an object behind the tier's back.
    pub fn lose(&self, key: &str) -> Option<Bytes> {
        self.objects.lock().remove(key)
    }

    /// What an object holds.
    pub fn peek(&self, key: &str) -> Option<Bytes> {
        self.objects.lock().get(key).cloned()
    }

    /// Every key, in order.
    pub fn keys(&self) -> Vec<String> {
        self.objects.lock().keys().cloned().collect()
    }

    fn find(&self, key: &str) -> Result<Bytes> {
        check_key(key)?;
        self.objects.lock().get(key).cloned().ok_or_else(|| Error::NotFound(key.to_owned()))
    }
}

#[async_trait]
impl Tier for Memory {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        check_key(key)?;
        let mut objects = self.objects.lock();
        match objects.get(key) {
            Some(there) if *there == bytes => Ok(()),
            Some(_) => Err(Error::Exists(key.to_owned())),
            None => {
                objects.insert(key.to_owned(), bytes);
                Ok(())
            }
        }
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<()> {
        check_key(key)?;
        let content = Content::open(path).await?;
        let bytes = content.read(0..content.len()).await?;
        self.put(key, bytes).await
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        self.find(key)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        check_range(key, &range)?;
        let bytes = self.find(key)?;
        if range.end > bytes.len() as u64 {
            return Err(past_end("read", key, &range, bytes.len() as u64));
        }
        Ok(bytes.slice(range.start as usize..range.end as usize))
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        let len = self.find(key)?.len() as u64;
        Ok(ObjectMeta { key: key.to_owned(), len })
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>> {
        check_prefix(prefix)?;
        let objects = self.objects.lock();
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        Ok(objects
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, bytes)| ObjectMeta { key: key.clone(), len: bytes.len() as u64 })
            .collect())
    }

    async fn delete(&self, key: &str) -> Result<()> {
        check_key(key)?;
        self.objects.lock().remove(key);
        Ok(())
    }

    async fn clean(&self) -> Result<u64> {
        Ok(0)
    }

    async fn replace(&self, key: &str, content: &Content) -> Result<()> {
        check_key(key)?;
        let bytes = content.read(0..content.len()).await?;
        self.objects.lock().insert(key.to_owned(), bytes);
        Ok(())
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

/// The error of a range that reaches past the object.
pub(super) fn past_end(action: &'static str, key: &str, range: &Range<u64>, len: u64) -> Error {
    let message = format!("range {range:?} reaches past the end at {len}");
    TierFailure::error(FailureKind::Rejected, action, key, message)
}
