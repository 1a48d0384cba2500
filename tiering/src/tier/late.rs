//! A store that could not be opened when it was first wanted: tried again whenever something is
//! asked of it, and until then one that does not answer. For stores that others can do without.
//!
//! *Bounds*: one attempt to open it at a time, however many ask meanwhile, since one that hangs
//! keeps its thread.

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
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
enum State {
    #[default]
    Closed,
    Opening,
    Open(Arc<dyn Tier>),
}

impl std::fmt::Debug for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Late").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Late {
    /// The store at `place`, in words, as soon as `opener` succeeds.
    pub fn new(place: impl Into<String>, opener: Opener) -> Self {
        Self { place: place.into(), opener, state: Arc::default() }
    }

    async fn tier(&self) -> Result<Arc<dyn Tier>> {
        let unavailable =
            |why: String| TierFailure::error(FailureKind::Unavailable, "open", &self.place, why);
        {
            let mut state = self.state.lock();
            match &*state {
                State::Open(tier) => return Ok(Arc::clone(tier)),
                State::Opening => return Err(unavailable("it is being opened".to_owned())),
                State::Closed => *state = State::Opening,
            }
        }
        // Runs to its end, also when nobody waits for it any more.
        let (opener, state) = (Arc::clone(&self.opener), Arc::clone(&self.state));
        let opened = blocking(move || {
            let opened = opener();
            *state.lock() = match &opened {
                Ok(tier) => State::Open(Arc::clone(tier)),
                Err(_) => State::Closed,
            };
            opened
        });
        opened.await.map_err(|error| unavailable(error.to_string()))
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
