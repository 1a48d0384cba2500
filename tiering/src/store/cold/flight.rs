//! One ranged request to the cold tier, running or landed, and the table of all of them.
//!
//! Bytes of a flight are unverified. Whoever takes one out of the table lets those who wait for it
//! finish; when nobody does, its request is ended.

use std::ops::Range;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::task::AbortHandle;

use crate::budget::Permit;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::segment::SegmentId;
use crate::store::CLOCK_SLICE;

/// What a request is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Somebody waits for it.
    Demand,
    /// Somebody is likely to ask for it; `wanted` bytes of it in all, 0 when nobody knows.
    Ahead { wanted: u64 },
    /// It is brought back to hot.
    Stage,
}

type Landed = std::result::Result<Bytes, Arc<Error>>;

/// A request.
pub(in crate::store) struct Flight {
    pub(super) segment: SegmentId,
    pub(super) range: Range<u64>,
    pub(super) purpose: Purpose,
    /// When it was started.
    pub(super) since: Instant,
    landed: Mutex<Option<Landed>>,
    changed: Condvar,
    /// Bytes that readers were given.
    taken: AtomicU64,
    waiting: AtomicUsize,
    task: OnceLock<AbortHandle>,
    _permit: Option<Permit>,
}

impl Flight {
    pub(super) fn new(
        segment: SegmentId,
        range: Range<u64>,
        purpose: Purpose,
        since: Instant,
        permit: Option<Permit>,
    ) -> Self {
        Self {
            segment,
            range,
            purpose,
            since,
            landed: Mutex::new(None),
            changed: Condvar::new(),
            taken: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            task: OnceLock::new(),
            _permit: permit,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    pub(super) fn covers(&self, segment: SegmentId, at: u64) -> bool {
        self.segment == segment && self.range.contains(&at)
    }

    pub(super) fn is_ahead(&self) -> bool {
        matches!(self.purpose, Purpose::Ahead { .. })
    }

    /// The task that makes the request.
    pub(super) fn flown_by(&self, task: AbortHandle) {
        // Set once: each flight has one task.
        let _ = self.task.set(task);
    }

    pub(super) fn land(&self, result: Result<Bytes>) {
        *self.landed.lock() = Some(result.map_err(Arc::new));
        self.changed.notify_all();
    }

    pub(super) fn has_landed(&self) -> bool {
        self.landed.lock().is_some()
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(&*self.landed.lock(), Some(Err(_)))
    }

    /// Its bytes, if they are here.
    pub(super) fn bytes(&self) -> Option<Bytes> {
        match &*self.landed.lock() {
            Some(Ok(bytes)) => Some(bytes.clone()),
            _ => None,
        }
    }

    /// Waits for its bytes.
    pub(super) fn wait(&self, clock: &dyn Clock, deadline: Instant) -> Result<Bytes> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let result = self.wait_landed(clock, deadline);
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        result
    }

    fn wait_landed(&self, clock: &dyn Clock, deadline: Instant) -> Result<Bytes> {
        let mut landed = self.landed.lock();
        loop {
            match &*landed {
                Some(Ok(bytes)) => return Ok(bytes.clone()),
                Some(Err(error)) => return Err(again(error)),
                None => {}
            }
            if clock.instant() >= deadline {
                return Err(Error::TimedOut("reading from the cold tier"));
            }
            self.changed.wait_for(&mut landed, CLOCK_SLICE);
        }
    }

    /// Notes that a reader was given the part of it that lies in `range`.
    pub(super) fn take(&self, range: &Range<u64>) {
        let part = range.end.min(self.range.end).saturating_sub(range.start.max(self.range.start));
        self.taken.fetch_add(part, Ordering::AcqRel);
    }

    /// Whether nobody is expected to come for more of it, `range` having been read last.
    pub(super) fn is_used_up(&self, range: &Range<u64>) -> bool {
        match self.purpose {
            Purpose::Ahead { wanted: 0 } => self.range.end <= range.end,
            Purpose::Ahead { wanted } => self.taken.load(Ordering::Acquire) >= wanted,
            Purpose::Demand | Purpose::Stage => false,
        }
    }

    /// Ends the request; whoever waits for it hears that it was cancelled.
    pub(super) fn cancel(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
        if !self.has_landed() {
            self.land(Err(Error::Cancelled));
        }
    }

    /// It was taken out of the table: ends the request unless somebody waits for it.
    pub(super) fn abandon(&self) {
        if self.waiting.load(Ordering::Acquire) == 0
            && !self.has_landed()
            && let Some(task) = self.task.get()
        {
            task.abort();
            // For who got hold of it just now.
            self.land(Err(Error::TimedOut("reading from the cold tier")));
        }
    }
}

/// An error that several readers get.
fn again(error: &Arc<Error>) -> Error {
    match &**error {
        Error::NotFound(key) => Error::NotFound(key.clone()),
        Error::TimedOut(what) => Error::TimedOut(what),
        Error::Cancelled => Error::Cancelled,
        Error::Damaged { what, reason } => Error::Damaged { what, reason: reason.clone() },
        Error::Cold { action, object, .. } => Error::Cold {
            action,
            object: object.clone(),
            source: Box::new(Shared(Arc::clone(error))),
        },
        _ => Error::Cold {
            action: "read",
            object: "a segment".into(),
            source: Box::new(Shared(Arc::clone(error))),
        },
    }
}

/// The source of a shared error.
#[derive(Debug)]
struct Shared(Arc<Error>);

impl std::fmt::Display for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match std::error::Error::source(&*self.0) {
            Some(source) => write!(f, "{source}"),
            None => write!(f, "{}", self.0),
        }
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source().and_then(std::error::Error::source)
    }
}
