//! Patience: repeats calls that may pass, with exponential backoff and jitter, until the
//! attempts or the deadline are used up, and reads back after an ambiguous write.
//!
//! Time is tokio's (tests pause it), chance is a [`Jitter`] that the owner may pass in. A put
//! that failed ambiguously is settled by looking: the object with our bytes is success, one with
//! other bytes is [`Error::Exists`], none is the failure. When a server said how long it wants to
//! be left alone ([`Pauses`]), no attempt is made before; a pause beyond the deadline ends the call
//! with the failure that brought it.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::content::{Content, Presence, compare};
use super::failure::{FailureKind, TierFailure, is_retriable};
use super::{Care, ObjectMeta, Patience, Pauses, Tier, Wholeness};
use crate::error::{Error, Result};

/// First pause between attempts.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest pause between attempts.
const BACKOFF_LONGEST: Duration = Duration::from_secs(10);

/// Chance for backoff: a seeded sequence (splitmix64, Steele et al. 2014).
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// The same sequence for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// A sequence of its own for each process and call, so that many mounts do not retry in step.
    pub fn from_process() -> Self {
        Self(RandomState::new().hash_one(0))
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Half of `pause` to all of it.
    fn of(&mut self, pause: Duration) -> Duration {
        let fraction = (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        pause.mul_f64(0.5 + fraction / 2.0)
    }
}

/// A tier that tries again.
pub struct Retry {
    inner: Arc<dyn Tier>,
    patience: Patience,
    jitter: Mutex<Jitter>,
    pauses: Arc<Pauses>,
}

impl std::fmt::Debug for Retry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retry")
            .field("inner", &self.inner)
            .field("patience", &self.patience)
            .finish()
    }
}

impl Retry {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn Tier>, patience: Patience) -> Self {
        Self::with_jitter(inner, patience, Jitter::from_process())
    }

    /// Wraps `inner` with chance that is known in advance.
    pub fn with_jitter(inner: Arc<dyn Tier>, patience: Patience, jitter: Jitter) -> Self {
        Self { inner, patience, jitter: Mutex::new(jitter), pauses: Arc::default() }
    }

    /// Heeds the pauses that the store asks for, which somebody notes in `pauses`.
    pub fn heeding(mut self, pauses: Arc<Pauses>) -> Self {
        self.pauses = pauses;
        self
    }

    fn pause_before(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(2).min(16);
        let pause = BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_LONGEST);
        let own = self.jitter.lock().of(pause);
        own.max(self.pauses.left(Instant::now().into_std()))
    }

    /// Calls until it succeeds, fails for good, or `deadline` passes.
    async fn run<T, F, Fut>(&self, doing: &'static str, deadline: Instant, call: F) -> Result<T>
    where
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Result<T>> + Send,
    {
        let mut last = None;
        for attempt in 1..=self.patience.attempts.max(1) {
            if attempt > 1 {
                let pause = self.pause_before(attempt);
                if Instant::now() + pause >= deadline {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
            match tokio::time::timeout_at(deadline, call()).await {
                Err(_) => {
                    last = Some(Error::TimedOut(doing));
                    break;
                }
                Ok(Err(error)) if is_retriable(&error) => {
                    tracing::debug!(attempt, %error, "{doing} failed, may pass");
                    last = Some(error);
                }
                Ok(done) => return done,
            }
        }
        Err(last.unwrap_or(Error::TimedOut(doing)))
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.patience.deadline
    }

    /// A write gets three quarters of the deadline; the rest is kept for looking whether an
    /// ambiguous one happened.
    fn write_deadline(&self) -> Instant {
        Instant::now() + self.patience.deadline * 3 / 4
    }

    /// Decides an ambiguous write by looking. What can be read is stored only when all of it is
    /// where a write would have put it.
    async fn settle(
        &self,
        written: Result<()>,
        key: &str,
        content: Content,
        deadline: Instant,
    ) -> Result<()> {
        let error = match written {
            Err(error) if is_retriable(&error) => error,
            settled => return settled,
        };
        match tokio::time::timeout_at(deadline, compare(&*self.inner, key, &content)).await {
            Ok(Ok(Presence::Same)) => {
                let completed = self.inner.mend(key, Care::COMPLETE);
                match tokio::time::timeout_at(deadline, completed).await {
                    Ok(Ok(whole)) if whole.counts_as_stored() => Ok(()),
                    _ => Err(error),
                }
            }
            Ok(Ok(Presence::Different)) => Err(Error::Exists(key.to_owned())),
            Ok(Ok(Presence::Missing)) | Ok(Err(_)) | Err(_) => Err(error),
        }
    }
}

#[async_trait]
impl Tier for Retry {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        let (write, all) = (self.write_deadline(), self.deadline());
        let put = self.run("storing an object", write, || self.inner.put(key, bytes.clone())).await;
        self.settle(put, key, Content::Bytes(bytes), all).await
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<()> {
        let (write, all) = (self.write_deadline(), self.deadline());
        let put = self.run("storing a file", write, || self.inner.put_file(key, path)).await;
        match put {
            Err(error) if is_retriable(&error) => {
                let content = Content::open(path).await?;
                self.settle(Err(error), key, content, all).await
            }
            settled => settled,
        }
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        self.run("reading an object", self.deadline(), || self.inner.get(key)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let wanted = range.end.saturating_sub(range.start);
        self.run("reading part of an object", self.deadline(), || async {
            let bytes = self.inner.get_range(key, range.clone()).await?;
            if bytes.len() as u64 == wanted {
                return Ok(bytes);
            }
            let message = format!("{} bytes came instead of {wanted}", bytes.len());
            Err(TierFailure::error(FailureKind::BadBody, "read", key, message))
        })
        .await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        self.run("looking for an object", self.deadline(), || self.inner.head(key)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>> {
        self.run("listing objects", self.deadline(), || self.inner.list(prefix, after, limit)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.run("deleting an object", self.deadline(), || self.inner.delete(key)).await
    }

    async fn clean(&self) -> Result<u64> {
        self.run("cleaning up", self.deadline(), || self.inner.clean()).await
    }

    async fn mend(&self, key: &str, care: Care) -> Result<Wholeness> {
        self.run("making an object whole", self.deadline(), || self.inner.mend(key, care)).await
    }

    async fn replace(&self, key: &str, content: &Content) -> Result<()> {
        let replace = || self.inner.replace(key, content);
        self.run("replacing an object", self.deadline(), replace).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
