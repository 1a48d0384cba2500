//! One file in use: its overlay, its size and times as programs see them, and the locks around
//! both.
//!
//! *Locks*, in this order: [`FileNode::commit`] is held while a commit of the file runs and by
//! whoever needs the committed extents to stay as they are; [`FileNode::state`] guards the
//! overlay and is never held while anything waits. A commit changes the namespace first and
//! drops spans from the overlay after, under the state's write lock; so whoever reads overlay and
//! namespace under the state's read lock sees every byte in at least one of them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::SystemTime;

use firn_tiering::encode::EncodeMemory;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::job::{EncodeJob, JobResult};
use super::memory::{Charge, WriteMemory};
use super::overlay::{Fill, Overlay};
use super::pending::Share;
use super::piece::Piece;
use crate::error::{FsError, FsResult};
use crate::types::{Attr, Ino};

/// Slots whose extents a file in use remembers.
const CACHED_SLOTS: usize = 256;

/// Inline bytes of a slot that is remembered; more is read again.
const CACHED_INLINE: u64 = 4 << 10;

/// Memory that a file which is being streamed to keeps beyond what its overlay holds.
pub(super) const SPARE_MEMORY: u64 = 512 << 10;

/// Times set but not yet in the namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PendingTimes {
    pub(crate) atime: Option<SystemTime>,
    pub(crate) mtime: Option<SystemTime>,
    pub(crate) ctime: Option<SystemTime>,
}

/// A failure of background work, told to each open descriptor once.
#[derive(Clone, Debug)]
pub(crate) enum WriteFailure {
    /// `ENOSPC`
    NoSpace,
    /// `EDQUOT`
    QuotaExceeded,
    /// `EROFS`
    ReadOnly(String),
    /// `EIO`
    Io(String),
}

impl WriteFailure {
    /// What of `error` is told.
    pub(crate) fn of(error: &FsError) -> Self {
        match error {
            FsError::NoSpace => Self::NoSpace,
            FsError::QuotaExceeded => Self::QuotaExceeded,
            FsError::ReadOnly(reason) => Self::ReadOnly(reason.clone()),
            other => {
                let mut text = other.to_string();
                let mut source = std::error::Error::source(other);
                while let Some(cause) = source {
                    text = format!("{text}: {cause}");
                    source = cause.source();
                }
                Self::Io(text)
            }
        }
    }

    /// As the error of a call.
    pub(crate) fn to_error(&self) -> FsError {
        match self {
            Self::NoSpace => FsError::NoSpace,
            Self::QuotaExceeded => FsError::QuotaExceeded,
            Self::ReadOnly(reason) => FsError::ReadOnly(reason.clone()),
            Self::Io(what) => FsError::io("writing back", what.clone()),
        }
    }
}

/// What changes under the state lock.
#[derive(Debug)]
pub(crate) struct FileState {
    /// Uncommitted spans.
    pub(crate) overlay: Overlay,
    /// Length as programs see it.
    pub(crate) size: u64,
    /// Length in the namespace.
    pub(crate) committed_size: u64,
    /// Bytes allocated in the namespace.
    pub(crate) committed_allocated: u64,
    /// Times not yet in the namespace.
    pub(crate) times: PendingTimes,
    /// Counts changes of size and times, so that a commit knows whether it got the latest.
    pub(crate) attr_seq: u64,
    /// `attr_seq` of what the namespace holds.
    pub(crate) attr_committed: u64,
    /// Memory held for the overlay.
    pub(crate) charge: Option<Charge>,
    /// Bytes that count as written though nobody is charged for them yet.
    pub(crate) pending: Share,
    /// The latest failure and how many there were.
    pub(crate) failure: Option<WriteFailure>,
    /// Failures so far.
    pub(crate) failures: u64,
    /// The inode no longer exists; nothing is committed any more.
    pub(crate) gone: bool,
    /// `security.capability` was seen to be absent since the last time it may have been set.
    pub(crate) no_capability: bool,
}

impl FileState {
    /// There is something to commit.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.gone && (!self.overlay.is_empty() || self.attr_seq != self.attr_committed)
    }

    /// Notes a change of size or times.
    pub(crate) fn touch(&mut self) {
        self.attr_seq += 1;
    }

    /// Sets both times to `now`.
    pub(crate) fn touch_content(&mut self, now: SystemTime) {
        self.times.mtime = Some(now);
        self.times.ctime = Some(now);
        self.touch();
    }

    /// Memory held beyond what the overlay holds.
    pub(super) fn spare(&self) -> u64 {
        let held = self.charge.as_ref().map_or(0, Charge::bytes);
        held.saturating_sub(self.overlay.weight())
    }

    /// Holds more memory.
    pub(super) fn add_charge(&mut self, more: Charge) {
        match &mut self.charge {
            Some(charge) => charge.merge(more),
            None => self.charge = Some(more),
        }
    }

    /// Makes the memory held match the overlay, as far as there is memory.
    pub(crate) fn settle_charge(&mut self, memory: &WriteMemory) {
        let weight = self.overlay.weight();
        let spare = if weight >= SPARE_MEMORY { SPARE_MEMORY } else { 0 };
        match &mut self.charge {
            Some(_) if weight == 0 => self.charge = None,
            Some(charge) if charge.bytes() >= weight => charge.shrink_to(weight + spare),
            Some(charge) => {
                if let Some(more) = memory.try_acquire(weight - charge.bytes()) {
                    charge.merge(more);
                }
            }
            None if weight == 0 => {}
            None => self.charge = memory.try_acquire(weight),
        }
    }

    /// Gives back memory that the overlay no longer needs.
    pub(super) fn release_charge(&mut self) {
        self.pending.set(self.overlay.allocated());
        let weight = self.overlay.weight();
        if weight == 0 {
            self.charge = None;
        } else if let Some(charge) = &mut self.charge {
            charge.shrink_to(weight);
        }
    }

    /// Bytes allocated, an estimate where an overlay covers a file with holes.
    pub(crate) fn allocated(&self) -> u64 {
        let old = 0..self.committed_size;
        let mut allocated = self.committed_allocated;
        let (mut inside_added, mut inside_dropped, mut beyond) = (0, 0, 0);
        for (start, span) in self.overlay.spans() {
            let end = start + span.len;
            let inside = end.min(old.end).saturating_sub(start);
            if span.fill.is_allocated() {
                inside_added += inside;
                beyond += span.len - inside;
            } else {
                inside_dropped += inside;
            }
        }
        // Of the committed bytes nobody knows here which lie in holes; at most all are.
        let holes = old.end.saturating_sub(allocated);
        allocated += inside_added.min(holes);
        allocated.saturating_sub(inside_dropped) + beyond
    }

    /// Puts what is not yet committed over attributes from the namespace.
    pub(crate) fn overlay_attr(&self, attr: &mut Attr) {
        attr.size = self.size;
        attr.blocks = self.allocated().div_ceil(512);
        if let Some(atime) = self.times.atime {
            attr.atime = atime;
        }
        if let Some(mtime) = self.times.mtime {
            attr.mtime = mtime;
        }
        if let Some(ctime) = self.times.ctime {
            attr.ctime = attr.ctime.max(ctime);
        }
    }
}

/// Extents of slots that were read lately.
#[derive(Debug, Default)]
struct SlotCache {
    slots: HashMap<u64, Arc<[Piece]>>,
}

/// A file in use.
#[derive(Debug)]
pub(crate) struct FileNode {
    /// Which.
    pub(crate) ino: Ino,
    /// Overlay, size, times.
    pub(crate) state: RwLock<FileState>,
    /// Held by a commit.
    pub(crate) commit: Mutex<()>,
    /// What encoding learnt along this file.
    pub(crate) encode_memory: Arc<Mutex<EncodeMemory>>,
    /// Handles that may write: while there are any, the kernel may hold content that nobody here has
    /// seen.
    pub(crate) writers: AtomicUsize,
    /// On the flusher's list.
    pub(crate) listed: AtomicBool,
    cache: Mutex<SlotCache>,
}

impl FileNode {
    /// A file as the namespace has it.
    pub(crate) fn new(attr: &Attr) -> Arc<Self> {
        Arc::new(Self {
            ino: attr.ino,
            state: RwLock::new(FileState {
                overlay: Overlay::default(),
                size: attr.size,
                committed_size: attr.size,
                committed_allocated: attr.blocks * 512,
                times: PendingTimes::default(),
                attr_seq: 0,
                attr_committed: 0,
                charge: None,
                pending: Share::default(),
                failure: None,
                failures: 0,
                gone: false,
                no_capability: false,
            }),
            commit: Mutex::new(()),
            encode_memory: Arc::default(),
            writers: AtomicUsize::new(0),
            listed: AtomicBool::new(false),
            cache: Mutex::default(),
        })
    }

    /// The state, to be read; [`FsError::Stale`] when the inode is gone.
    pub(crate) fn live_state(&self) -> FsResult<RwLockReadGuard<'_, FileState>> {
        let state = self.state.read();
        if state.gone { Err(FsError::Stale) } else { Ok(state) }
    }

    /// Extents of a slot, remembered or from `load`. Called with the state locked.
    pub(crate) fn slot(
        &self,
        slot: u64,
        load: impl FnOnce() -> FsResult<Vec<Piece>>,
    ) -> FsResult<Arc<[Piece]>> {
        if let Some(pieces) = self.cache.lock().slots.get(&slot) {
            return Ok(Arc::clone(pieces));
        }
        let pieces: Arc<[Piece]> = load()?.into();
        if super::piece::inline_len(&pieces) > CACHED_INLINE {
            return Ok(pieces);
        }
        let mut cache = self.cache.lock();
        if cache.slots.len() >= CACHED_SLOTS {
            cache.slots.clear();
        }
        cache.slots.insert(slot, Arc::clone(&pieces));
        Ok(pieces)
    }

    /// Forgets remembered extents. Called with the state locked for writing.
    pub(crate) fn forget_slots(&self) {
        self.cache.lock().slots.clear();
    }

    /// Whether its content may be another one than the committed one, or become so any moment.
    pub(crate) fn is_changing(&self) -> bool {
        self.writers.load(Ordering::Acquire) > 0 || self.state.read().is_dirty()
    }

    /// Whether the flusher must be told about the file.
    pub(crate) fn must_list(&self) -> bool {
        !self.listed.swap(true, Ordering::AcqRel)
    }

    /// An encoder has finished a job that spans in `range` may name.
    pub(crate) fn job_done(&self, range: Range<u64>, job: &Arc<EncodeJob>, result: &JobResult) {
        let mut state = self.state.write();
        match result {
            Ok(block) => state
                .overlay
                .resolve(range, job, |at, _| Fill::Stored { block: Arc::clone(block), at }),
            Err(_) => state.overlay.resolve(range, job, |at, len| {
                let at = at as usize;
                Fill::Buffered(job.plain.slice(at..at + len as usize))
            }),
        }
        state.release_charge();
    }

    /// Notes that background work failed, for `fsync` and `close` to tell.
    pub(crate) fn note_failure(&self, error: &FsError) {
        let mut state = self.state.write();
        state.failure = Some(WriteFailure::of(error));
        state.failures += 1;
    }

    /// The inode is gone: drops whatever was not committed.
    pub(crate) fn drop_content(&self) {
        let mut state = self.state.write();
        state.gone = true;
        self.forget_slots();
        state.overlay.clear();
        state.release_charge();
    }
}
