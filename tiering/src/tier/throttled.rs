//! Moderation: every call of a tier passes a [`Throttle`] before it is made, under a priority that
//! its caller chose by choosing the handle. All handles of one store share one throttle.
//!
//! Belongs below [`super::Retry`], so that each attempt is admitted and each failure is seen, and the
//! deadline of the call holds for the waiting too. *Cancellation*: a dropped call gives its turn or
//! its place back. *Parts*: a file that goes to a store in parts is admitted part by part: the
//! store asks for each through [`Pace::current`]. A tier that knows nothing of that has its file
//! admitted with its first part, and charged in full when it has gone.

use std::future::Future;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::failure::is_retriable;
use super::{Care, Content, ObjectMeta, Tier, Wholeness};
use crate::error::{Error, Result};
use crate::throttle::{Kind, Outcome, Permit, Priority, Throttle};

/// What a whole object is admitted with as long as its length is unknown.
const UNKNOWN_LEN: u64 = 256 << 10;

/// Longest part of a file; see the tiers that cut.
pub(super) const PACED_PART: u64 = 8 << 20;

tokio::task_local! {
    static PACE: Arc<Pace>;
}

/// A tier behind a throttle.
#[derive(Clone, Debug)]
pub struct Throttled {
    inner: Arc<dyn Tier>,
    throttle: Arc<Throttle>,
    priority: Priority,
}

impl Throttled {
    /// Wraps `inner`; calls are users' reads.
    pub fn new(inner: Arc<dyn Tier>, throttle: Arc<Throttle>) -> Self {
        Self { inner, throttle, priority: Priority::UserRead }
    }

    /// The same tier and throttle for calls of another priority.
    pub fn for_priority(&self, priority: Priority) -> Arc<dyn Tier> {
        Arc::new(Self { priority, ..self.clone() })
    }

    /// What it passes.
    pub fn throttle(&self) -> &Arc<Throttle> {
        &self.throttle
    }

    async fn pass<T>(
        &self,
        kind: Kind,
        bytes: u64,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let permit = self.throttle.admit(self.priority, kind, bytes).await?;
        let result = call.await;
        permit.finish(outcome_of(&result));
        self.throttle.verdict(self.priority, result)
    }
}

/// One tier under each priority.
#[derive(Clone, Debug)]
pub struct Handles {
    tiers: [Arc<dyn Tier>; Priority::ALL.len()],
    throttle: Option<Arc<Throttle>>,
}

impl Handles {
    /// As `make` makes them.
    pub fn new(make: impl FnMut(Priority) -> Arc<dyn Tier>) -> Self {
        Self { tiers: Priority::ALL.map(make), throttle: None }
    }

    /// The throttle that they share is told when writers wait.
    pub fn behind(self, throttle: Arc<Throttle>) -> Self {
        Self { throttle: Some(throttle), ..self }
    }

    /// Tells the throttle whether writers wait for space.
    pub fn hurry(&self, is_hurried: bool) {
        if let Some(throttle) = &self.throttle {
            throttle.hurry(is_hurried);
        }
    }

    /// The tier for calls of this priority.
    pub fn at(&self, priority: Priority) -> &Arc<dyn Tier> {
        &self.tiers[priority as usize]
    }
}

impl From<Arc<dyn Tier>> for Handles {
    /// The same for all.
    fn from(tier: Arc<dyn Tier>) -> Self {
        Self::new(|_| Arc::clone(&tier))
    }
}

/// How a call ended, as the throttle sees it.
fn outcome_of<T>(result: &Result<T>) -> Outcome {
    match result {
        Ok(_) => Outcome::Done,
        Err(error) if is_retriable(error) => Outcome::Failed,
        Err(_) => Outcome::Answered,
    }
}

/// How the parts of one file are admitted.
#[derive(Debug)]
pub(super) struct Pace {
    throttle: Arc<Throttle>,
    priority: Priority,
    /// Admitted for the first part.
    first: Mutex<Option<Permit>>,
}

impl Pace {
    /// The pace of the call that runs, if it is throttled.
    pub(super) fn current() -> Option<Arc<Self>> {
        PACE.try_with(Arc::clone).ok()
    }

    /// Sends one part of `bytes` when it may go.
    pub(super) async fn part<E>(
        &self,
        bytes: u64,
        send: impl Future<Output = std::result::Result<(), E>> + Send,
    ) -> Result<std::result::Result<(), E>> {
        let first = self.first.lock().take();
        let permit = match first {
            Some(permit) => {
                permit.resize(bytes);
                permit
            }
            None => self.throttle.admit(self.priority, Kind::Write, bytes).await?,
        };
        let sent = send.await;
        permit.finish(if sent.is_ok() { Outcome::Done } else { Outcome::Failed });
        Ok(sent)
    }
}

impl Throttled {
    /// Stores `len` bytes, which may go in parts.
    async fn paced(&self, len: u64, store: impl Future<Output = Result<()>> + Send) -> Result<()> {
        if len <= PACED_PART {
            return self.pass(Kind::Write, len, store).await;
        }
        let first = self.throttle.admit(self.priority, Kind::Write, PACED_PART).await?;
        let pace = Arc::new(Pace {
            throttle: Arc::clone(&self.throttle),
            priority: self.priority,
            first: Mutex::new(Some(first)),
        });
        let result = PACE.scope(Arc::clone(&pace), store).await;
        let unused = pace.first.lock().take();
        if let Some(permit) = unused {
            // Not cut: it was there already, or went as one.
            permit.resize(if result.is_ok() { len } else { 0 });
            permit.finish(match outcome_of(&result) {
                Outcome::Done => Outcome::Answered,
                other => other,
            });
        }
        result
    }
}

#[async_trait]
impl Tier for Throttled {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        let len = bytes.len() as u64;
        self.pass(Kind::Write, len, self.inner.put(key, bytes)).await
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<()> {
        let len = match tokio::fs::metadata(path).await {
            Ok(meta) => meta.len(),
            Err(source) => {
                return Err(Error::Io { action: format!("open {}", path.display()), source });
            }
        };
        self.paced(len, self.inner.put_file(key, path)).await
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        let permit = self.throttle.admit(self.priority, Kind::Read, UNKNOWN_LEN).await?;
        let result = self.inner.get(key).await;
        permit.resize(result.as_ref().map_or(0, |bytes| bytes.len() as u64));
        permit.finish(outcome_of(&result));
        self.throttle.verdict(self.priority, result)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let len = range.end.saturating_sub(range.start).min(super::MAX_WHOLE_OBJECT_LEN);
        self.pass(Kind::Read, len, self.inner.get_range(key, range)).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        self.pass(Kind::Small, 0, self.inner.head(key)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>> {
        self.pass(Kind::Untimed, 0, self.inner.list(prefix, after, limit)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.pass(Kind::Small, 0, self.inner.delete(key)).await
    }

    async fn clean(&self) -> Result<u64> {
        self.pass(Kind::Untimed, 0, self.inner.clean()).await
    }

    async fn mend(&self, key: &str, care: Care) -> Result<Wholeness> {
        self.pass(Kind::Untimed, 0, self.inner.mend(key, care)).await
    }

    async fn replace(&self, key: &str, content: &Content) -> Result<()> {
        self.paced(content.len(), self.inner.replace(key, content)).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
