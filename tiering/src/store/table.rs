//! Every sealed segment in memory: its catalog record and what only this process knows of it.
//! The table decides where a read goes; the catalog below it only makes opening fast.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::block::BlockId;
use crate::catalog::{ColdCopy, SegmentRecord};
use crate::segment::SegmentId;

use super::heat::Heat;
use super::victims::Verdict;
use super::waste::Thrift;

/// One sealed segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) record: SegmentRecord,
    /// Whether the catalog holds its blocks.
    pub(super) recorded: bool,
    /// Bytes its hot file and its index file really take.
    pub(super) disk_bytes: u64,
    /// How warm it is: the coldest goes first. The record has what was saved last.
    pub(super) heat: Heat,
    /// What its steward said of it last.
    pub(super) verdict: Option<Verdict>,
    /// Blocks freed since it was opened; see the rule in `reclaim`.
    pub(super) freed: HashSet<BlockId>,
    /// A thread is uploading, dropping or compacting it; others leave it alone.
    pub(super) busy: bool,
    /// Who waits for that to end.
    wanted: u32,
    /// Uploads that failed in a row, and when the next attempt of anything may begin.
    pub(super) failures: u32,
    pub(super) retry_at: Option<Instant>,
    /// Its index is damaged wherever it was looked for.
    pub(super) unreadable: bool,
    /// What lives in its hot file is damaged beyond repair: there is nothing to copy, to compact or
    /// to encode, until a copy comes back.
    pub(super) ruined: bool,
    /// Since when parts of its hot file that are needed cannot be read; see `repair`.
    pub(super) unread_since: Option<Instant>,
    /// Dead bytes when it was last looked at closely.
    pub(super) judged_dead: u64,
    /// How thriftily that was.
    pub(super) judged_with: Thrift,
    /// It could not be judged, and is not looked at again before then.
    pub(super) judge_at: Option<Instant>,
    /// The catalog does not know its dead bytes yet.
    pub(super) unsaved: bool,
}

impl Segment {
    pub(super) fn new(record: SegmentRecord, recorded: bool, disk_bytes: u64) -> Self {
        Self {
            heat: Heat::new(record.heat),
            record,
            recorded,
            disk_bytes,
            verdict: None,
            freed: HashSet::new(),
            busy: false,
            wanted: 0,
            failures: 0,
            retry_at: None,
            unreadable: false,
            ruined: false,
            unread_since: None,
            judged_dead: 0,
            judged_with: Thrift::default(),
            judge_at: None,
            unsaved: false,
        }
    }

    /// All of it lies elsewhere or is dead: its object is judged again until it may go.
    pub(super) fn nothing_is_needed(&mut self) {
        self.record.dead_bytes = self.record.data_bytes;
        self.judged_dead = self.record.dead_bytes;
    }
}

/// Where bytes of a segment can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) hot: bool,
    pub(super) cold: bool,
}

/// All sealed segments by id.
#[derive(Debug, Default)]
pub(super) struct Table {
    segments: RwLock<BTreeMap<SegmentId, Segment>>,
    /// Held between a look at a claim and the wait for its end, so that none is missed.
    looking: Mutex<()>,
    unclaimed: Condvar,
}

/// Somebody waits for the claim of a segment for as long as this lives.
pub(super) struct Want<'a> {
    table: &'a Table,
    id: SegmentId,
}

impl Drop for Want<'_> {
    fn drop(&mut self) {
        self.table.update(self.id, |segment| segment.wanted = segment.wanted.saturating_sub(1));
    }
}

impl Table {
    /// Where the bytes `start..end` of a segment can be had; counts as an access in the second
    /// `read_s`, if there is one.
    pub(super) fn places(
        &self,
        id: SegmentId,
        start: u64,
        end: u64,
        read_s: Option<u32>,
    ) -> Option<Places> {
        let segments = self.segments.read();
        let segment = segments.get(&id)?;
        if let Some(now_s) = read_s {
            segment.heat.touch(now_s);
        }
        Some(Places {
            hot: segment.record.hot && !segment.record.holes.touches(start, end),
            cold: segment.record.cold != ColdCopy::Absent,
        })
    }

    pub(super) fn insert(&self, segment: Segment) {
        self.segments.write().insert(segment.record.id, segment);
    }

    pub(super) fn remove(&self, id: SegmentId) -> Option<Segment> {
        self.segments.write().remove(&id)
    }

    pub(super) fn contains(&self, id: SegmentId) -> bool {
        self.segments.read().contains_key(&id)
    }

    pub(super) fn record(&self, id: SegmentId) -> Option<SegmentRecord> {
        self.segments.read().get(&id).map(|segment| segment.record.clone())
    }

    /// Changes a segment; `None` when there is no such segment.
    pub(super) fn update<T>(
        &self,
        id: SegmentId,
        change: impl FnOnce(&mut Segment) -> T,
    ) -> Option<T> {
        self.segments.write().get_mut(&id).map(change)
    }

    /// Looks at a segment.
    pub(super) fn with<T>(&self, id: SegmentId, look: impl FnOnce(&Segment) -> T) -> Option<T> {
        self.segments.read().get(&id).map(look)
    }

    /// Claims a segment for one thread; `false` when another has it or it is gone.
    pub(super) fn claim(&self, id: SegmentId) -> bool {
        self.update(id, |segment| !std::mem::replace(&mut segment.busy, true)).unwrap_or(false)
    }

    /// Ends [`Table::claim`].
    pub(super) fn unclaim(&self, id: SegmentId) {
        self.update(id, |segment| segment.busy = false);
        drop(self.looking.lock());
        self.unclaimed.notify_all();
    }

    /// [`Table::claim`], once more when a claim ends within `longest`, which is time of the machine.
    pub(super) fn claim_within(&self, id: SegmentId, longest: Duration) -> bool {
        let mut looking = self.looking.lock();
        if self.claim(id) {
            return true;
        }
        self.unclaimed.wait_for(&mut looking, longest);
        self.claim(id)
    }

    /// Notes that somebody waits for a claim, so that work for which nobody waits lets go.
    pub(super) fn want(&self, id: SegmentId) -> Want<'_> {
        self.update(id, |segment| segment.wanted += 1);
        Want { table: self, id }
    }

    /// Whether somebody waits for the claim of a segment.
    pub(super) fn is_wanted(&self, id: SegmentId) -> bool {
        self.with(id, |segment| segment.wanted > 0).unwrap_or(false)
    }

    /// Ids of the segments that `wanted` picks, in id order.
    pub(super) fn ids(&self, wanted: impl Fn(&Segment) -> bool) -> Vec<SegmentId> {
        let segments = self.segments.read();
        segments.values().filter(|s| wanted(s)).map(|s| s.record.id).collect()
    }

    /// The first segment behind `after`.
    pub(super) fn next(&self, after: Option<SegmentId>) -> Option<SegmentId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.segments.read().range((from, Bound::Unbounded)).next().map(|(id, _)| *id)
    }

    /// Folds over all segments.
    pub(super) fn fold<T>(&self, init: T, mut step: impl FnMut(T, &Segment) -> T) -> T {
        self.segments.read().values().fold(init, &mut step)
    }
}
