//! The bound of the hot tier, in bytes really used: sealed files and indexes as the disk counts
//! them, unsealed frames with what sealing will add, staging, and what others keep there. The
//! bound is the configured capacity or what the disk still has, whichever comes first; of a disk a
//! reserve stays free, in which the databases can go on.
//!
//! Rule: bytes are charged before they are written and corrected when the disk has spoken. At the
//! bound an appender waits as long as somebody makes progress (a copy, a drop, a collection),
//! [`crate::store::StoreConfig::write_deadline`] at most without any; it hears
//! [`Error::NoSpace`] when the mover has found that nothing can be collected, dropped or copied.
//! Whoever brings data back from cold waits likewise, but only ever gets room below the low mark:
//! colder copies go for it, never a writer's room. A
//! disk that refuses bytes although it seemed to have room (a quota, or somebody else was faster)
//! is full for [`REFUSED_PAUSE`], whatever it says. A crash leaves nothing: all of it is counted
//! again at opening.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::blocks::Wait;
use crate::error::{Error, Result};

use super::config::DiskSpace;
use super::job::Cancel;
use super::marks::Watermarks;
use super::{CLOCK_SLICE, Inner};

/// What waits that ends in [`Error::TimedOut`] when there was no room.
pub const NO_ROOM: &str = "waiting for space on the hot tier";

/// How long what comes back from cold waits for room while nothing makes any: whoever asked for it is
/// to be told, and others wait behind it.
const RECALL_PATIENCE: Duration = Duration::from_secs(60);

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
    /// Usage was above the high mark and is not at the low one yet.
    relieving: AtomicBool,
    waiting: Mutex<Vec<Request>>,
    segment_bytes: u64,
}

/// Who asks for room, and hence how much of it must be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    /// Work that makes room in the end: it may take all there is.
    Relief,
    /// A writer, who leaves the movers' reserve.
    Writing,
    /// What comes back from cold, which leaves all that is above the low mark.
    Recall,
}

/// Somebody who waits for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    bytes: u64,
    purpose: For,
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
    /// Set by the owner for the configured capacity.
    marks: Option<Watermarks>,
}

/// One of the bounds: what counts against it, how much of that there may be, and its marks.
#[derive(Clone, Copy)]
struct Bound {
    usage: u64,
    limit: u64,
    marks: Watermarks,
    /// Room that only moving and compacting may use, so that a full tier can still be relieved.
    reserve: u64,
}

impl Bound {
    fn new(usage: u64, limit: u64, marks: Option<Watermarks>, segment_bytes: u64) -> Self {
        let marks = marks.unwrap_or_else(|| Watermarks::of_capacity(limit, segment_bytes));
        Self { usage, limit, marks, reserve: (limit / 16).min(segment_bytes / 2) }
    }

    /// Bytes of the bound that a request for this must leave free.
    fn left_by(&self, purpose: For) -> u64 {
        match purpose {
            For::Relief => 0,
            For::Writing => self.reserve,
            For::Recall => {
                let most = self.marks.low.min(self.limit.saturating_sub(self.marks.write_reserve));
                self.limit.saturating_sub(most).max(self.reserve)
            }
        }
    }

    /// Usage at which a request has room.
    fn makes_room_for(&self, request: &Request) -> u64 {
        let room = request.bytes.saturating_add(self.left_by(request.purpose));
        self.limit.saturating_sub(room)
    }

    fn fits(&self, request: &Request) -> bool {
        self.usage.saturating_add(request.bytes).saturating_add(self.left_by(request.purpose))
            <= self.limit
    }
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
    pub(super) fn new(limit: Option<u64>, marks: Option<Watermarks>, segment_bytes: u64) -> Self {
        Self {
            limit,
            used: Mutex::new(Used { marks, ..Used::default() }),
            changed: Condvar::new(),
            other: AtomicU64::new(0),
            other_at: Mutex::default(),
            progress: AtomicU64::new(0),
            full: AtomicBool::new(false),
            relieving: AtomicBool::new(false),
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

    /// Counts `now` in place of `before`, so that nobody sees both or neither.
    pub(super) fn exchange(&self, before: u64, now: u64) {
        let mut used = self.used.lock();
        used.bytes = (used.bytes + now).saturating_sub(before);
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

    /// Whether some of them write, rather than bring back what is safe in cold.
    pub(super) fn writers_wait(&self) -> bool {
        self.waiting.lock().iter().any(|request| request.purpose == For::Writing)
    }

    /// Grows with everything that makes waiting worth while.
    pub(super) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// Something was copied, dropped or collected: waiting is worth while.
    pub(super) fn progressed(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
        self.full.store(false, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Whether the mover has said that there is no room to be had.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
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
        let bound = |usage, limit, marks| Bound::new(usage, limit, marks, self.segment_bytes);
        let configured = self.limit.map(|limit| bound(usage, limit, used.marks));
        let disk = used.disk_limit.map(|limit| bound(used.bytes, limit, None));
        configured.into_iter().chain(disk)
    }

    /// The marks of the configured capacity, or of what the disk has.
    pub(super) fn marks(&self) -> Option<Watermarks> {
        self.bounds(&self.used.lock()).next().map(|bound| bound.marks)
    }

    /// Changes the marks of the configured capacity.
    pub(super) fn set_marks(&self, marks: Watermarks) -> Result<()> {
        let limit = self.limit.ok_or_else(|| {
            Error::Config("watermarks need a capacity of the hot tier to refer to".into())
        })?;
        marks.validate(limit)?;
        self.used.lock().marks = Some(marks);
        // Whoever waits may have room now.
        self.changed.notify_all();
        Ok(())
    }

    /// Whether usage has come to the mark from which on copies are made ahead.
    pub(super) fn wants_copies(&self) -> bool {
        // The first is the configured one, if there is one: only that has a mark of its own.
        let bound = self.bounds(&self.used.lock()).next();
        bound.is_none_or(|bound| bound.usage >= bound.marks.copy_ahead)
    }

    /// Bytes that may come back from cold without anything being dropped for them; `None` without
    /// a bound.
    pub(super) fn recall_room(&self) -> Option<u64> {
        let room = |bound: Bound| {
            bound.limit.saturating_sub(bound.usage).saturating_sub(bound.left_by(For::Recall))
        };
        self.bounds(&self.used.lock()).map(room).min()
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

    /// Bytes by which usage exceeds what the mover should bring it to; 0 when all is well. Once
    /// usage was above the high mark that is the low one; in any case it leaves room for the
    /// largest request that waits.
    pub(super) fn excess(&self) -> u64 {
        let waiting = self.waiting.lock();
        let used = self.used.lock();
        let bounds = || self.bounds(&used);
        if bounds().any(|bound| bound.usage > bound.marks.high) {
            self.relieving.store(true, Ordering::Relaxed);
        } else if bounds().all(|bound| bound.usage <= bound.marks.low) {
            self.relieving.store(false, Ordering::Relaxed);
        }
        let relieving = self.relieving.load(Ordering::Relaxed);
        let mark = |bound: &Bound| if relieving { bound.marks.low } else { bound.marks.high };
        bounds().map(|bound| over(&bound, mark(&bound), &waiting)).max().unwrap_or(0)
    }

    /// Whether usage is above the high mark, or somebody who waits has no room.
    pub(super) fn is_short(&self) -> bool {
        let waiting = self.waiting.lock();
        let used = self.used.lock();
        self.bounds(&used).any(|bound| over(&bound, bound.marks.high, &waiting) > 0)
    }

    /// Counts `bytes` for work that makes room in the end.
    pub(super) fn charge_reserve(&self, bytes: u64) -> Result<Charge<'_>> {
        self.try_charge(Request { bytes, purpose: For::Relief }).ok_or(Error::NoSpace)
    }

    /// Counts `bytes` for a writer, waiting for room as `wait` allows.
    pub(super) fn charge(&self, inner: &Inner, bytes: u64, wait: Wait) -> Result<Charge<'_>> {
        self.charge_for(inner, Request { bytes, purpose: For::Writing }, wait, None)
    }

    /// Counts `bytes` for what comes back from cold: below the low mark, or not at all.
    pub(super) fn charge_recall(
        &self,
        inner: &Inner,
        bytes: u64,
        wait: Wait,
        cancel: &Cancel,
    ) -> Result<Charge<'_>> {
        self.charge_for(inner, Request { bytes, purpose: For::Recall }, wait, Some(cancel))
    }

    fn charge_for(
        &self,
        inner: &Inner,
        request: Request,
        wait: Wait,
        cancel: Option<&Cancel>,
    ) -> Result<Charge<'_>> {
        if let Some(charge) = self.try_charge(request) {
            return Ok(charge);
        }
        if matches!(wait, Wait::No) {
            inner.signals.kick_mover();
            return Err(Error::WouldWait);
        }
        // What the disk has changes; what was configured does not.
        let empty = |bound: Bound| Bound { usage: 0, ..bound };
        let configured = self.limit.and_then(|_| self.bounds(&self.used.lock()).next());
        if configured.is_some_and(|bound| !empty(bound).fits(&request)) {
            return Err(Error::NoSpace);
        }
        self.waiting.lock().push(request);
        // A verdict from before this wait is not about this wait.
        self.full.store(false, Ordering::Relaxed);
        let result = self.wait_for_room(inner, request, wait, cancel);
        let mut waiting = self.waiting.lock();
        if let Some(at) = waiting.iter().position(|other| *other == request) {
            waiting.swap_remove(at);
        }
        drop(waiting);
        result
    }

    fn try_charge(&self, request: Request) -> Option<Charge<'_>> {
        let mut used = self.used.lock();
        self.bounds(&used).all(|bound| bound.fits(&request)).then(|| {
            used.bytes += request.bytes;
            used.pending += request.bytes;
            Charge { capacity: self, bytes: request.bytes }
        })
    }

    /// Whether [`Capacity::charge_reserve`] would count so many bytes now.
    pub(super) fn has_reserve(&self, bytes: u64) -> bool {
        let request = Request { bytes, purpose: For::Relief };
        self.bounds(&self.used.lock()).all(|bound| bound.fits(&request))
    }

    fn wait_for_room(
        &self,
        inner: &Inner,
        request: Request,
        wait: Wait,
        cancel: Option<&Cancel>,
    ) -> Result<Charge<'_>> {
        let clock = &inner.config.clock;
        let mut progress = self.progress.load(Ordering::Relaxed);
        let mut since = clock.instant();
        let longest = match request.purpose {
            For::Recall => RECALL_PATIENCE.min(inner.config.write_deadline),
            For::Writing | For::Relief => inner.config.write_deadline,
        };
        let patience = match wait {
            Wait::Progress(patience) => patience.min(longest),
            Wait::No | Wait::Until(_) => longest,
        };
        loop {
            inner.signals.kick_mover();
            if let Some(charge) = self.try_charge(request) {
                return Ok(charge);
            }
            inner.check_writable()?;
            cancel.map_or(Ok(()), Cancel::check)?;
            inner.check_wait(wait, NO_ROOM)?;
            if self.is_full() {
                return Err(Error::NoSpace);
            }
            let now = self.progress.load(Ordering::Relaxed);
            if now != progress {
                progress = now;
                since = clock.instant();
            } else if clock.instant().saturating_duration_since(since) >= patience {
                return Err(Error::TimedOut(NO_ROOM));
            }
            let mut used = self.used.lock();
            self.changed.wait_for(&mut used, CLOCK_SLICE);
        }
    }
}

/// Bytes by which a bound's usage exceeds `mark`, or what leaves room for those who wait.
fn over(bound: &Bound, mark: u64, waiting: &[Request]) -> u64 {
    let room = waiting.iter().map(|request| bound.makes_room_for(request)).min();
    bound.usage.saturating_sub(room.map_or(mark, |room| room.min(mark)))
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
