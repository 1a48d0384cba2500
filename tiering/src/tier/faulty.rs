//! Trouble on demand, for tests: a tier that fails as real ones do, by script or by seed, and
//! counts what was asked of it. A tier that was [`Faulty::cut_off`] answers nothing any more,
//! which is what a killed process looks like from the store.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::failure::{FailureKind, TierFailure};
use super::retry::Jitter;
use super::{Care, Content, ObjectMeta, Tier, Wholeness};
use crate::error::{Error, Result};

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// [`Tier::put`]
    Put,
    /// [`Tier::put_file`]
    PutFile,
    /// [`Tier::get`]
    Get,
    /// [`Tier::get_range`]
    GetRange,
    /// [`Tier::head`]
    Head,
    /// [`Tier::list`]
    List,
    /// [`Tier::delete`]
    Delete,
    /// [`Tier::clean`]
    Clean,
    /// [`Tier::replace`]
    Replace,
}

impl Op {
    /// Whether the call changes what is stored.
    pub fn writes(self) -> bool {
        matches!(self, Self::Put | Self::PutFile | Self::Delete | Self::Clean | Self::Replace)
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Fails before anything happened, as this kind.
    Error(FailureKind),
    /// Answers late.
    Delay(Duration),
    /// Never answers.
    Hang,
    /// The body ends early; calls without a body fail with [`FailureKind::BadBody`].
    Truncate,
    /// One bit of the body is wrong; calls without a body pass.
    Corrupt,
    /// Times out before anything happened.
    TimeOutBefore,
    /// Times out after it happened.
    TimeOutAfter,
}

#[derive(Debug)]
struct Planned {
    op: Option<Op>,
    key_part: String,
    fault: Fault,
}

#[derive(Debug, Default)]
struct Plan {
    script: Vec<Planned>,
    seeded: Option<(Jitter, u32, Vec<Fault>)>,
    writes_left: Option<u64>,
    is_cut_off: bool,
    calls: BTreeMap<Op, u64>,
}

/// A tier with trouble.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Tier>,
    plan: Mutex<Plan>,
}

impl Faulty {
    /// Wraps `inner`; nothing fails yet.
    pub fn new(inner: Arc<dyn Tier>) -> Self {
        Self { inner, plan: Mutex::default() }
    }

    /// Wraps `inner`; `permille` of 1000 calls meet one of `faults`, the same for the same seed.
    pub fn seeded(inner: Arc<dyn Tier>, seed: u64, permille: u32, faults: &[Fault]) -> Self {
        let faulty = Self::new(inner);
        faulty.reseed(seed, permille, faults);
        faulty
    }

    /// From now on `permille` of 1000 calls meet one of `faults`, the same for the same seed.
    pub fn reseed(&self, seed: u64, permille: u32, faults: &[Fault]) {
        self.plan.lock().seeded = Some((Jitter::seeded(seed), permille, faults.to_vec()));
    }

    /// The next call of kind `op` (any, when `None`) whose key contains `key_part` meets `fault`.
    /// Planned faults are used up in the order they were planned.
    pub fn fail_next(&self, op: Option<Op>, key_part: &str, fault: Fault) {
        self.plan.lock().script.push(Planned { op, key_part: key_part.to_owned(), fault });
    }

    /// From now on every call fails as if the store were unreachable, until [`Faulty::reconnect`].
    pub fn cut_off(&self) {
        self.plan.lock().is_cut_off = true;
    }

    /// `count` more changing calls succeed, then [`Faulty::cut_off`] happens.
    pub fn cut_off_after(&self, count: u64) {
        self.plan.lock().writes_left = Some(count);
    }

    /// Ends [`Faulty::cut_off`] and forgets what was planned.
    pub fn reconnect(&self) {
        let mut plan = self.plan.lock();
        plan.is_cut_off = false;
        plan.writes_left = None;
        plan.script.clear();
        plan.seeded = None;
    }

    /// How often `op` was called.
    pub fn calls(&self, op: Op) -> u64 {
        self.plan.lock().calls.get(&op).copied().unwrap_or(0)
    }

    fn fault_for(&self, op: Op, key: &str) -> Option<Fault> {
        let mut plan = self.plan.lock();
        *plan.calls.entry(op).or_default() += 1;
        if op.writes()
            && let Some(left) = plan.writes_left.as_mut()
        {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => plan.is_cut_off = true,
            }
        }
        if plan.is_cut_off {
            return Some(Fault::Error(FailureKind::Unavailable));
        }
        let fits = |p: &Planned| p.op.is_none_or(|o| o == op) && key.contains(&p.key_part);
        if let Some(index) = plan.script.iter().position(fits) {
            return Some(plan.script.remove(index).fault);
        }
        let (chance, permille, faults) = plan.seeded.as_mut()?;
        if faults.is_empty() || chance.next_u64() % 1000 >= u64::from(*permille) {
            return None;
        }
        let pick = chance.next_u64() % faults.len() as u64;
        Some(faults[pick as usize])
    }

    /// Makes one call and lets the planned fault happen to it.
    async fn call<T, Fut>(
        &self,
        op: Op,
        key: &str,
        spoil: fn(T, Fault) -> Result<T>,
        call: Fut,
    ) -> Result<T>
    where
        Fut: Future<Output = Result<T>> + Send,
    {
        let Some(fault) = self.fault_for(op, key) else { return call.await };
        match fault {
            Fault::Error(kind) => Err(TierFailure::error(kind, "reach", key, "injected fault")),
            Fault::Delay(delay) => {
                tokio::time::sleep(delay).await;
                call.await
            }
            Fault::Hang => std::future::pending().await,
            Fault::TimeOutBefore => Err(Error::TimedOut("injected fault")),
            Fault::TimeOutAfter => {
                call.await?;
                Err(Error::TimedOut("injected fault"))
            }
            Fault::Truncate | Fault::Corrupt => spoil(call.await?, fault),
        }
    }
}

/// For calls that answer with bytes.
#[allow(clippy::needless_pass_by_value, reason = "stands where calls without a body consume")]
fn spoil_body(body: Bytes, fault: Fault) -> Result<Bytes> {
    if fault == Fault::Truncate {
        return Ok(body.slice(..body.len() / 2));
    }
    let mut wrong = body.to_vec();
    let middle = wrong.len() / 2;
    if let Some(byte) = wrong.get_mut(middle) {
        *byte ^= 0x10;
    }
    Ok(Bytes::from(wrong))
}

/// For calls that answer with something else.
fn spoil_answer<T>(answer: T, fault: Fault) -> Result<T> {
    match fault {
        Fault::Truncate => {
            Err(TierFailure::error(FailureKind::BadBody, "reach", "store", "injected fault"))
        }
        _ => Ok(answer),
    }
}

#[async_trait]
impl Tier for Faulty {
    async fn put(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.call(Op::Put, key, spoil_answer, self.inner.put(key, bytes)).await
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<()> {
        self.call(Op::PutFile, key, spoil_answer, self.inner.put_file(key, path)).await
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        self.call(Op::Get, key, spoil_body, self.inner.get(key)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.call(Op::GetRange, key, spoil_body, self.inner.get_range(key, range)).await
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        self.call(Op::Head, key, spoil_answer, self.inner.head(key)).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>> {
        self.call(Op::List, prefix, spoil_answer, self.inner.list(prefix, after, limit)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.call(Op::Delete, key, spoil_answer, self.inner.delete(key)).await
    }

    async fn clean(&self) -> Result<u64> {
        self.call(Op::Clean, "", spoil_answer, self.inner.clean()).await
    }

    async fn mend(&self, key: &str, care: Care) -> Result<Wholeness> {
        self.inner.mend(key, care).await
    }

    async fn replace(&self, key: &str, content: &Content) -> Result<()> {
        self.call(Op::Replace, key, spoil_answer, self.inner.replace(key, content)).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
