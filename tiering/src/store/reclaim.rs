//! Dead blocks: wholly dead segments go, mostly dead ones are compacted (see `waste` for when).
//!
//! *Who is dead*: dead-byte counters only start a closer look. A block is dead when [`Liveness`]
//! says that nothing refers to it, and, if it was appended since this store was opened, when it
//! was freed as well: a block on its way from `append` into the namespace is referred to by
//! nothing that could be asked. Where it is written again, that is asked of the new place alone.
//! *Compaction* appends each living frame, verified, under its own id to a segment that takes
//! frames, the cold ones apart (encoded again as `recode` does when the store is idle), and syncs; the map of unsealed
//! blocks then points at the new copy, and only then the old segment leaves the catalog and the
//! disk. What lives in a cold object only is fetched for that. *Crash*: before the sync the old copy
//! counts; after it both are good, and whichever the catalog names is verified on reading.
//! *Cold*: an object is deleted only when everything is recorded, the gate says that no retained backup references its
//! dead blocks, and each living one is verified in cold elsewhere; until then it stays, listed by
//! its local index.
//! *Retry*: everything here may be repeated; a segment that could not be judged is judged again
//! after a pause. *Cold away*: the hot file of a segment without living blocks goes all the same.
//!
//! [`Liveness`]: super::Liveness

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::block::BlockId;
use crate::blocks::Wait;
use crate::catalog::{ColdCopy, SegmentRecord};
use crate::error::{Error, Result};
use crate::segment::{FileKind, IndexEntry, SegmentId, SegmentIndex};
use crate::throttle::Priority;
use crate::tier::is_retriable;

use super::Inner;
use super::append::{Lane, charge_of};
use super::job::Cancel;
use super::mover::ids_of;
use super::recode::{harder, verified};
use super::residence::runs;
use super::signals::add;
use super::steps::Step;
use super::table::Segment;
use super::upload::{CALL_DEADLINE, COMPARE_BYTES};
use super::urgency::acting_as;
use super::victims::UNJUDGED_PAUSE;
use super::waste::Thrift;

/// Pause between two looks at objects that something still needed.
const LEFTOVERS_EVERY: Duration = Duration::from_secs(600);

/// How long cold may take to answer what can be asked again.
pub(super) const ASIDE_DEADLINE: Duration = Duration::from_secs(20);

/// How long it is not asked after it did not answer.
const ASIDE_PAUSE: Duration = Duration::from_secs(60);

/// Blocks asked about at once.
const ASK: usize = 4096;

impl Inner {
    /// Those of `blocks`, all of segment `id`, that live. Without anybody to ask, all do.
    pub(super) fn live_among(&self, id: SegmentId, blocks: &[BlockId]) -> Result<HashSet<BlockId>> {
        let Some(liveness) = &self.config.liveness else {
            return Ok(blocks.iter().copied().collect());
        };
        let mut live = HashSet::new();
        for part in blocks.chunks(ASK) {
            let answers = liveness.is_referenced(part)?;
            if answers.len() != part.len() {
                let reason = format!("{} answers for {} blocks", answers.len(), part.len());
                return Err(Error::Damaged { what: "liveness", reason });
            }
            let in_flight = |block: BlockId| {
                block >= self.first_of_session
                    && !self.table.with(id, |s| s.freed.contains(&block)).unwrap_or(false)
            };
            live.extend(
                part.iter()
                    .zip(answers)
                    .filter(|(block, referenced)| *referenced || in_flight(**block))
                    .map(|(block, _)| *block),
            );
        }
        Ok(live)
    }

    /// Judges segments whose counters say that half or more is dead; returns how many went.
    pub(super) fn reclaim_candidates(&self) -> Result<usize> {
        if self.config.liveness.is_none() || self.check_writable().is_err() {
            return Ok(0);
        }
        self.save_dead_bytes();
        let thrift = self.thrift();
        let leftovers = self.leftovers_are_due();
        let candidates = self
            .table
            .ids(|segment| !segment.busy && self.is_worth_judging(segment, thrift, leftovers));
        Ok(self.reclaim_all(&candidates, thrift))
    }

    fn is_worth_judging(&self, segment: &Segment, thrift: Thrift, leftovers: bool) -> bool {
        let record = &segment.record;
        let dead = record.dead_bytes;
        let is_new = dead > segment.judged_dead
            || thrift.exceeds(segment.judged_with)
            || (leftovers && !record.hot);
        let living = charge_of(record.data_bytes.saturating_sub(dead));
        let now = self.config.clock.instant();
        segment.recorded
            && is_new
            && segment.judge_at.is_none_or(|at| at <= now)
            && thrift.is_much(dead, record)
            && (!record.hot || living == 0 || self.capacity.has_reserve(living))
    }

    /// Whether there is garbage that will be collected without anybody's help: it is not counted
    /// yet, not sealed yet, or not judged yet.
    pub(super) fn can_collect(&self) -> bool {
        let thrift = self.thrift();
        let is_waiting = || {
            let judge = |found, segment: &Segment| {
                found || segment.record.hot && self.is_worth_judging(segment, thrift, false)
            };
            self.table.fold(false, judge)
        };
        self.config.liveness.is_some()
            && (!self.freed.lock().is_empty()
                || self.open_is_wasteful()
                || self.is_sealing_waste()
                || is_waiting())
    }

    /// Whether objects that were kept for backups or for copies under way are to be judged again.
    fn leftovers_are_due(&self) -> bool {
        let now = self.config.clock.instant();
        let mut at = self.leftovers_at.lock();
        let due = now >= *at;
        if due {
            *at = now + LEFTOVERS_EVERY;
        }
        due
    }

    /// Judges every segment, whatever the counters say.
    pub(super) fn sweep(&self) -> Result<usize> {
        if self.config.liveness.is_none() {
            return Ok(0);
        }
        self.check_writable()?;
        let all = self.table.ids(|segment| segment.recorded && !segment.unreadable);
        let gone = self.reclaim_all(&all, self.thrift());
        self.sweep_cold_sidecars();
        Ok(gone)
    }

    /// Lets the catalog know how much of each segment is dead.
    pub(super) fn save_dead_bytes(&self) {
        for id in self.table.ids(|segment| segment.unsaved) {
            self.table.update(id, |segment| segment.unsaved = false);
            self.record_state(id);
        }
    }

    /// Judges these segments; returns how many went. One that cannot be judged holds up no other.
    pub(super) fn reclaim_all(&self, candidates: &[SegmentId], thrift: Thrift) -> usize {
        let _acting = acting_as(Priority::Reencode);
        let mut gone = 0;
        for &id in candidates {
            if self.check_writable().is_err() {
                break;
            }
            if !self.table.claim(id) {
                continue;
            }
            self.table.update(id, |segment| {
                segment.judged_dead = segment.record.dead_bytes;
                segment.judged_with = thrift;
                segment.judge_at = None;
            });
            let result = self.reclaim(id, thrift);
            self.table.unclaim(id);
            match result {
                Ok(went) => gone += usize::from(went),
                Err(error) => {
                    let retry_at = self.config.clock.instant() + UNJUDGED_PAUSE;
                    self.table.update(id, |segment| {
                        (segment.judged_dead, segment.judge_at) = (0, Some(retry_at));
                    });
                    let error = super::read::chain(&error);
                    tracing::warn!(%id, error, "a segment could not be collected");
                }
            }
        }
        gone
    }

    /// Judges one claimed segment; whether space was won.
    fn reclaim(&self, id: SegmentId, thrift: Thrift) -> Result<bool> {
        let Some(record) = self.table.record(id) else { return Ok(false) };
        let index = self.load_index(id, CALL_DEADLINE)?;
        let live = self.live_among(id, &ids_of(index.entries()))?;
        let counted = record.dead_bytes;
        let here = if record.hot {
            self.living_in_hot(&index, &live)
        } else {
            let living = index.entries().iter().filter(|entry| live.contains(&entry.id));
            living.filter(|entry| !self.is_superseded(id, entry)).cloned().collect()
        };
        let live_bytes: u64 = here.iter().map(IndexEntry::frame_len).sum();
        let dead_bytes = record.data_bytes.saturating_sub(live_bytes);
        self.table.update(id, |segment| {
            // What was freed since it was judged counts on top, so that it is judged once more.
            let since = segment.record.dead_bytes.saturating_sub(counted);
            let now = dead_bytes.saturating_add(since).min(record.data_bytes);
            segment.unsaved |= segment.record.dead_bytes != now;
            segment.record.dead_bytes = now;
            segment.judged_dead = dead_bytes;
        });
        if live.is_empty() {
            return self.remove_segment(&index, &live);
        }
        if !record.hot && here.is_empty() {
            // Compacted before: perhaps its living blocks have reached cold elsewhere by now.
            return self.remove_segment(&index, &live);
        }
        if self.table.with(id, |segment| segment.ruined) == Some(true) && !here.is_empty() {
            return Ok(false);
        }
        if record.hot && !record.holes.is_empty() {
            if here.is_empty() {
                // All of it was written again elsewhere, perhaps not durably yet.
                self.sync()?;
                self.replace(&record, &index, &live)?;
                return Ok(true);
            }
            self.punch_leftovers(&record)?;
            return self.give_back_dead(&record, &index, &live);
        }
        if !thrift.is_much(dead_bytes, &record) || !record.holes.is_empty() {
            return Ok(false);
        }
        match record.hot {
            true if !self.compact(&record, &index, &here, &live)? => return Ok(false),
            true => {}
            false if thrift.quiet => self.compact_cold(&index, &here, &live)?,
            false => return Ok(false),
        }
        add(&self.counters.compacted_segments, 1);
        Ok(true)
    }

    /// Those of the `live` blocks of a segment that were not written again elsewhere.
    pub(super) fn living_in_hot(
        &self,
        index: &SegmentIndex,
        live: &HashSet<BlockId>,
    ) -> Vec<IndexEntry> {
        let id = index.name().id;
        let living = index.entries().iter().filter(|entry| live.contains(&entry.id));
        living.filter(|entry| !self.stands_elsewhere(id, entry)).cloned().collect()
    }

    /// Punches what is dead out of a hot file with holes, which is not compacted: its copy in cold
    /// is whole. Whether space was won.
    fn give_back_dead(
        &self,
        record: &SegmentRecord,
        index: &SegmentIndex,
        live: &HashSet<BlockId>,
    ) -> Result<bool> {
        let is_there = |entry: &&IndexEntry| {
            let frame = entry.frame_range();
            !live.contains(&entry.id) && !record.holes.touches(frame.start, frame.end)
        };
        let dead: Vec<IndexEntry> = index.entries().iter().filter(is_there).cloned().collect();
        if dead.is_empty() || record.cold != ColdCopy::Verified {
            return Ok(false);
        }
        self.punch_out(record.id, &dead)?;
        Ok(true)
    }

    /// Moves what lives `here` to the segment that takes frames, then lets the old one go. With
    /// nothing better to do it is encoded as hard as it can be. `false` when there is no room for
    /// all of it: a part would take the rest of the room and win nothing.
    fn compact(
        &self,
        record: &SegmentRecord,
        index: &SegmentIndex,
        here: &[IndexEntry],
        live: &HashSet<BlockId>,
    ) -> Result<bool> {
        let id = record.id;
        let name = self.name(id);
        let needed = here.iter().map(|entry| charge_of(entry.frame_len())).sum();
        let Ok(mut charge) = self.capacity.charge_reserve(needed) else {
            // Others were faster; it is judged again when there is room.
            self.table.update(id, |segment| segment.judged_dead = 0);
            return Ok(false);
        };
        let file = self
            .hot
            .open_sealed(id)
            .map_err(Error::io(format!("open segment {id} to compact it")))?;
        // As well protected as it was.
        let place = self.possible(index.trailer().place);
        self.reached(Step::CompactBeforeAppend)?;
        for (entry, cold) in here.iter().zip(self.are_cold(id, here)) {
            if self.is_stopping() {
                return Err(Error::ReadOnly("it is being closed".into()));
            }
            let mut frame = self.frame_of(&name, &file, entry)?;
            if self.is_idle() {
                frame = harder(frame)?;
            }
            let lane = if cold { Lane::cold(place) } else { Lane::fresh(place) };
            self.append_frame(&mut frame, lane, Some(id))?;
            charge.keep_some(charge_of(frame.len()));
        }
        drop(charge);
        self.reached(Step::CompactAfterAppendBeforeSync)?;
        self.sync()?;
        self.hand_over(id, here);
        self.reached(Step::CompactAfterSyncBeforeRemove)?;
        self.replace(record, index, live)?;
        Ok(true)
    }

    /// Fetches what lives in a cold object only to the segment that takes frames; the object stays
    /// until that has been copied to cold.
    fn compact_cold(
        &self,
        index: &SegmentIndex,
        here: &[IndexEntry],
        live: &HashSet<BlockId>,
    ) -> Result<()> {
        let name = index.name();
        let cold = self.cold_tier()?;
        for run in runs(here, COMPARE_BYTES) {
            self.check_writable()?;
            let deadline = self.config.clock.instant() + CALL_DEADLINE;
            let stored = cold.get_range(name.id.object_key(), run.clone(), deadline)?;
            for entry in here.iter().filter(|entry| run.contains(&entry.offset)) {
                let mut frame =
                    verified(&name, &stored[(entry.offset - run.start) as usize..], entry)?;
                // Never at the expense of somebody who writes.
                let (bytes, cancel) = (charge_of(frame.len()), Cancel::default());
                let charge = self.capacity.charge_recall(self, bytes, Wait::No, &cancel)?;
                let lane = Lane::cold(self.possible(index.trailer().place));
                self.append_frame(&mut frame, lane, Some(name.id))?;
                charge.keep();
            }
        }
        self.sync()?;
        self.hand_over(name.id, here);
        self.reached(Step::FetchAfterSyncBeforeRemove)?;
        self.table.update(name.id, |segment| segment.nothing_is_needed());
        self.remove_segment(index, live).map(drop)
    }

    /// Blocks of a segment were appended to another, durably: what is on its way into the namespace
    /// is so there and not here, and what was freed here meanwhile is freed there.
    pub(super) fn hand_over(&self, id: SegmentId, moved: &[IndexEntry]) {
        let freed = self.table.update(id, |segment| {
            let blocks = ids_of(moved).into_iter();
            blocks.filter(|block| !segment.freed.insert(*block)).collect::<Vec<_>>()
        });
        let Some(freed) = freed.filter(|freed| !freed.is_empty()) else { return };
        self.freed.lock().extend(freed);
        self.signals.kick_mover();
    }

    /// Removes a segment of which nothing is needed here any more; the object in cold only if
    /// nobody needs that either. Whether it is gone from hot.
    pub(super) fn remove_segment(
        &self,
        index: &SegmentIndex,
        live: &HashSet<BlockId>,
    ) -> Result<bool> {
        let id = index.name().id;
        let Some(mut record) = self.table.record(id) else { return Ok(false) };
        match self.settle_offer(&record) {
            Ok(copy) => record.cold = copy,
            Err(error) if record.hot && live.is_empty() => {
                return self.drop_unsettled(index, &error).map(|()| true);
            }
            Err(error) => return Err(error),
        }
        if record.cold == ColdCopy::Absent {
            if !live.is_empty() {
                return Ok(false);
            }
            self.forget_segment(index)?;
            return Ok(true);
        }
        let freed = record.hot && live.is_empty();
        if freed {
            self.drop_hot(index)?;
        }
        if self.cold_is_asleep() {
            return Ok(freed);
        }
        let dead: Vec<_> =
            ids_of(index.entries()).into_iter().filter(|block| !live.contains(block)).collect();
        if self.may_delete_cold(id, live, &dead)? {
            let cold = self.cold_tier()?;
            if record.cold == ColdCopy::Listed {
                // Seen by its key alone: another instance of the volume may have written it.
                self.check_owned(cold, id)?;
            }
            self.reached(Step::ColdDeleteBefore)?;
            let key = id.object_key();
            self.ask_aside(|deadline| {
                cold.call(deadline, "deleting from the cold tier", move |tier| {
                    Box::pin(async move { tier.delete(&key).await })
                })
            })?;
            self.reached(Step::ColdDeleteAfter)?;
            self.ask_aside(|deadline| self.delete_cold_sidecar(cold, index, deadline))?;
            if let Some(gate) = &self.config.backup {
                gate.deleted_cold(&dead);
            }
            self.forget_segment(index)?;
        }
        Ok(freed)
    }

    /// Looks for an object whose copying was begun and never recorded; returns what is known of
    /// the copy now.
    pub(super) fn settle_offer(&self, record: &SegmentRecord) -> Result<ColdCopy> {
        let Some(cold) = &self.cold else { return Ok(record.cold) };
        if record.cold != ColdCopy::Absent || !record.offered {
            return Ok(record.cold);
        }
        match self.ask_aside(|deadline| self.cold_len_by(cold, record.id, deadline)) {
            Ok(_) => {
                self.found_in_cold(record.id);
                Ok(ColdCopy::Listed)
            }
            Err(Error::NotFound(_)) => Ok(ColdCopy::Absent),
            Err(error) => Err(error),
        }
    }

    /// Lets go of a hot file that nobody needs while cold does not say whether it has a copy: as
    /// though it had one, which is judged with other leftovers. A full disk need not wait for cold.
    pub(super) fn drop_unsettled(&self, index: &SegmentIndex, error: &Error) -> Result<()> {
        let id = index.name().id;
        tracing::debug!(%id, %error, "whether cold has a copy is found out later");
        self.found_in_cold(id);
        self.table.update(id, Segment::nothing_is_needed);
        self.drop_hot(index)
    }

    /// Whether cold did not answer a moment ago.
    fn cold_is_asleep(&self) -> bool {
        let now = self.config.clock.instant();
        self.cold_asleep_until.lock().is_some_and(|until| now < until)
    }

    /// Asks cold something that can be asked again later, and does not ask again for a while when it
    /// does not answer: segments that go are many, and each would wait.
    pub(super) fn ask_aside<T>(&self, ask: impl FnOnce(Instant) -> Result<T>) -> Result<T> {
        if self.cold_is_asleep() {
            return Err(Error::TimedOut("asking the cold tier, which did not answer lately"));
        }
        let answer = ask(self.config.clock.instant() + ASIDE_DEADLINE);
        let asleep = answer.as_ref().is_err_and(is_retriable);
        let until = asleep.then(|| self.config.clock.instant() + ASIDE_PAUSE);
        *self.cold_asleep_until.lock() = until;
        answer
    }

    /// Whether everything that can be known of segments is: cold was listed, and every index that
    /// can be read is recorded.
    pub(super) fn is_view_complete(&self) -> bool {
        !self.cold_unlisted.load(Ordering::Relaxed)
            && self.table.fold(true, |all, segment| all && (segment.recorded || segment.unreadable))
    }

    /// Whether no backup and no living block needs the object.
    fn may_delete_cold(
        &self,
        id: SegmentId,
        live: &HashSet<BlockId>,
        dead: &[BlockId],
    ) -> Result<bool> {
        let Some(gate) = &self.config.backup else { return Ok(false) };
        // What is not known yet may contradict what is.
        if !self.is_view_complete() {
            return Ok(false);
        }
        let mut elsewhere = BTreeSet::new();
        for block in live {
            match self.with_catalog(|catalog| catalog.lookup(*block))? {
                Some(other) if other.segment != id => elsewhere.insert(other.segment),
                _ => return Ok(false),
            };
        }
        let cold = self.cold_tier()?;
        // Asked of the tier itself: what was verified once may be gone since.
        let is_safe = |other: SegmentId| {
            let record = self.table.record(other).filter(|r| r.cold == ColdCopy::Verified);
            record.is_some_and(|record| {
                let len = self.ask_aside(|deadline| self.cold_len_by(cold, other, deadline));
                self.judge_len(&record, len).is_ok()
            })
        };
        if !elsewhere.into_iter().all(is_safe) {
            return Ok(false);
        }
        gate.may_delete_cold(dead)
    }

    /// Takes a segment out of catalog, table and disk, in that order: a crash in between leaves a
    /// file without a record, which is recorded again and judged again.
    pub(super) fn forget_segment(&self, index: &SegmentIndex) -> Result<()> {
        let id = index.name().id;
        self.reached(Step::ForgetBeforeRecord)?;
        let forgotten = self.with_catalog(|catalog| {
            catalog.remove_segment(id, &ids_of(index.entries()))?;
            // A record without files would outlive the death of this process.
            catalog.flush()
        });
        if let Err(error) = forgotten {
            tracing::warn!(%id, %error, "the catalog still lists a segment that goes");
        }
        self.reached(Step::ForgetAfterRecordBeforeUnlink)?;
        if let Some(segment) = self.table.remove(id) {
            self.capacity.sub(segment.disk_bytes);
        }
        self.hot.remove(id, FileKind::Sealed)?;
        self.reached(Step::ForgetAfterUnlink)?;
        self.hot.remove(id, FileKind::Index)?;
        add(&self.counters.reclaimed_segments, 1);
        self.capacity.progressed();
        Ok(())
    }
}
