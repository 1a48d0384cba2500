//! A tier that changes nothing unless the place is ours. Belongs next to the store, below patience
//! and throttle: what they make a call wait for would come between the look and the request.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{DELETE_LEAVE, DELETE_TIME, Ownership, PUT_LEAVE};
use crate::error::{Error, Result};
use crate::tier::{Care, Content, ObjectMeta, Tier, Wholeness};

/// A guarded tier. Reading passes.
#[derive(Clone, Debug)]
pub struct Owned {
    inner: Arc<dyn Tier>,
    ownership: Arc<Ownership>,
}

impl Owned {
    /// Guards `inner` by `ownership`, which other handles of the same place may share.
    pub fn new(inner: Arc<dyn Tier>, ownership: Arc<Ownership>) -> Self {
        Self { inner, ownership }
    }
}

#[async_trait]
impl Tier for Owned {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.ownership.look(&*self.inner, PUT_LEAVE).await?;
        self.inner.put(key, bytes).await
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<()> {
        self.ownership.look(&*self.inner, PUT_LEAVE).await?;
        self.inner.put_file(key, path).await
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.inner.get_range(key, range).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        self.inner.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.ownership.look(&*self.inner, DELETE_LEAVE).await?;
        let deleted = tokio::time::timeout(DELETE_TIME, self.inner.delete(key)).await;
        deleted.unwrap_or(Err(Error::TimedOut("deleting an object")))
    }

    async fn clean(&self) -> Result<u64> {
        self.ownership.look(&*self.inner, DELETE_LEAVE).await?;
        self.inner.clean().await
    }

    async fn mend(&self, key: &str, care: Care) -> Result<Wholeness> {
        if care.repair {
            self.ownership.look(&*self.inner, DELETE_LEAVE).await?;
        }
        self.inner.mend(key, care).await
    }

    async fn replace(&self, key: &str, content: &Content) -> Result<()> {
        self.ownership.look(&*self.inner, DELETE_LEAVE).await?;
        self.inner.replace(key, content).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
