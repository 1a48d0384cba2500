//! The bound of the hot tier, in bytes really used: sealed files and indexes as the disk counts
//! them, unsealed frames with what sealing will add, staging, and what others keep there.
//!
//! Rule: bytes are charged before they are written and corrected when the disk has spoken. At the
//! bound an appender waits as long as somebody makes progress (a copy, a drop, a collection),
//! [`crate::store::StoreConfig::write_deadline`] at most without any; it hears
//! [`Error::NoSpace`] when the mover has found that nothing can be dropped and nothing copied.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::blocks::Wait;
use crate::error::{Error, Result};

use super::{CLOCK_SLICE, Inner};

/// How often others are asked what they keep on the hot tier.
const OTHERS_EVERY: Duration = Duration::from_millis(500);

/// Counts and waits.
pub(super) struct Capacity {
    limit: Option<u64>,
    used: Mutex<u64>,
    changed: Condvar,
    other: AtomicU64,
    /// When others are asked again; `None` before the first time.
    other_at: Mutex<Option<Instant>>,
    progress: AtomicU64,
    full: AtomicBool,
    /// Requests that wait, in bytes.
    waiting: Mutex<Vec<u64>>,
    segment_bytes: u64,
}

/// Bytes counted for something about to be written; given back when dropped.
pub(super) struct Charge<'a> {
    capacity: &'a Capacity,
    bytes: u64,
}

impl Charge<'_> {
    /// Gives back what turned out not to be needed.
    pub(super) fn shrink_to(&mut self, bytes: u64) {
        let excess = self.bytes.saturating_sub(bytes);
        self.bytes -= excess;
        self.capacity.sub(excess);
    }

    /// Leaves the bytes counted: somebody else's count holds them now.
    pub(super) fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.capacity.sub(self.bytes);
        }
    }
}

impl Capacity {
    pub(super) fn new(limit: Option<u64>, segment_bytes: u64) -> Self {
        Self {
            limit,
            used: Mutex::new(0),
            changed: Condvar::new(),
            other: AtomicU64::new(0),
            other_at: Mutex::default(),
            progress: AtomicU64::new(0),
            full: AtomicBool::new(false),
            waiting: Mutex::default(),
            segment_bytes,
        }
    }

    pub(super) fn add(&self, bytes: u64) {
        *self.used.lock() += bytes;
    }

    pub(super) fn sub(&self, bytes: u64) {
        let mut used = self.used.lock();
        *used = used.saturating_sub(bytes);
        drop(used);
        self.changed.notify_all();
    }

    /// Bytes of segments and indexes.
    pub(super) fn used_bytes(&self) -> u64 {
        *self.used.lock()
    }

    /// Bytes kept on the hot tier by others.
    pub(super) fn other_bytes(&self) -> u64 {
        self.other.load(Ordering::Relaxed)
    }

    pub(super) fn set_other(&self, bytes: u64) {
        self.other.store(bytes, Ordering::Relaxed);
    }

    /// Whether it is time to ask others what they keep there: that looks at many files.
    pub(super) fn others_are_due(&self, now: Instant) -> bool {
        let mut at = self.other_at.lock();
        let due = at.is_none_or(|at| at <= now);
        if due {
            *at = Some(now + OTHERS_EVERY);
        }
        due
    }

    /// Appenders that wait for space.
    pub(super) fn waiters(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Something was copied, dropped or collected: waiting is worth while.
    pub(super) fn progressed(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
        self.full.store(false, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// The mover found nothing to copy and nothing to drop.
    pub(super) fn declare_full(&self) {
        self.full.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Room kept free so that appenders seldom wait for the mover.
    fn slack(&self, limit: u64) -> u64 {
        (limit / 8).min(2 * self.segment_bytes)
    }

    /// Bytes by which usage exceeds what the mover keeps free, and what leaves room for the
    /// largest request that waits; 0 when all is well.
    pub(super) fn excess(&self) -> u64 {
        let Some(limit) = self.limit else { return 0 };
        let largest = self.waiting.lock().iter().copied().max();
        let room = largest.map_or(0, |bytes| bytes.saturating_add(self.reserve(limit)));
        let target = limit.saturating_sub(room.max(self.slack(limit)));
        (self.used_bytes() + self.other_bytes()).saturating_sub(target)
    }

    /// Room that only moving and compacting may use, so that a full tier can still be relieved.
    fn reserve(&self, limit: u64) -> u64 {
        (limit / 16).min(self.segment_bytes / 2)
    }

    /// Counts `bytes` for work that makes room in the end.
    pub(super) fn charge_reserve(&self, bytes: u64) -> Result<Charge<'_>> {
        self.try_charge(bytes, 0).ok_or(Error::NoSpace)
    }

    /// Counts `bytes`, waiting for room as `wait` allows.
    pub(super) fn charge(&self, inner: &Inner, bytes: u64, wait: Wait) -> Result<Charge<'_>> {
        if let Some(charge) = self.try_charge(bytes, self.limit.map_or(0, |l| self.reserve(l))) {
            return Ok(charge);
        }
        if matches!(wait, Wait::No) {
            inner.signals.kick_mover();
            return Err(Error::WouldWait);
        }
        if self.limit.is_some_and(|limit| bytes.saturating_add(self.reserve(limit)) > limit) {
            return Err(Error::NoSpace);
        }
        self.waiting.lock().push(bytes);
        // A verdict from before this wait is not about this wait.
        self.full.store(false, Ordering::Relaxed);
        let result = self.wait_for_room(inner, bytes, wait);
        let mut waiting = self.waiting.lock();
        if let Some(at) = waiting.iter().position(|other| *other == bytes) {
            waiting.swap_remove(at);
        }
        drop(waiting);
        result
    }

    fn try_charge(&self, bytes: u64, reserve: u64) -> Option<Charge<'_>> {
        let mut used = self.used.lock();
        let all = *used + self.other_bytes() + bytes + reserve;
        let fits = self.limit.is_none_or(|limit| all <= limit);
        fits.then(|| {
            *used += bytes;
            Charge { capacity: self, bytes }
        })
    }

    fn wait_for_room(&self, inner: &Inner, bytes: u64, wait: Wait) -> Result<Charge<'_>> {
        let what = "waiting for space on the hot tier";
        let clock = &inner.config.clock;
        let mut progress = self.progress.load(Ordering::Relaxed);
        let mut since = clock.instant();
        let patience = match wait {
            Wait::Progress(patience) => patience.min(inner.config.write_deadline),
            Wait::No | Wait::Until(_) => inner.config.write_deadline,
        };
        loop {
            inner.signals.kick_mover();
            if let Some(charge) = self.try_charge(bytes, self.limit.map_or(0, |l| self.reserve(l)))
            {
                return Ok(charge);
            }
            inner.check_writable()?;
            inner.check_wait(wait, what)?;
            if self.full.load(Ordering::Relaxed) {
                return Err(Error::NoSpace);
            }
            let now = self.progress.load(Ordering::Relaxed);
            if now != progress {
                progress = now;
                since = clock.instant();
            } else if clock.instant().saturating_duration_since(since) >= patience {
                return Err(Error::TimedOut(what));
            }
            let mut used = self.used.lock();
            self.changed.wait_for(&mut used, CLOCK_SLICE);
        }
    }
}
