//! The bound of the hot tier, in bytes really used: sealed files and indexes as the disk counts
//! them, unsealed frames with what sealing will add, staging, and what others keep there. The
//! bound is the configured capacity or what the disk still has, whichever comes first; of a disk a
//! reserve stays free, in which the databases can go on.
//!
//! Rule: bytes are charged before they are written and corrected when the disk has spoken. At the
//! bound an appender waits as long as somebody makes progress (a copy, a drop, a collection),
//! [`crate::store::StoreConfig::write_deadline`] at most without any; it hears
//! [`Error::NoSpace`] when the mover has found that nothing can be collected, dropped or copied. A
//! disk that refuses bytes although it seemed to have room (a quota, or somebody else was faster)
//! is full for [`REFUSED_PAUSE`], whatever it says. A crash leaves nothing: all of it is counted
//! again at opening.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::blocks::Wait;
use crate::error::{Error, Result};

use super::config::DiskSpace;
use super::{CLOCK_SLICE, Inner};

/// How often others are asked what they keep on the hot tier.
const OTHERS_EVERY: Duration = Duration::from_millis(500);

/// How long a disk that refused bytes counts as full.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// Share of a disk that stays free, as a divisor, and the most that this comes to: room for the
/// databases' journals between two looks at the disk, and for the footers of open segments, which
/// are charged with their frames.
const DISK_RESERVE_DIVISOR: u64 = 16;
const DISK_RESERVE_MOST: u64 = 256 << 20;

/// Counts and waits.
pub(super) struct Capacity {
    limit: Option<u64>,
    used: Mutex<Used>,
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

/// Bytes of segments and indexes, and at how many of them the disk is full.
#[derive(Debug, Default)]
struct Used {
    bytes: u64,
    /// Those of them that are charged and perhaps not written yet.
    pending: u64,
    /// Reserve left out; `None` as long as nobody has looked.
    disk_limit: Option<u64>,
    refused_until: Option<Instant>,
}

/// One of the bounds: what counts against it, and how much of that there may be.
#[derive(Clone, Copy)]
struct Bound {
    usage: u64,
    limit: u64,
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
        self.capacity.settle(excess, excess);
    }

    /// Leaves the bytes counted: somebody else's count holds them now.
    pub(super) fn keep(mut self) {
        self.keep_some(self.bytes);
    }

    /// [`Charge::keep`] for a part of them.
    pub(super) fn keep_some(&mut self, bytes: u64) {
        let kept = bytes.min(self.bytes);
        self.bytes -= kept;
        self.capacity.settle(kept, 0);
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.capacity.settle(self.bytes, self.bytes);
        }
    }
}

impl Capacity {
    pub(super) fn new(limit: Option<u64>, segment_bytes: u64) -> Self {
        Self {
            limit,
            used: Mutex::default(),
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
        self.used.lock().bytes += bytes;
    }

    pub(super) fn sub(&self, bytes: u64) {
        let mut used = self.used.lock();
        used.bytes = used.bytes.saturating_sub(bytes);
        drop(used);
        self.changed.notify_all();
    }

    /// Ends a charge of `pending` bytes, of which `unused` were not written.
    fn settle(&self, pending: u64, unused: u64) {
        let mut used = self.used.lock();
        used.pending = used.pending.saturating_sub(pending);
        used.bytes = used.bytes.saturating_sub(unused);
        drop(used);
        if unused > 0 {
            self.changed.notify_all();
        }
    }

    /// Bytes of segments and indexes.
    pub(super) fn used_bytes(&self) -> u64 {
        self.used.lock().bytes
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

    /// Takes in what the disk says of itself.
    pub(super) fn note_disk(&self, space: DiskSpace, now: Instant) {
        let reserve = (space.total_bytes / DISK_RESERVE_DIVISOR).min(DISK_RESERVE_MOST);
        let mut used = self.used.lock();
        let written = used.bytes.saturating_sub(used.pending);
        let mut limit = written.saturating_add(space.free_bytes).saturating_sub(reserve);
        if used.refused_until.is_some_and(|until| now < until) {
            limit = limit.min(used.disk_limit.unwrap_or(u64::MAX));
        } else {
            used.refused_until = None;
        }
        used.disk_limit = Some(limit);
        drop(used);
        self.changed.notify_all();
    }

    /// The disk took no more bytes, whatever it had said.
    pub(super) fn disk_refused(&self, now: Instant) {
        let mut used = self.used.lock();
        used.disk_limit = Some(used.disk_limit.unwrap_or(u64::MAX).min(used.bytes));
        used.refused_until = Some(now + REFUSED_PAUSE);
    }

    fn bounds(&self, used: &Used) -> impl Iterator<Item = Bound> + use<> {
        let usage = used.bytes.saturating_add(self.other_bytes());
        let configured = self.limit.map(|limit| Bound { usage, limit });
        let disk = used.disk_limit.map(|limit| Bound { usage: used.bytes, limit });
        configured.into_iter().chain(disk)
    }

    /// Bytes that may be used in all, others' included, as far as is known.
    pub(super) fn limit(&self) -> Option<u64> {
        let used = self.used.lock();
        let all = used.bytes.saturating_add(self.other_bytes());
        let room = self.bounds(&used).map(|bound| bound.limit.saturating_sub(bound.usage)).min();
        // A bound that is exceeded stays what it was told to be.
        let configured = self.limit.unwrap_or(u64::MAX);
        room.map(|room| all.saturating_add(room).min(configured))
    }

    /// Room kept free so that appenders seldom wait for the mover.
    fn slack(&self, limit: u64) -> u64 {
        (limit / 8).min(2 * self.segment_bytes)
    }

    /// Bytes by which usage exceeds what the mover keeps free, and what leaves room for the
    /// largest request that waits; 0 when all is well.
    pub(super) fn excess(&self) -> u64 {
        let largest = self.waiting.lock().iter().copied().max();
        let used = self.used.lock();
        let excess = |bound: Bound| {
            let room = largest.map_or(0, |bytes| bytes.saturating_add(self.reserve(bound.limit)));
            let target = bound.limit.saturating_sub(room.max(self.slack(bound.limit)));
            bound.usage.saturating_sub(target)
        };
        self.bounds(&used).map(excess).max().unwrap_or(0)
    }

    /// Room that only moving and compacting may use, so that a full tier can still be relieved.
    fn reserve(&self, limit: u64) -> u64 {
        (limit / 16).min(self.segment_bytes / 2)
    }

    /// Counts `bytes` for work that makes room in the end.
    pub(super) fn charge_reserve(&self, bytes: u64) -> Result<Charge<'_>> {
        self.try_charge(bytes, false).ok_or(Error::NoSpace)
    }

    /// Counts `bytes`, waiting for room as `wait` allows.
    pub(super) fn charge(&self, inner: &Inner, bytes: u64, wait: Wait) -> Result<Charge<'_>> {
        if let Some(charge) = self.try_charge(bytes, true) {
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

    /// Counts `bytes` if they fit, leaving the movers' reserve alone when told to.
    fn try_charge(&self, bytes: u64, leave_reserve: bool) -> Option<Charge<'_>> {
        let mut used = self.used.lock();
        self.fits(&used, bytes, leave_reserve).then(|| {
            used.bytes += bytes;
            used.pending += bytes;
            Charge { capacity: self, bytes }
        })
    }

    fn fits(&self, used: &Used, bytes: u64, leave_reserve: bool) -> bool {
        self.bounds(used).all(|bound| {
            let reserve = if leave_reserve { self.reserve(bound.limit) } else { 0 };
            bound.usage.saturating_add(bytes).saturating_add(reserve) <= bound.limit
        })
    }

    /// Whether [`Capacity::charge_reserve`] would count so many bytes now.
    pub(super) fn has_reserve(&self, bytes: u64) -> bool {
        self.fits(&self.used.lock(), bytes, false)
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
            if let Some(charge) = self.try_charge(bytes, true) {
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

impl Inner {
    /// Asks the disk how much room it has. One that does not say is bounded by its refusals only.
    pub(super) fn look_at_disk(&self) {
        match (self.config.disk_space)(&self.config.hot_dir) {
            Ok(space) => self.capacity.note_disk(space, self.config.clock.instant()),
            Err(error) => tracing::debug!(%error, "the disk does not say how much room it has"),
        }
    }
}
