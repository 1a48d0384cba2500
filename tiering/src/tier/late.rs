//! A store that could not be opened when it was first wanted: tried again whenever something is
//! asked of it, and until then one that does not answer. For stores that others can do without.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::content::blocking;
use super::failure::{FailureKind, TierFailure};
use super::{Care, Content, ObjectMeta, Tier, Wholeness};
use crate::error::Result;

/// How it is opened.
pub type Opener = Arc<dyn Fn() -> Result<Arc<dyn Tier>> + Send + Sync>;

/// A store that is opened later.
pub struct Late {
    place: String,
    opener: Opener,
    tier: Mutex<Option<Arc<dyn Tier>>>,
}

impl std::fmt::Debug for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Late").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Late {
    /// The store at `place`, in words, as soon as `opener` succeeds.
    pub fn new(place: impl Into<String>, opener: Opener) -> Self {
        Self { place: place.into(), opener, tier: Mutex::default() }
    }

    async fn tier(&self) -> Result<Arc<dyn Tier>> {
        if let Some(tier) = &*self.tier.lock() {
            return Ok(Arc::clone(tier));
        }
        let opener = Arc::clone(&self.opener);
        let opened = blocking(move || opener()).await.map_err(|error| {
            TierFailure::error(FailureKind::Unavailable, "open", &self.place, error.to_string())
        })?;
        Ok(Arc::clone(self.tier.lock().get_or_insert(opened)))
    }
}

#[async_trait]
impl Tier for Late {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.tier().await?.put(key, bytes).await
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<()> {
        self.tier().await?.put_file(key, path).await
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        self.tier().await?.get(key).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.tier().await?.get_range(key, range).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        self.tier().await?.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>> {
        self.tier().await?.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.tier().await?.delete(key).await
    }

    async fn clean(&self) -> Result<u64> {
        self.tier().await?.clean().await
    }

    async fn mend(&self, key: &str, care: Care) -> Result<Wholeness> {
        self.tier().await?.mend(key, care).await
    }

    async fn replace(&self, key: &str, content: &Content) -> Result<()> {
        self.tier().await?.replace(key, content).await
    }

    fn describe(&self) -> String {
        self.place.clone()
    }
}
